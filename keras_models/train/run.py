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
from keras_models.images.decode import Preprocessing
from keras_models.train import checkpoint, distribution, initial_weights, outputs, progressive
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
    train, test = read_pictures(settings, progress)
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
        return Trainer(build, settings, stage.augment, pictures=len(train), replicas=replicas)

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
        initial.identity,
        measure if test else None,
    )


def read_pictures(
    settings: TrainingSettings, progress: Progress
) -> tuple[Pictures, Pictures | None]:
    """Reads the training and the test pictures, whose labels number the same classes."""

    def load(source: str, resolution: int, preprocessing: Preprocessing, seed: int) -> Pictures:
        with progress.stage(f"pictures from {source}"):
            pictures = datasets.load(
                source,
                resolution=resolution,
                preprocessing=preprocessing,
                in_memory_gb=settings.data.in_memory_gb,
                seed=seed,
                warn=progress.warn,
                labels_required=True,
            )
            datasets.check_classes(pictures, progress.warn)
            return pictures

    resolution = settings.training.resolution or settings.network.input_resolution
    if settings.augment.crop == "resized":
        resolution = round(resolution * RESIZED_CROP_MARGIN)
    # Augmentation crops: pictures are decoded with their whole central square.
    uncropped = replace(settings.input_preprocessing, crop_fraction=1.0)
    train = load(settings.data.train, resolution, uncropped, settings.seed)
    if settings.data.test is None:
        return train, None
    preprocessing, seed = settings.input_preprocessing, settings.seed + 1
    test = load(settings.data.test, settings.network.input_resolution, preprocessing, seed)
    return train, datasets.aligned(test, train)


def _create(
    settings: TrainingSettings, resolution: int, options: Mapping[str, Any], classes: int
) -> Any:
    shape = (resolution, resolution, 3)
    return registry.create(settings.network.name, input_shape=shape, num_classes=classes, **options)
