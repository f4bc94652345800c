"""Quantization-aware training (QAT): trains the deployment form, fake-quantized as in its file.

The ranges stay those of calibration. Kernels are rounded in each step, and gradients pass through
the rounding (the straight-through estimator, arXiv:1712.05877, Section 3). There are no batch norms
to fold: the deployment form has none.
"""

import contextlib
import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import tf_keras as keras

from convert.context import Context
from convert.network import LoadedNetwork
from convert.quantization.int8_range import Range
from convert.quantization.quantize import fake_quantize
from convert.settings import ConversionSettings
from keras_models.checkpoints.load import load_weights, model_arrays
from keras_models.images import datasets
from keras_models.images.datasets import Pictures
from keras_models.images.decode import digest
from keras_models.train import distribution, outputs
from keras_models.train import settings as recipes
from keras_models.train.checkpoint import OtherTrainingError
from keras_models.train.fast_layers import Randomness, with_fast_layers
from keras_models.train.loop import Loop
from keras_models.train.run import read_pictures
from keras_models.train.trainer import Teacher, Trainer
from shufflelite.errors import InputError


@dataclass(frozen=True)
class QatEpoch:
    """Mean loss and training accuracy (percent) of an epoch."""

    loss: float
    top1: float


def folder(bundle: Path) -> Path:
    """The folder that holds a training until its bundle is written."""
    return bundle.with_name(f"{bundle.name}_training")


def train(
    context: Context,
    calibrated: keras.Model,
    ranges: Mapping[str, Range],
    teacher: keras.Model,
    out: Path,
) -> tuple[keras.Model, tuple[QatEpoch, ...]]:
    """Trains, or resumes an interrupted run with the same settings.

    Args:
      context: The conversion.
      calibrated: The deployment form to start from; it is not changed.
      ranges: From `quantize.choose_ranges`.
      teacher: The float network, whose logits are learned too.
      out: Folder for the checkpoint and the log; see `clear`.

    Returns:
      A deployment form with the trained weights, for the same `ranges`, and the figures of each
      epoch.

    Raises:
      InputError: pictures that do not exist or that have other classes than the network, a loss
        that is not finite, or a training with other settings in `out`.
    """
    settings, network, progress = context.settings, context.network, context.progress
    recipe = _recipe(network, settings, out)
    pictures, _ = read_pictures(recipe, progress)
    pictures = _numbered(pictures, network)
    replicas = distribution.create("one")
    per_channel = settings.quantization.per_channel

    def build(randomness: Randomness) -> keras.Model:
        fast = with_fast_layers(calibrated, randomness)
        return fake_quantize(fast, ranges, per_channel=per_channel, training=True)

    weight = settings.qat.distillation
    distillation = Teacher(with_fast_layers(teacher), weight) if weight else None

    def make_trainer(epoch: int) -> Trainer:
        augment, count = recipe.augment, len(pictures)
        return Trainer(
            build, recipe, augment, pictures=count, replicas=replicas, teacher=distillation
        )

    with outputs.locked(out):
        start = _digest(calibrated, ranges, weight)
        loop = Loop(recipe, progress, pictures, make_trainer, replicas, start)
        with _naming_our_settings(out):
            loop.run()
    trained = keras.models.clone_model(calibrated)
    arrays = loop.trainer.weights()
    names = model_arrays(trained)
    load_weights(trained, {name: arrays[name] for name in names}, origin="training")
    return trained, tuple(QatEpoch(epoch.loss, epoch.top1) for epoch in loop.state.epochs)


@contextlib.contextmanager
def _naming_our_settings(out: Path) -> Iterator[None]:
    """Names the setting that differs from the interrupted training's as `convert` does."""
    try:
        yield
    except OtherTrainingError as error:
        difference = re.sub(r"^(training|augment)\.", "qat.", error.difference)
        raise InputError(
            f"{out}: an interrupted training of this bundle has {difference}: repeat its settings "
            "to go on with it, or remove that folder to begin anew."
        ) from error


def clear(out: Path) -> None:
    """Removes the folder of `train`, once the bundle is written."""
    shutil.rmtree(out, ignore_errors=True)


def _recipe(
    network: LoadedNetwork, settings: ConversionSettings, out: Path
) -> recipes.TrainingSettings:
    qat, model = settings.qat, settings.model
    assert qat.data is not None
    return recipes.TrainingSettings(
        network=recipes.NetworkSettings(model.name, network.options, model.input_resolution),
        data=recipes.Data(qat.data),
        out=str(out),
        preprocessing=network.preprocessing,
        augment=recipes.Augment(crop=qat.crop, flip=qat.flip),
        training=recipes.Training(
            epochs=qat.epochs,
            batch=qat.batch,
            learning_rate=qat.learning_rate,
            warmup_epochs=0.0,
            weight_decay=0.0,
            clip_norm=1.0,  # there are no batch norms to bound the gradients
        ),
        seed=settings.seed,
    )


def _numbered(pictures: Pictures, network: LoadedNetwork) -> Pictures:
    """The pictures with the network's labels, of all of its classes."""
    classes = network.model.output.shape[-1]
    if pictures.classes != classes:
        raise InputError(
            f"{pictures.origin}: expected pictures of the network's {classes} classes, got "
            f"{pictures.classes}."
        )
    return datasets.match_classes(pictures, network.class_names, classes, "the network")


def _digest(model: keras.Model, ranges: Mapping[str, Range], weight: float) -> str:
    """A fingerprint of the initial state."""
    weights = [digest(array) for array in model_arrays(model).values()]
    return hashlib.sha256(repr((weights, sorted(ranges.items()), weight)).encode()).hexdigest()
