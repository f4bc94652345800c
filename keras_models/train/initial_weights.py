"""Initial weights of a training; other classes get a new classifier."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_models import registry
from keras_models.checkpoints import Weights, resolve
from keras_models.checkpoints.head import CLASSIFIER
from keras_models.checkpoints.load import load_weights, model_arrays, with_layer_names
from keras_models.train.settings import TrainingSettings
from shufflelite.errors import InputError


@dataclass(frozen=True, eq=False)
class InitialWeights:
    """The weights to start from.

    Attributes:
      name: Their name in the settings.
      identity: The file's SHA-256, or "random".
      weights: Arrays and what the file says of them; None: random.
    """

    name: str
    identity: str
    weights: Weights | None = None

    def load(
        self, model: Any, class_names: Sequence[str] | None, warn: Callable[[str], None]
    ) -> None:
        """Loads the weights into `model`, except for a classifier of other classes.

        Raises:
          InputError: the weights of another network.
        """
        if self.weights is None:
            return
        arrays = with_layer_names(model, self.weights.arrays)
        resolution = model.input.shape[1]
        if self.weights.resolution not in (None, resolution):
            warn(f"{self.name}: trained at {self.weights.resolution}, not at {resolution}")
        reason = self._why_new_classifier(arrays, model.output.shape[-1], class_names)
        if reason:
            arrays = {name: a for name, a in arrays.items() if not name.startswith(CLASSIFIER)}
            arrays |= {n: a for n, a in model_arrays(model).items() if n.startswith(CLASSIFIER)}
            warn(f"{self.name}: {reason}: the classifier starts from random weights")
        load_weights(model, arrays, origin=self.name)

    def _why_new_classifier(
        self, arrays: Mapping[str, np.ndarray], classes: int, class_names: Sequence[str] | None
    ) -> str:
        """Why the weights' classifier does not fit the pictures' classes; "" if it does."""
        assert self.weights is not None
        kernel, names = arrays.get(f"{CLASSIFIER}kernel"), self.weights.class_names
        if kernel is None:
            return "it is a backbone without classifier"
        if kernel.shape[-1] != classes:
            return f"it has {kernel.shape[-1]} classes, the pictures have {classes}"
        if names and class_names and tuple(names) != tuple(class_names):
            return "its classes are not those of the pictures"
        return ""


def read(
    settings: TrainingSettings, warn: Callable[[str], None]
) -> tuple[TrainingSettings, InitialWeights]:
    """Reads the weights that the settings name; warns of preprocessing that is not theirs.

    Returns:
      The settings, with the builder options and the preprocessing of the weights; the weights.

    Raises:
      InputError: unknown weights, those of another network, or settings that contradict them.
    """
    network = settings.network
    if network.weights == "random":
        registry.find(network.name)
        return replace(settings, preprocessing=settings.input_preprocessing), InitialWeights(
            "random", "random"
        )
    named = resolve.read(
        network.weights,
        model=network.name,
        options=network.options,
        resolution=network.input_resolution,
        settings=("'network.weights'", "'network.name'"),
    )
    if named.path.resolve().parent == Path(settings.out).resolve():
        raise InputError(
            f"Expected 'network.weights' to be outside of 'out', which this training writes: "
            f"got {named.path}."
        )
    for note in named.weights.notes:
        warn(f"{network.weights}: {note}")
    preprocessing = named.weights.preprocessing
    if preprocessing and settings.preprocessing not in (None, preprocessing):
        warn(
            f"{network.weights}: trained with {preprocessing}, but the settings have "
            f"{settings.preprocessing}"
        )
    complete = replace(
        settings,
        network=replace(network, options=named.options),
        preprocessing=settings.preprocessing or preprocessing or settings.input_preprocessing,
    )
    return complete, InitialWeights(network.weights, named.sha256, named.weights)
