"""What a Keras model does with pixels before its first convolution."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keras_models.checkpoints.keras_layers import Layer, numbers
from shufflelite.display import one_line
from shufflelite.errors import InputError

_INERT = {  # at inference
    "ActivityRegularization",
    "AlphaDropout",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "Identity",
    "SpatialDropout2D",
}
_CASTS = {"Cast", "cast"}
_RESIZES = {"CenterCrop", "Resizing"}  # pictures come at the network's resolution
_OPERATIONS = {
    "add": "+",
    "divide": "/",
    "multiply": "*",
    "subtract": "-",
    "truediv": "/",
    "truedivide": "/",
}
_NAMES = ("rescaling", "normalization", "lambda", *(f"tf.math.{name}" for name in _OPERATIONS))


@dataclass(frozen=True, eq=False)
class PixelLayers:
    """The layers between pixels and the first convolution, whose input is scale * pixel + offset.

    Attributes:
      names: Of those that compute; () where pixels are the convolution's input.
      unknown: The first one that computes something else, "layer NAME (KIND)"; None: there is none.
      resolution: Height and width of the input; None: any, or not square.
    """

    scale: np.ndarray
    offset: np.ndarray
    names: tuple[str, ...] = ()
    unknown: str | None = None
    resolution: int | None = None


def read(layers: Sequence[Layer], arrays: Mapping[str, np.ndarray]) -> PixelLayers | None:
    """Follows the layers from the first convolution back to the input.

    Args:
      layers: Of a model, each behind its inputs.
      arrays: Its weights, for the statistics of a Normalization.

    Returns:
      What they compute together; None if there is no convolution.

    Raises:
      InputError: a layer that computes something else for each row or pixel.
    """
    convolution = next((layer for layer in layers if layer.kind == "Conv2D"), None)
    if convolution is None:
        return None
    scale, offset = np.ones(1), np.zeros(1)
    names: list[str] = []
    unknown = resolution = None
    layer, is_padding = convolution, True
    while layer.inputs:
        if len(layer.inputs) > 1:
            unknown = f"layer {layer.name} ({layer.kind})"
            break
        layer = layer.inputs[0]
        is_padding = is_padding and layer.kind == "ZeroPadding2D"  # the convolution's own
        if layer.kind in _RESIZES:
            resolution = resolution or _square(layer.config["height"], layer.config["width"])
        elif layer.kind == "InputLayer":
            shape = layer.config.get("batch_shape") or layer.config.get("batch_input_shape")
            resolution = resolution or (_square(*shape[1:3]) if shape else None)
        elif not (is_padding or is_inert(layer) or layer.kind in _CASTS):
            affine = _affine(layer, arrays)
            if affine is None:
                unknown = f"layer {layer.name} ({layer.kind})"
                break
            names.append(layer.name)
            for values in affine:
                if values.size not in (1, 3):
                    raise InputError(
                        f"its layer {layer.name} prepares pixels with {values.size} numbers: "
                        "expected one, or one for each of three channels."
                    )
            scale, offset = scale * affine[0], scale * affine[1] + offset
    return PixelLayers(scale, offset, tuple(names[::-1]), unknown, resolution)


def is_inert(layer: Layer) -> bool:
    """Whether a layer only does something while training."""
    return layer.kind in _INERT or layer.kind.startswith("Random")


def undescribed(names: Sequence[str]) -> str | None:
    """The first of the layers' `names` that Keras gives to layers which prepare pixels."""
    return next((f"layer {one_line(name)}" for name in names if name.startswith(_NAMES)), None)


def _affine(layer: Layer, arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
    """The factor and the summand of a layer; None if it computes something else."""
    if layer.kind == "Rescaling":
        return numbers(layer.config["scale"]).ravel(), numbers(layer.config["offset"]).ravel()
    if layer.kind == "Normalization":
        return _normalization(layer, arrays)
    operation = _OPERATIONS.get(layer.kind.lower())
    if operation is None or len(layer.operands) != 2:
        return None
    first, second = layer.operands
    constant = first if isinstance(second, Layer) else second
    if not isinstance(constant, np.ndarray):
        return None
    is_first = constant is first
    value, one, zero = constant.ravel(), np.ones(1), np.zeros(1)
    if operation == "+":
        return one, value
    if operation == "*":
        return value, zero
    if operation == "-":
        return (-one, value) if is_first else (one, -value)
    return None if is_first else (1 / value, zero)


def _normalization(
    layer: Layer, arrays: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray] | None:
    mean, variance = (
        arrays.get(f"{layer.name}/{key}") if layer.config.get(key) is None
        else numbers(layer.config[key])
        for key in ("mean", "variance")
    )  # fmt: skip
    if mean is None or variance is None:
        return None
    mean = mean.astype(np.float64).ravel()
    std = np.maximum(np.sqrt(variance.astype(np.float64).ravel()), 1e-7)  # Keras' epsilon
    return (std, mean) if layer.config.get("invert") else (1 / std, -mean / std)


def _square(height: object, width: object) -> int | None:
    return height if isinstance(height, int) and height == width else None
