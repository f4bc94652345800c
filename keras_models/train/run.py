"""A training, from its settings to its files."""

import contextlib
import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from keras_models import registry
from keras_models.accuracy import Accuracy, accuracy
from keras_models.checkpoints.load import load_weights
from keras_models.classifier import classifier_of
from keras_models.images import datasets
from keras_models.images.datasets import Pictures
from keras_models.train import (
    checkpoint,
    distribution,
    initial_weights,
    outputs,
    progressive,
    teacher,
)
from keras_models.train.distribution import Replicas
from keras_models.train.fast_layers import with_fast_layers
from keras_models.train.loop import Loop
from keras_models.train.settings import TrainingSettings
from keras_models.train.trainer import Trainer
from shufflelite.progress import Progress

RESIZED_CROP_MARGIN = 8 / 7  # pictures for resized crops are decoded this much larger


@dataclass(frozen=True)
class TrainingResult:
    """The last weights, and their accuracy if there are test pictures."""

    weights: Path
    steps: int
    classes: int
    best_top1: float | None
    accuracy: Accuracy | None


def run(settings: TrainingSettings, progress: Progress) -> TrainingResult:
    """Trains, or continues an interrupted run of the same settings.

    Raises:
      InputError: settings that cannot be used, or a loss that is not finite.
      OSError: the output cannot be written; the last checkpoint is kept.
      WorkerLostError: another machine is lost; a new run continues from the checkpoint.
    """
    out = Path(settings.out)
    # After the last epoch, what remains needs no other machine; they may have ended already.
    complete = checkpoint.is_complete(out / outputs.CHECKPOINT, settings)
    replicas = distribution.create("one" if complete else settings.distribution.strategy)
    keras.utils.set_random_seed(settings.seed)
    tf.config.experimental.enable_op_determinism()
    with contextlib.ExitStack() as stack:
        stack.enter_context(distribution.lost_workers(replicas.several_machines))
        if replicas.chief:
            stack.enter_context(outputs.locked(out))
        loop = _make_loop(settings, progress, replicas)
        loop.run()
        loop.finish()
    tops = [epoch.test_top1 for epoch in loop.state.epochs if epoch.test_top1 is not None]
    return TrainingResult(
        weights=out / outputs.LAST,
        steps=loop.trainer.steps,
        classes=loop.train.classes,
        best_top1=max(tops, default=None),
        accuracy=loop.accuracy,
    )


def _make_loop(settings: TrainingSettings, progress: Progress, replicas: Replicas) -> Loop:
    settings, initial = initial_weights.read(settings, progress.warn)
    trained_teacher = teacher.read(settings)
    train, test = _read_pictures(settings, progress)
    if trained_teacher:
        trained_teacher.check_classes(train)
    model = _create(
        settings, settings.network.input_resolution, settings.network.options, train.classes
    )
    initial.load(model, train.class_names, progress.warn)

    def make_trainer(epoch: int) -> Trainer:
        stage = progressive.stage_settings(settings, epoch)
        sized = _create(settings, stage.resolution, stage.options, train.classes)
        sized.set_weights(model.get_weights())
        build = functools.partial(
            with_fast_layers,
            sized,
            precision=settings.training.precision,
            synchronized=settings.distribution.synchronized_batch_norm,
        )
        distillation = None
        if trained_teacher:
            distillation = trained_teacher.build(settings, stage.resolution, replicas)
        augment, count = stage.augment, len(train)
        return Trainer(
            build, settings, augment, pictures=count, replicas=replicas, teacher=distillation
        )

    evaluated = with_fast_layers(model)
    classifier = classifier_of(evaluated, settings.input_preprocessing)

    def measure(weights: Mapping[str, np.ndarray]) -> Accuracy:
        assert test
        load_weights(evaluated, weights, origin="training")
        return accuracy(classifier, test).accuracy

    return Loop(
        settings,
        progress,
        train,
        make_trainer,
        replicas,
        initial.identity + (f" teacher {trained_teacher.identity}" if trained_teacher else ""),
        measure if test else None,
    )


def read_training_pictures(
    settings: TrainingSettings, progress: Progress, *, labels_required: bool = True
) -> Pictures:
    """Reads the training pictures, with their whole central square: augmentation crops them."""
    resolution = settings.training.resolution or settings.network.input_resolution
    if settings.augment.crop == "resized":
        resolution = round(resolution * RESIZED_CROP_MARGIN)
    uncropped = replace(settings.input_preprocessing, crop_fraction=1.0)
    with progress.stage(f"pictures from {settings.data.train}"):
        return datasets.load(
            settings.data.train,
            resolution=resolution,
            preprocessing=uncropped,
            in_memory_gb=settings.data.in_memory_gb,
            seed=settings.seed,
            warn=progress.warn,
            labels_required=labels_required,
        )


def _read_pictures(
    settings: TrainingSettings, progress: Progress
) -> tuple[Pictures, Pictures | None]:
    """Reads the training and the test pictures, whose labels number the same classes."""
    train = read_training_pictures(settings, progress)
    datasets.check_classes(train, progress.warn)
    if settings.data.test is None:
        return train, None
    with progress.stage(f"pictures from {settings.data.test}"):
        test = datasets.load(
            settings.data.test,
            resolution=settings.network.input_resolution,
            preprocessing=settings.input_preprocessing,
            in_memory_gb=settings.data.in_memory_gb,
            seed=settings.seed + 1,
            warn=progress.warn,
            labels_required=True,
        )
    datasets.check_classes(test, progress.warn)
    return train, datasets.aligned(test, train)


def _create(
    settings: TrainingSettings, resolution: int, options: Mapping[str, Any], classes: int
) -> Any:
    shape = (resolution, resolution, 3)
    return registry.create(settings.network.name, input_shape=shape, num_classes=classes, **options)
