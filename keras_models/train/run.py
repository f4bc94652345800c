"""The order of a training."""

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
from keras_models.images.datasets import Split
from keras_models.images.decode import Preprocessing
from keras_models.train import checkpoint, distribution, initial_weights, outputs, progressive
from keras_models.train.distribution import Workers
from keras_models.train.fast_layers import training_form
from keras_models.train.loop import Loop
from keras_models.train.settings import TrainingSettings
from keras_models.train.trainer import Trainer
from shufflelite.progress import Progress

RESIZED_CROP_MARGIN = 8 / 7  # pictures to take resized crops of are decoded so much larger


@dataclass(frozen=True)
class Result:
    """What came out; `accuracy` is that of the last weights, where there are test pictures."""

    weights: Path
    steps: int
    best_top1: float | None
    accuracy: Accuracy | None


def run(settings: TrainingSettings, progress: Progress) -> Result:
    """Trains, or goes on where an interrupted run of the same settings stopped.

    Raises:
      InputError: the settings ask for what cannot be done, or the loss is no number any more.
      OSError: the output cannot be written; the last checkpoint stays.
      WorkerLostError: another machine is gone; started again, this goes on from the checkpoint.
    """
    out = Path(settings.out)
    # What is left of a training that has ended is done without machines that may be gone.
    ended = checkpoint.ended(out / outputs.CHECKPOINT, settings)
    workers = distribution.create("one" if ended else settings.distribution.strategy)
    keras.utils.set_random_seed(settings.seed)
    tf.config.experimental.enable_op_determinism()
    with contextlib.ExitStack() as stack:
        stack.enter_context(distribution.lost_workers(workers.several))
        if workers.chief:
            stack.enter_context(outputs.own(out))
        loop = _begin(settings, progress, workers)
        loop.run()
        loop.finish()
    tops = [epoch.test_top1 for epoch in loop.done.epochs if epoch.test_top1 is not None]
    return Result(out / outputs.LAST, loop.trainer.steps, max(tops, default=None), loop.accuracy)


def _begin(settings: TrainingSettings, progress: Progress, workers: Workers) -> Loop:
    settings, begin = initial_weights.read(settings, progress.warn)
    train, test = read_pictures(settings, progress)
    model = _create(
        settings, settings.network.input_resolution, settings.network.options, train.classes
    )
    begin.load(model, train.class_names, progress.warn)

    def make_trainer(epoch: int) -> Trainer:
        stage = progressive.stage(settings, epoch)
        sized = _create(settings, stage.resolution, stage.options, train.classes)
        sized.set_weights(model.get_weights())
        build = functools.partial(
            training_form,
            sized,
            precision=settings.training.precision,
            synchronized=settings.distribution.synchronized_batch_norm,
        )
        return Trainer(build, settings, stage.augment, pictures=len(train), workers=workers)

    form = training_form(model)
    classifier = classifier_of(form, settings.seen)

    def measure(weights: Mapping[str, np.ndarray]) -> Accuracy:
        assert test
        load_weights(form, weights, origin="training")
        return accuracy(classifier, test).accuracy

    return Loop(
        settings, progress, train, make_trainer, workers, begin.identity, measure if test else None
    )


def read_pictures(settings: TrainingSettings, progress: Progress) -> tuple[Split, Split | None]:
    """Reads what is trained on, and what is tested on; both number the classes alike."""

    def load(source: str, size: int, preprocessing: Preprocessing, seed: int) -> Split:
        with progress.stage(f"pictures from {source}"):
            split = datasets.load(
                source,
                size=size,
                preprocessing=preprocessing,
                in_memory_gb=settings.data.in_memory_gb,
                seed=seed,
                warn=progress.warn,
            )
            datasets.check_classes(split, progress.warn)
            return split

    side, resized = settings.network.input_resolution, settings.augment.crop == "resized"
    # Augmentation crops: pictures come with the whole of their central square.
    whole = replace(settings.seen, crop_fraction=1.0)
    trained = settings.training.resolution or side
    size = round(trained * RESIZED_CROP_MARGIN) if resized else trained
    train = load(settings.data.train, size, whole, settings.seed)
    if settings.data.test is None:
        return train, None
    test = load(settings.data.test, side, settings.seen, settings.seed + 1)
    return train, datasets.aligned(test, train)


def _create(settings: TrainingSettings, side: int, options: Mapping[str, Any], classes: int) -> Any:
    return registry.create(
        settings.network.name, input_shape=(side, side, 3), num_classes=classes, **options
    )
