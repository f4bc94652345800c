"""What a training begins with: a network's weights, with a new classifier for new classes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_models import registry
from keras_models.checkpoints import Weights, resolve
from keras_models.checkpoints.load import load_weights, model_arrays, with_layer_names
from keras_models.train.settings import TrainingSettings
from shufflelite.errors import InputError

HEAD = "classifier/"  # the last layer of all our networks


@dataclass(frozen=True, eq=False)
class Start:
    """Weights to begin with; None: random ones.

    Attributes:
      name: As the settings have it.
      identity: Tells these weights from others.
      weights: Their arrays, and what belongs to them.
    """

    name: str
    identity: str
    weights: Weights | None = None

    def load(
        self, model: Any, class_names: Sequence[str] | None, warn: Callable[[str], None]
    ) -> None:
        """Loads the weights into `model`; its classifier stays new where its classes are.

        Raises:
          InputError: these are not the weights of this network.
        """
        if self.weights is None:
            return
        arrays = with_layer_names(model, self.weights.arrays)
        side = model.input.shape[1]
        if self.weights.resolution not in (None, side):
            warn(f"{self.name}: trained at {self.weights.resolution}, and this begins at {side}")
        new = _why_new(arrays, self.weights.class_names, model.output.shape[-1], class_names)
        if new:
            arrays = {name: a for name, a in arrays.items() if not name.startswith(HEAD)}
            arrays |= {n: a for n, a in model_arrays(model).items() if n.startswith(HEAD)}
            warn(f"{self.name}: {new}: the classifier starts anew")
        load_weights(model, arrays, origin=self.name)


def read(settings: TrainingSettings, warn: Callable[[str], None]) -> tuple[TrainingSettings, Start]:
    """Reads the weights that the settings name; `warn` is told where pictures look otherwise.

    Returns:
      The settings with what those weights need, of the builder and of pictures; and the weights.

    Raises:
      InputError: unknown weights, those of another network, or settings that contradict them.
    """
    network = settings.network
    if network.weights == "random":
        registry.find(network.name)
        return replace(settings, preprocessing=settings.seen), Start("random", "random")
    found = resolve.read(
        network.weights,
        model=network.name,
        options=network.options,
        resolution=network.input_resolution,
        settings=("'network.weights'", "'network.name'"),
    )
    if found.path.resolve().parent == Path(settings.out).resolve():
        raise InputError(
            f"Expected 'network.weights' to lie elsewhere than 'out', which this training writes: "
            f"got {found.path}."
        )
    seen = found.weights.preprocessing
    if seen and settings.preprocessing not in (None, seen):
        warn(f"{network.weights}: trained on pictures as {seen}, and this has {settings.seen}")
    complete = replace(
        settings,
        network=replace(network, options=found.options),
        preprocessing=settings.preprocessing or seen or settings.seen,
    )
    return complete, Start(network.weights, found.sha256, found.weights)


def _why_new(
    arrays: Mapping[str, np.ndarray],
    theirs: Sequence[str] | None,
    classes: int,
    ours: Sequence[str] | None,
) -> str:
    """Why the weights' classifier is of no use for our classes; "" where it is."""
    kernel = arrays.get(f"{HEAD}kernel")
    if kernel is None:
        return "the weights have none"
    if kernel.shape[-1] != classes:
        return f"its classes are {kernel.shape[-1]}, those of the pictures {classes}"
    if theirs and ours and tuple(theirs) != tuple(ours):
        return "its classes are others than those of the pictures"
    return ""
