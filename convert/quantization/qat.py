"""Quantization-aware training (QAT): trains the deployment form, fake-quantized as in its file.

The ranges stay those of calibration. Kernels are rounded in each step, and gradients pass through
the rounding (the straight-through estimator, arXiv:1712.05877, Section 3). There are no batch norms
to fold: the deployment form has none. The float network is the teacher (arXiv:1503.02531): pictures
need no labels.
"""

import contextlib
import hashlib
import math
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tf_keras as keras

from convert import keras_graph
from convert.context import Context
from convert.network import LoadedNetwork
from convert.quantization.int8_range import Range
from convert.quantization.quantize import fake_quantize
from convert.quantization.tfmot_config import CONVOLVING, kernel_name, kernel_quantizer
from convert.settings import ConversionSettings, Qat
from keras_models.checkpoints.load import load_weights, model_arrays
from keras_models.images import datasets
from keras_models.images.datasets import Pictures
from keras_models.images.decode import digest
from keras_models.train import checkpoint, distribution, outputs
from keras_models.train import settings as recipes
from keras_models.train.checkpoint import OtherTrainingError
from keras_models.train.fast_layers import Randomness, with_fast_layers
from keras_models.train.loop import Loop
from keras_models.train.run import read_training_pictures
from keras_models.train.teacher import Teacher
from keras_models.train.trainer import Trainer
from shufflelite.errors import InputError

MIXED = 0.5  # the teacher's share where each class has labelled pictures
STEPS = 60  # at least
BATCH, LEARNING_RATE = 128, 1e-3  # where there are pictures for ten steps of it
LEAST_BATCH = 16
MARGIN = 0.45  # of a step: how far from its whole steps a weight may begin; 0.5 rounds to others


@dataclass(frozen=True)
class QatEpoch:
    """Mean loss of an epoch, and the training pictures classified as their labels say (percent).

    Without labels: as the float network does.
    """

    loss: float
    top1: float


@dataclass(frozen=True, eq=False)
class Prepared:
    """A training whose settings and pictures are checked.

    Attributes:
      recipe: Its settings; `out` is the folder for the checkpoint and the log, see `clear`.
      pictures: Its pictures, with the network's labels; they are zeros if `share` is 1.
      share: Weight of the float network's probabilities in the targets, 0 to 1.
    """

    recipe: recipes.TrainingSettings
    pictures: Pictures
    share: float


def folder(bundle: Path) -> Path:
    """The folder that holds a training until its bundle is written."""
    return bundle.with_name(f"{bundle.name}_training")


def prepare(context: Context, out: Path) -> tuple[Context, Prepared | None]:
    """Reads the pictures and checks all that can be checked before the network is quantized.

    Args:
      context: The conversion.
      out: Folder for the checkpoint and the log; see `clear`.

    Returns:
      The conversion, with the settings of the training that follow from the pictures; and the
      training, None if it has none.

    Raises:
      InputError: pictures that do not exist, labels that are not the network's or that are needed
        and absent, or an interrupted training with other settings in `out`.
    """
    settings, network, progress = context.settings, context.network, context.progress
    if not settings.qat.requested:
        return context, None
    unread = _recipe(network, settings, out)
    pictures = read_training_pictures(unread, progress, labels_required=False)
    pictures, share = _labelled(pictures, context)
    settings = replace(settings, qat=_complete(settings.qat, len(pictures), share))
    recipe = _recipe(network, settings, out)
    checkpoint_path = out / outputs.CHECKPOINT
    if checkpoint_path.exists():
        with _naming_our_settings(out):
            checkpoint.check(checkpoint_path, recipe, pictures.sha256)
    return replace(context, settings=settings), Prepared(recipe, pictures, share)


def train(
    context: Context,
    prepared: Prepared,
    calibrated: keras.Model,
    ranges: Mapping[str, Range],
    teacher: keras.Model,
) -> tuple[keras.Model, tuple[QatEpoch, ...]]:
    """Trains, or resumes an interrupted run with the same settings.

    Args:
      context: The conversion.
      prepared: From `prepare`.
      calibrated: The deployment form to start from; it is not changed.
      ranges: From `quantize.choose_ranges`.
      teacher: The float network, whose logits are learned too.

    Returns:
      A deployment form with the trained weights, for the same `ranges`, and the figures of each
      epoch.

    Raises:
      InputError: a loss that is not finite, or an interrupted training with other settings.
    """
    settings, progress = context.settings, context.progress
    recipe, pictures, share = prepared.recipe, prepared.pictures, prepared.share
    out = Path(recipe.out)
    replicas = distribution.create("one")
    per_channel = settings.quantization.per_channel

    def build(randomness: Randomness) -> keras.Model:
        fast = with_fast_layers(calibrated, randomness)
        return fake_quantize(fast, ranges, per_channel=per_channel, training=True)

    distillation = Teacher(with_fast_layers(teacher), share) if share else None

    def make_trainer(epoch: int) -> Trainer:
        augment, count = recipe.augment, len(pictures)
        return Trainer(
            build, recipe, augment, pictures=count, replicas=replicas, teacher=distillation
        )

    with outputs.locked(out):
        start = _digest(calibrated, ranges, share)
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


def unrounded(rounded: keras.Model, floats: keras.Model, *, per_channel: bool) -> keras.Model:
    """Returns a network that rounds to the kernels of `rounded`, with weights as near to `floats`.

    Training moves weights by small parts of a step. Those in the middle of their steps would stay
    there, and those rounded to zero would count as not connected.

    Args:
      rounded: A deployment form whose kernels are whole steps, or `floats` itself.
      floats: The same before it was rounded.
      per_channel: Weights have one scale per output channel, else per tensor.
    """
    if rounded is floats:
        return rounded
    start = keras_graph.copy_model(rounded)
    for layer in rounded.layers:
        if not isinstance(layer, CONVOLVING):
            continue
        name = kernel_name(layer)
        kernel, wanted = (
            np.asarray(getattr(m.get_layer(layer.name), name)) for m in (rounded, floats)
        )
        step = kernel_quantizer(layer, per_channel=per_channel).step(kernel).numpy()
        whole = np.round(kernel / step)
        rest = np.clip(wanted / step - whole, -MARGIN, MARGIN)
        rest[np.abs(whole) >= 127] = 0  # the largest one decides the step
        getattr(start.get_layer(layer.name), name).assign((whole + rest) * step)
    return start


def _complete(qat: Qat, pictures: int, share: float) -> Qat:
    """The settings with those that follow from the number of pictures.

    A rate in proportion to the batch (arXiv:1706.02677) is one that does not harm with few steps.
    """
    batch = qat.batch or max(LEAST_BATCH, min(BATCH, pictures // 10))
    return replace(
        qat,
        epochs=math.ceil(STEPS / max(1, pictures // batch)) if qat.epochs is None else qat.epochs,
        batch=batch,
        learning_rate=qat.learning_rate or LEARNING_RATE * batch / BATCH,
        distillation=share,
    )


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
            epochs=qat.epochs or 1,
            batch=qat.batch or BATCH,
            learning_rate=qat.learning_rate or LEARNING_RATE,
            warmup_epochs=0.0,
            weight_decay=0.0,
            clip_norm=1.0,  # there are no batch norms to bound the gradients
        ),
        seed=settings.seed,
    )


def _labelled(pictures: Pictures, context: Context) -> tuple[Pictures, float]:
    """The pictures with the network's labels, and the weight of the float network's logits.

    Labels of some classes alone would teach the network to forget the others. So by default they
    are used only if each class has pictures.
    """
    network, share = context.network, context.settings.qat.distillation
    origin, classes = pictures.origin, network.model.output.shape[-1]
    if pictures.labels is None and share not in (None, 1):
        raise InputError(
            f"{origin}: expected labels for --distillation {share:g}, found none: add them, or "
            "leave --distillation out to train without labels."
        )
    if pictures.labels is not None and share != 1:
        try:
            pictures = datasets.match_classes(pictures, network.class_names, classes, "the network")
        except InputError as error:
            remedy = "or pass --distillation 1 to train without labels"
            raise InputError(f"{str(error).removesuffix('.')}, {remedy}.") from error
        counts = np.bincount(pictures.known_labels, minlength=classes)
        if share == 0 or counts.all():
            datasets.check_classes(pictures, context.progress.warn, classes)
        if share is not None or counts.all():
            return pictures, MIXED if share is None else share
    return replace(pictures, labels=np.zeros(len(pictures), np.int64), class_names=None), 1.0


def _digest(model: keras.Model, ranges: Mapping[str, Range], weight: float) -> str:
    """A fingerprint of the initial state."""
    weights = [digest(array) for array in model_arrays(model).values()]
    return hashlib.sha256(repr((weights, sorted(ranges.items()), weight)).encode()).hexdigest()
