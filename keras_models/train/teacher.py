"""Knowledge distillation (arXiv:1503.02531): a trained network whose probabilities are learned."""

from dataclasses import dataclass
from pathlib import Path

import tf_keras as keras

from keras_models import registry
from keras_models.checkpoints import native, resolve
from keras_models.checkpoints.load import load_weights
from keras_models.checkpoints.native import Trained
from keras_models.checkpoints.resolve import ResolvedWeights
from keras_models.images.datasets import Pictures
from keras_models.train import outputs
from keras_models.train.distribution import Replicas
from keras_models.train.fast_layers import with_fast_layers
from keras_models.train.settings import TrainingSettings
from shufflelite.errors import InputError


@dataclass(frozen=True, eq=False)
class Teacher:
    """A teacher, and how much is learned from it.

    Attributes:
      model: Has the inputs and the classes of the trained network; returns logits.
      share: Weight of its probabilities in the loss, 0 to 1; the rest is that of the labels.
        1: labels have no influence, and the best class of the teacher counts as right.
      temperature: Divides the logits of both networks in the loss that compares them, which is
        multiplied by its square (Section 2 of the paper).
    """

    model: keras.Model
    share: float
    temperature: float = 1.0


@dataclass(frozen=True, eq=False)
class TrainedTeacher:
    """The weights of `training.teacher`, and the network that they belong to."""

    path: Path
    trained: Trained
    weights: ResolvedWeights

    @property
    def identity(self) -> str:
        """The SHA-256 of its file."""
        return self.weights.sha256

    def check_classes(self, pictures: Pictures) -> None:
        """Raises InputError if the pictures have other classes, or name them in another order."""
        names, count = self.trained.class_names, self.trained.num_classes
        if count != pictures.classes:
            raise InputError(
                f"{self.path}: expected a teacher of the {pictures.classes} classes of "
                f"{pictures.origin}, got {count}."
            )
        if names and pictures.class_names and names != pictures.class_names:
            pairs = zip(names, pictures.class_names, strict=True)
            name, own = next((a, b) for a, b in pairs if a != b)
            raise InputError(
                f"{self.path}: expected a teacher of the classes of {pictures.origin} in their "
                f"order, got {name!r} where these have {own!r}."
            )

    def build(self, settings: TrainingSettings, resolution: int, replicas: Replicas) -> Teacher:
        """Builds the network for inputs of that resolution, once for each replica."""
        model = registry.create(
            self.trained.model,
            input_shape=(resolution, resolution, 3),
            num_classes=self.trained.num_classes,
            **self.weights.options,
        )
        load_weights(model, self.weights.weights.arrays, origin=str(self.path))
        with replicas.strategy.scope():
            model = with_fast_layers(model)
        return Teacher(model, settings.training.distillation, settings.training.temperature)


def read(settings: TrainingSettings) -> TrainedTeacher | None:
    """Reads the weights of `training.teacher`; None if there is no teacher.

    Raises:
      InputError: not the weights of a completed training, or a teacher that expects other inputs
        than the network.
    """
    source = settings.training.teacher
    if source is None:
        return None
    path = Path(source)
    if path.is_dir():
        path /= outputs.LAST
    trained = native.describe(path)
    if trained is None:
        raise InputError(
            "Expected 'training.teacher' to be the folder of a completed training, or its "
            f"{outputs.LAST}, got {source!r}, which is neither: complete that training first."
        )
    if path.resolve().parent == Path(settings.out).resolve():
        raise InputError(
            "Expected 'training.teacher' to be outside of 'out', which this training writes: got "
            f"{path}."
        )
    resolution = settings.network.input_resolution
    if trained.resolution != resolution:
        raise InputError(
            f"{path}: expected a teacher trained at the network's resolution of {resolution}, got "
            f"{trained.resolution}."
        )
    for name in ("mean", "std", "channel_order"):  # of the inputs, which both networks read
        values = [getattr(p, name) for p in (settings.input_preprocessing, trained.preprocessing)]
        if values[0] != values[1]:
            raise InputError(
                f"{path}: expected a teacher with the preprocessing of the network, "
                f"preprocessing.{name} = {values[0]}, got {values[1]}."
            )
    weights = resolve.read(
        str(path),
        model=trained.model,
        options=trained.options,
        resolution=resolution,
        settings=("'training.teacher'", "'training.teacher'"),
    )
    return TrainedTeacher(path, trained, weights)
