"""Quantization-aware training: the deployment form goes on learning, rounded as its file will be.

Ranges stay those that calibration found.  Kernels are rounded in each step, and learn as if they
were not (the straight-through estimator, arXiv:1712.05877, Section 3).  There are no batch norms to
fold: the deployment form has none.
"""

import contextlib
import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import tf_keras as keras

from convert.network import LoadedNetwork
from convert.quantization.int8_range import Range
from convert.quantization.quantize import fake_quantize
from convert.settings import ConversionSettings
from keras_models.checkpoints.load import load_weights, model_arrays
from keras_models.images import datasets
from keras_models.images.datasets import Split
from keras_models.images.decode import digest
from keras_models.train import distribution, outputs
from keras_models.train import settings as recipes
from keras_models.train.checkpoint import OtherTrainingError
from keras_models.train.fast_layers import Randomness, training_form
from keras_models.train.loop import Loop
from keras_models.train.run import read_pictures
from keras_models.train.trainer import Teacher, Trainer
from shufflelite.errors import InputError
from shufflelite.progress import Progress


@dataclass(frozen=True)
class Epoch:
    """What was seen of an epoch: mean loss, and percent of its pictures that were right."""

    loss: float
    top1: float


def folder(bundle: Path) -> Path:
    """Where a training is kept until its bundle is written."""
    return bundle.with_name(f"{bundle.name}_training")


def train(
    calibrated: keras.Model,
    ranges: Mapping[str, Range],
    teacher: keras.Model,
    network: LoadedNetwork,
    settings: ConversionSettings,
    out: Path,
    progress: Progress,
) -> tuple[keras.Model, tuple[Epoch, ...]]:
    """Trains, or goes on where an interrupted run of the same settings stopped.

    Args:
      calibrated: The deployment form to begin with; it stays as it is.
      ranges: As `quantize.ranges` gives them.
      teacher: The float network, of whose answers it learns too.
      network: What all this is a form of.
      settings: Of the conversion.
      out: Folder of checkpoint and log; see `clear`.
      progress: Is told of the epochs.

    Returns:
      A deployment form with the trained weights, for `ranges` still, and what each epoch gave.

    Raises:
      InputError: no such pictures, other classes than the network's, a loss that is no number, or
        the training in `out` is another one.
    """
    recipe = _recipe(network, settings, out)
    pictures, _ = read_pictures(recipe, progress)
    pictures = _numbered(pictures, network)
    workers = distribution.create("one")
    per_channel = settings.quantization.per_channel

    def build(randomness: Randomness) -> keras.Model:
        form = training_form(calibrated, randomness)
        return fake_quantize(form, ranges, per_channel=per_channel, training=True)

    share = settings.qat.distillation
    learnt_from = Teacher(training_form(teacher), share) if share else None

    def make_trainer(epoch: int) -> Trainer:
        augment, count = recipe.augment, len(pictures)
        return Trainer(build, recipe, augment, pictures=count, workers=workers, teacher=learnt_from)

    with outputs.own(out):
        start = _digest(calibrated, ranges, share)
        loop = Loop(recipe, progress, pictures, make_trainer, workers, start)
        with _in_our_words(out):
            loop.run()
    trained = keras.models.clone_model(calibrated)
    arrays = loop.trainer.weights()
    wanted = model_arrays(trained)
    load_weights(trained, {name: arrays[name] for name in wanted}, origin="training")
    return trained, tuple(Epoch(epoch.loss, epoch.top1) for epoch in loop.done.epochs)


@contextlib.contextmanager
def _in_our_words(out: Path) -> Iterator[None]:
    """What another training that began there differs in, by this conversion's settings."""
    try:
        yield
    except OtherTrainingError as error:
        difference = re.sub(r"^(training|augment)\.", "qat.", error.difference)
        raise InputError(
            f"{out}: an interrupted training of this bundle has {difference}: repeat its settings "
            "to go on with it, or remove that folder to begin anew."
        ) from error


def clear(out: Path) -> None:
    """Removes what `train` keeps, once the bundle is there."""
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
            clip_norm=1.0,  # no batch norms keep gradients in bounds
        ),
        seed=settings.seed,
    )


def _numbered(pictures: Split, network: LoadedNetwork) -> Split:
    """The pictures with the network's labels, of all of its classes."""
    classes = network.model.output.shape[-1]
    if pictures.classes != classes:
        raise InputError(
            f"{pictures.origin}: expected pictures of the network's {classes} classes, got "
            f"{pictures.classes}."
        )
    return datasets.numbered(pictures, network.class_names, classes, "the network")


def _digest(model: keras.Model, ranges: Mapping[str, Range], share: float) -> str:
    """Tells this beginning of a training from others."""
    weights = [digest(array) for array in model_arrays(model).values()]
    return hashlib.sha256(repr((weights, sorted(ranges.items()), share)).encode()).hexdigest()
