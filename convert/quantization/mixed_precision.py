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

FLAGS = {"float32": "keep_float", "int16": "int16"}  # the dtypes that a layer may have
MOVES = ("RESHAPE", "QUANTIZE", "DEQUANTIZE")  # that carry a layer's name beside its own operator


@dataclass(frozen=True)
class Precise:
    """A layer that does not compute in int8."""

    layer: str
    operator: str  # its type in the file
    dtype: str
    gain_db: float | None  # of the logits, on top of those before it; None: the user's choice


@dataclass(frozen=True)
class Mixed:
    """What is not int8 in an int8 file, and what it costs."""

    layers: tuple[Precise, ...]
    operators: int  # more than in int8 throughout
    partitions: int  # of XNNPACK, more than in int8 throughout


def choose(deployed: keras.Model, wanted: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Layer of a deployment form -> "float32" or "int16", as the user's patterns say.

    Args:
      deployed: The deployment form.
      wanted: "float32" or "int16" -> names of layers, or patterns of them.

    Raises:
      InputError: a pattern that no layer has, or a layer that is asked for in two dtypes.
    """
    names = layers(deployed)
    chosen: dict[str, str] = {}
    for dtype, patterns in wanted.items():
        flag = FLAGS[dtype]
        for pattern in patterns:
            found = [name for name in names if fnmatchcase(name, pattern)]
            if not found:
                near = difflib.get_close_matches(pattern, names, n=5, cutoff=0.3) or names[:5]
                raise InputError(
                    f"Expected --{flag} to name layers, got {pattern!r}, which none has: there "
                    f"are {', '.join(near)}, ...; report.json has all of them."
                )
            for name in found:
                if chosen.setdefault(name, dtype) != dtype:
                    raise InputError(f"{name}: expected --keep_float or --int16, got both.")
    return chosen


def layers(deployed: keras.Model) -> list[str]:
    """The layers that a user can name: those that have a range."""
    return [
        name
        for names in shared_ranges(deployed)
        for name in names
        if name not in deployed.input_names
    ]


def apply(data: bytes, deployed: keras.Model, chosen: Mapping[str, str]) -> bytes:
    """Returns the int8 file with the chosen layers computing in their dtypes.

    Args:
      data: The file of int8 throughout.
      deployed: Its deployment form, with the weights that float32 is to have.
      chosen: Layer -> "float32" or "int16".

    Raises:
      InputError: a layer that has no int8 operator, or that TFLite has no int16 kernel for.
    """
    operators = operators_of(data, deployed, chosen)
    missing = sorted(chosen.keys() - operators.keys())
    if missing:
        raise InputError(f"{missing[0]} has no int8 operator in the file: leave it out.")
    changes = {}
    for name, found in operators.items():
        dtype = chosen[name]
        if dtype == "int16" and found.type not in mixed_precision.INT16_VERSIONS:
            raise InputError(f"--int16 {name}: TFLite has no int16 {found.type}: leave it out.")
        layer = deployed.get_layer(found.layer)
        constants = _constants(data, found.index, layer) if dtype == "float32" else []
        changes[found.index] = OpOverride(dtype, constants, range_is_activation=found.layer != name)
    return mixed_precision.apply_overrides(data, changes)


@dataclass(frozen=True)
class Found:
    """The int8 operator that gives a layer's values."""

    index: int
    type: str
    layer: str  # that it computes: another one where its range does the work of a ReLU


def operators_of(data: bytes, deployed: keras.Model, names: Collection[str]) -> dict[str, Found]:
    """Layer -> its operator, for those of the layers that have one."""
    operators = read_operators(data)
    by_layer = {}
    for number, tensor in enumerate(mixed_precision.output_names(data)):
        operator = operators[number]
        for layer in tensor.split(";")[0].split("/")[1:2]:
            if operator.type not in MOVES and operator.dtypes == ("int8",):
                by_layer[layer] = number, operator.type
    reads = keras_graph.sources(deployed)
    found = {}
    for name in names:
        layer = name
        while layer not in by_layer and isinstance(
            deployed.get_layer(layer), keras.layers.ReLU | keras.layers.Reshape
        ):
            layer = reads[layer][0]
        if layer in by_layer:
            found[name] = Found(*by_layer[layer], layer)
    return found


def _constants(data: bytes, operator: int, layer: keras.layers.Layer) -> list[np.ndarray]:
    """The layer's float weights as the operator has them."""
    stored = mixed_precision.quantized_constants(data, operator)
    floats = []
    for (values, step), weights in zip(stored, layer.get_weights(), strict=False):
        # outputs are the last axis in Keras and the first in TFLite; a bias has no other
        floats.append(np.moveaxis(weights, -1, 0).reshape(values.shape))
        if values.ndim > 1 and np.any(np.abs(values - floats[-1]) > step):
            raise RuntimeError(f"The file has other weights in {layer.name} than the network.")
    return floats
