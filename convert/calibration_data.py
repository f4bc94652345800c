"""What a network is calibrated and verified on: pictures, or inputs made for it."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_models.images import datasets, decode
from keras_models.images.decode import Preprocessing
from shufflelite.errors import InputError

PICTURES = 200  # read for calibration, where there are more
PIXELS = 8 * 224 * 224  # of inputs together: their activations fit in memory


@dataclass(frozen=True, eq=False)
class Inputs:
    """Inputs of a network, and where they come from.

    `values` are uint8 pixels, which `preprocessing` turns into inputs, or float32 inputs where that
    is None; (n, h, w, 3).
    """

    origin: str
    values: np.ndarray
    preprocessing: Preprocessing | None = None
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    def batches(self, size: int | None = None) -> Iterator[np.ndarray]:
        """Yields float32 inputs, (up to `size`, h, w, 3); None: as many as fit in memory."""
        size = size or max(1, PIXELS // math.prod(self.values.shape[1:3]))
        for start in range(0, len(self), size):
            values = self.values[start : start + size]
            yield self.preprocessing.to_input(values) if self.preprocessing else values

    @property
    def synthetic(self) -> bool:
        """Whether they were made for the network, and are not pictures."""
        return self.preprocessing is None

    def outputs_of(self, model: Any) -> Iterator[list[np.ndarray]]:
        """Yields what each output tensor of a Keras model holds, for each batch."""
        for batch in self.batches():
            outputs = model(batch, training=False)
            yield [x.numpy() for x in (outputs if isinstance(outputs, list) else [outputs])]

    @property
    def sha256(self) -> str:
        """Of the values and their shape."""
        return decode.digest(self.values)


def from_pictures(
    source: str,
    *,
    resolution: int,
    classes: int,
    names: tuple[str, ...] | None,
    preprocessing: Preprocessing,
    limit: int | None,
    seed: int,
    warn: Callable[[str], None],
) -> Inputs:
    """Reads pictures, and their labels where these are known.

    Args:
      source: As `datasets.load` reads it.
      resolution: Height and width that they are resized to.
      classes: The network's number of classes.
      names: The network's class names, if known: folders of classes are then matched by name.
      preprocessing: How pictures become inputs.
      limit: The maximum number of pictures, a random subset of more; None: all.
      seed: Of that subset, and of synthetic pictures.
      warn: Called with a line for each picture that is skipped, and if labels are ignored.

    Raises:
      InputError: nothing readable, or a label that the network has no class for.
    """
    pictures = datasets.load(
        source,
        resolution=resolution,
        preprocessing=preprocessing,
        limit=limit,
        seed=seed,
        warn=warn,
    )
    try:
        pictures = datasets.match_classes(pictures, names, classes, "the network")
    except InputError as error:
        if pictures.class_names is None:
            raise
        warn(f"no accuracy is measured: {error}")
        pictures = replace(pictures, labels=None, class_names=None)
    assert isinstance(pictures.pixels, np.ndarray)  # without `in_memory_gb` nothing is streamed
    return Inputs(
        origin=source,
        values=pictures.pixels,
        preprocessing=preprocessing,
        labels=pictures.labels,
        class_names=pictures.class_names,
        skipped=pictures.skipped,
    )
