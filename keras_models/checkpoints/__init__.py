"""Weights from files, ours and other people's: one module per source."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_models.checkpoints import files, keras_applications
from keras_models.data import Preprocessing

_IMPORTERS = (keras_applications,)  # each has SOURCE, matches() and convert()


@dataclass(frozen=True, eq=False)
class Weights:
    """Arrays under our names; the rest is None for a file not recognized as another library's."""

    arrays: dict[str, np.ndarray]
    preprocessing: Preprocessing | None
    source: str | None


def read_weights(path: str | Path) -> Weights:
    """Reads a file of weights and recognizes the networks of other libraries by their names."""
    arrays = files.read(path)
    for importer in _IMPORTERS:
        if importer.matches(arrays):
            converted, preprocessing = importer.convert(arrays)
            return Weights(converted, preprocessing, importer.SOURCE)
    return Weights(arrays, None, None)
