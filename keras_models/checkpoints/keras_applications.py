"""Weights of Keras applications' MobileNet, under our names and in our shapes."""

import re
from collections.abc import Mapping

import numpy as np

from keras_models.data import Preprocessing

SOURCE = "Keras applications MobileNet"
PREPROCESSING = Preprocessing()  # Keras' mode "tf": RGB, pixel / 127.5 - 1
_UNIT = re.compile(r"conv_(dw|pw)_(\d+)(_bn)?")
_KINDS = {"dw": "depthwise", "pw": "pointwise"}


def matches(arrays: Mapping[str, np.ndarray]) -> bool:
    """Tells by the layers' names whether `arrays` are of Keras applications' MobileNet."""
    return "conv_dw_1/depthwise_kernel" in arrays


def convert(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], Preprocessing]:
    """Renames `arrays` for `mobilenet_v1`; files without classifier stay without."""
    return dict(_convert(name, array) for name, array in arrays.items()), PREPROCESSING


def _convert(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    layer, _, weight = name.rpartition("/")
    if layer == "conv_preds":  # a 1x1 convolution over the pooled (1, 1, c): our Dense layer
        return f"classifier/{weight}", array[0, 0] if weight == "kernel" else array
    unit = _UNIT.fullmatch(layer)
    if unit is None:
        return name, array
    return f"unit{unit[2]}_{_KINDS[unit[1]]}{unit[3] or ''}/{weight}", array
