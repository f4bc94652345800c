"""What a file of Keras says beside its weights: how pixels are prepared, and how the model ends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from keras_models.checkpoints import files, head, keras_layers, keras_preprocessing
from keras_models.checkpoints.keras_layers import Layer
from keras_models.checkpoints.keras_preprocessing import PixelLayers
from keras_models.checkpoints.weights import Weights
from keras_models.images.decode import Preprocessing, Triple
from shufflelite.errors import InputError

_PREPARING = ("mobilenet_v3", "efficientnet_v2")  # Keras' own begin with their preprocessing


@dataclass(frozen=True, eq=False)
class KerasFile:
    """A model.

    Attributes:
      arrays: Its weights, without those of layers that prepare pixels.
      names: Of its layers, in a file of weights alone.
      layers: Each behind its inputs, the last is the output; () in a file of weights alone.
      pixels: What its layers do with pixels; None in a file of weights alone.
      unread: Whether its description cannot be followed.
    """

    arrays: Mapping[str, np.ndarray]
    names: Sequence[str]
    layers: Sequence[Layer] = ()
    pixels: PixelLayers | None = None
    unread: bool = False


def read(path: Path, arrays: Mapping[str, np.ndarray]) -> KerasFile:
    """Reads what the file says of its model, once its weights have been read.

    Raises:
      InputError: pixels are prepared with other numbers for each row or pixel.
    """
    description = files.describe(path)
    layers: Sequence[Layer] = ()
    pixels = None
    if description.config:
        try:
            layers = keras_layers.read(description.config)
            pixels = keras_preprocessing.read(layers, arrays)
        except InputError:
            raise
        except Exception:  # damaged, or of an unknown version: what it says is left open
            layers = ()
    if pixels is not None:
        preparing = set(pixels.names)
    else:
        preparing = {name.removesuffix("/count") for name in arrays if name.endswith("/count")}
    kept = {n: a for n, a in arrays.items() if n.rpartition("/")[0] not in preparing}
    unread = bool(description.config) and pixels is None
    return KerasFile(kept, description.names, layers, pixels, unread)


def complete(weights: Weights, file: KerasFile) -> Weights:
    """Adds what the file says to its weights: preprocessing, resolution, and what it leaves open.

    Raises:
      InputError: pixels are prepared as no `Preprocessing` does, or the model ends in other layers
        than ours.
    """
    if weights.source and f"{head.CLASSIFIER}kernel" in weights.arrays:
        _check_head(weights, file)
    expected = weights.preprocessing or Preprocessing()
    if file.pixels is not None and file.pixels.unknown is None:
        return replace(
            weights,
            preprocessing=_preprocessing(file.pixels, expected),
            resolution=weights.resolution or file.pixels.resolution,
        )
    if file.pixels:
        unknown = file.pixels.unknown
    else:
        unknown = "layers" if file.unread else _undescribed(weights, file.names)
    if unknown is None:
        return weights
    note = (
        f"the effect of its {unknown} on pixels cannot be read from the file: they become "
        f"(pixel - mean) / std with mean {expected.mean} and std {expected.std}; check the result "
        "with pictures of known classes"
    )
    return replace(weights, notes=(*weights.notes, note))


def _check_head(weights: Weights, file: KerasFile) -> None:
    if file.layers and "fc1/kernel" not in weights.arrays:
        head.check(file.layers)
    kinds = [name.rpartition("/")[2] for name in file.names]
    if not file.layers and any(kind.startswith("global_max_pooling") for kind in kinds):
        raise InputError(
            "its global_max_pooling is not the average pooling that our networks have."
        )


def _undescribed(weights: Weights, names: Sequence[str]) -> str | None:
    """The name of a layer that prepares pixels, and is not of the application itself."""
    if weights.source is None:
        return keras_preprocessing.undescribed([name.rpartition("/")[2] for name in names])
    outer = [name for name in names if "/" not in name]
    is_application = any("conv" in name.lower() for name in outer)  # else it is a layer within
    if is_application and weights.models[0].startswith(_PREPARING):
        return None
    return keras_preprocessing.undescribed(outer)


def _preprocessing(pixels: PixelLayers, expected: Preprocessing) -> Preprocessing:
    if not pixels.names:  # pictures are prepared outside of the model
        return expected
    with np.errstate(divide="ignore", invalid="ignore"):
        mean, std = _triple(-pixels.offset / pixels.scale), _triple(1 / pixels.scale)
    if not (np.isfinite([mean, std]).all() and min(std) > 0):
        raise InputError(
            f"its layers {', '.join(pixels.names)} prepare pixels with mean {mean} and std {std}: "
            "expected finite numbers and a positive std."
        )
    return replace(expected, mean=mean, std=std)


def _triple(values: np.ndarray) -> Triple:
    red, green, blue = (round(float(value), 9) + 0.0 for value in np.broadcast_to(values, 3))
    return red, green, blue
