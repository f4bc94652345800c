"""Layers of an int8 file that compute in float32, or with int16 activations."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import tf_keras as keras

from convert import keras_graph
from convert.quantization.quantize import shared_ranges
from shufflelite.errors import InputError
from tflite_file import mixed_precision
from tflite_file.mixed_precision import OpOverride
from tflite_file.model import read_operators

FLAGS = {"float32": "keep_float", "int16": "int16"}  # dtype of a layer: its flag
MOVES = ("RESHAPE", "QUANTIZE", "DEQUANTIZE")  # operators that can carry a layer's name too


@dataclass(frozen=True)
class LayerOverride:
    """A layer that does not compute in int8."""

    layer: str
    operator: str  # its type in the file
    dtype: str
    gain_db: float | None  # of the logits, beyond the layers before it; None: the user chose it


@dataclass(frozen=True)
class MixedPrecision:
    """The layers of an int8 file that do not compute in int8, and what they cost."""

    layers: tuple[LayerOverride, ...]
    operators: int  # more than in the full-int8 file
    partitions: int  # of XNNPACK, more than in the full-int8 file
    size_bytes: int  # more than the full-int8 file has
    float_multiply_adds: float  # percent of the multiply-adds that are computed in float32
    cost_ratio: float | None = None  # to the full-int8 file on the target; None: not measured


def choose(deployed: keras.Model, requests: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Layer of a deployment form -> "float32" or "int16", by the user's patterns.

    Args:
      deployed: The deployment form.
      requests: "float32" or "int16" -> names of layers, or patterns.

    Raises:
      InputError: a pattern matches no layer, or a layer is requested in two dtypes.
    """
    names = layers(deployed)
    chosen: dict[str, str] = {}
    for dtype, patterns in requests.items():
        flag = FLAGS[dtype]
        for pattern in patterns:
            matches = [name for name in names if fnmatchcase(name, pattern)]
            if not matches:
                near = difflib.get_close_matches(pattern, names, n=5, cutoff=0.3) or names[:5]
                raise InputError(
                    f"Expected --{flag} to name layers, got {pattern!r}, which none has: there "
                    f"are {', '.join(near)}, ...; report.json has all of them."
                )
            for name in matches:
                if chosen.setdefault(name, dtype) != dtype:
                    raise InputError(f"{name}: expected --keep_float or --int16, got both.")
    return chosen


def layers(deployed: keras.Model) -> list[str]:
    """The layers that a user can name: those with a range."""
    return [
        name
        for names in shared_ranges(deployed)
        for name in names
        if name not in deployed.input_names
    ]


def apply(data: bytes, deployed: keras.Model, chosen: Mapping[str, str]) -> bytes:
    """Returns the int8 file with the chosen layers computing in their dtypes.

    Args:
      data: The full-int8 file.
      deployed: Its deployment form, with the weights to use in float32.
      chosen: Layer -> "float32" or "int16".

    Raises:
      InputError: a layer has no int8 operator, or TFLite has no int16 kernel for it.
    """
    operators = operators_of(data, deployed, chosen)
    missing = sorted(chosen.keys() - operators.keys())
    if missing:
        raise InputError(f"{missing[0]} has no int8 operator in the file: leave it out.")
    changes = {}
    for name, operator in operators.items():
        dtype = chosen[name]
        if dtype == "int16" and operator.type not in mixed_precision.INT16_VERSIONS:
            raise InputError(f"--int16 {name}: TFLite has no int16 {operator.type}: leave it out.")
        layer = deployed.get_layer(operator.layer)
        constants = _constants(data, operator.index, layer) if dtype == "float32" else []
        changes[operator.index] = OpOverride(
            dtype, constants, range_is_activation=operator.layer != name
        )
    return mixed_precision.apply_overrides(data, changes)


@dataclass(frozen=True)
class LayerOperator:
    """The int8 operator that computes a layer's output."""

    index: int
    type: str
    layer: str  # whose weights it has: the one before, if the layer is a ReLU


def operators_of(
    data: bytes, deployed: keras.Model, names: Collection[str]
) -> dict[str, LayerOperator]:
    """Layer -> its operator, for the layers that have one."""
    operators = read_operators(data)
    by_layer = {}
    for number, tensor in enumerate(mixed_precision.output_names(data)):
        operator = operators[number]
        for layer in tensor.split(";")[0].split("/")[1:2]:
            if operator.type not in MOVES and operator.dtypes == ("int8",):
                by_layer[layer] = number, operator.type
    sources = keras_graph.sources(deployed)
    matches = {}
    for name in names:
        layer = name
        while layer not in by_layer and isinstance(
            deployed.get_layer(layer), keras.layers.ReLU | keras.layers.Reshape
        ):
            layer = sources[layer][0]
        if layer in by_layer:
            matches[name] = LayerOperator(*by_layer[layer], layer)
    return matches


def _constants(data: bytes, operator: int, layer: keras.layers.Layer) -> list[np.ndarray]:
    """The layer's float weights in the operator's layout."""
    stored = mixed_precision.quantized_constants(data, operator)
    floats = []
    for (values, _), weights in zip(stored, layer.get_weights(), strict=False):
        # the output axis is the last in Keras and the first in TFLite; a bias has no other
        floats.append(np.moveaxis(weights, -1, 0).reshape(values.shape))
        error = np.linalg.norm(values - floats[-1])  # rounding moves weights by several steps
        if values.ndim > 1 and error > np.linalg.norm(floats[-1]) / 2:
            raise RuntimeError(f"The file has other weights in {layer.name} than the network.")
    return floats
