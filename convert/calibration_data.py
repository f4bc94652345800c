"""What a network is calibrated and verified on: pictures, or inputs made for it."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_models.images import class_names, decode, lists
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
    """Reads a folder of pictures (or of one folder for each class), a csv or an .npz file.

    Args:
      source: The folder or file.
      resolution: Height and width that they are resized to.
      classes: How many the network has.
      names: Theirs, where they are known; folders of classes are matched by name then.
      preprocessing: How they become inputs.
      limit: The most that are read, drawn by `seed`; None: all.
      seed: Of that draw.
      warn: Is told of pictures and labels that are left out.

    Raises:
      InputError: nothing readable there, or a label that the network has no class for.
    """
    pictures = decode.read_source(
        source,
        size=resolution,
        preprocessing=preprocessing,
        limit=limit,
        seed=seed,
        warn=warn,
        labels_from_folders=_holds_class_folders(Path(source)),
    )
    labels, own = pictures.labels, pictures.class_names
    if own is not None:
        try:
            owner = "the network"
            numbers = class_names.numbers(own, names, classes=classes, origin=source, owner=owner)
            labels = numbers[labels]
        except InputError as error:
            warn(f"no accuracy is measured: {error}")
            labels = own = None
    if labels is not None and labels.max() >= classes:
        raise InputError(
            f"{source}: expected labels below {classes}, the network's number of classes, got "
            f"{labels.max()}: pass --num_classes, or labels of this network."
        )
    return Inputs(
        origin=source,
        values=pictures.pixels,
        preprocessing=preprocessing,
        labels=labels,
        class_names=own and (names or own),
        skipped=pictures.skipped,
    )


def _holds_class_folders(source: Path) -> bool:
    return source.is_dir() and not any(
        path.suffix.lower() in lists.EXTENSIONS and path.is_file() for path in source.iterdir()
    )
