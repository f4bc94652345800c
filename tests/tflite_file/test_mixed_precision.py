"""Operators at higher precision, against NumPy."""

from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from tests.tflite_file.test_extract_ops import buffer, network, shaped
from tests.tflite_file.test_model import code, operator, pack
from tflite_file import mixed_precision
from tflite_file.mixed_precision import OpOverride
from tflite_file.model import read_operators

BUILTIN = schema.BuiltinOperator
TYPE = schema.TensorType
RNG = np.random.default_rng(0)
KERNELS = RNG.normal(
    0, 0.4, size=(3, 4, 4)
)  # a step of the input moves the output by less than a step
BIASES = RNG.normal(size=(3, 4))
SCALES = (0.02, 0.05, 0.06, 0.07)  # of the input, and of what each layer gives
ZEROS = (5, -10, 0, 20)
NAMES = ["m/a/MatMul;m/a/BiasAdd", "m/b/MatMul", "m/c/MatMul"]


def quantization(scale: Any, zero: Any) -> Any:
    made = schema.QuantizationParametersT()
    made.scale, made.zeroPoint = np.atleast_1d(np.float32(scale)), np.atleast_1d(np.int64(zero))
    return made


def stored(layer: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A layer's kernel and bias as they are stored, and the kernel's step."""
    step = np.abs(KERNELS[layer]).max() / 127
    kernel = np.round(KERNELS[layer] / step).astype(np.int8)
    return kernel, np.round(BIASES[layer] / (SCALES[layer] * step)).astype(np.int32), step


@pytest.fixture(scope="module")
def chain() -> bytes:
    """Three int8 FULLY_CONNECTED, one after the other; the first ends in a ReLU."""
    tensors, buffers, operators = [], [], []

    def add(name: str, dtype: int, shape: tuple[int, ...], scale: Any, zero: Any) -> Any:
        tensors.append(shaped(name, dtype, shape))
        tensors[-1].quantization = quantization(scale, zero)
        return tensors[-1]

    add("image", TYPE.INT8, (1, 4), SCALES[0], ZEROS[0])
    for layer, name in enumerate(NAMES):
        kernel, bias, step = stored(layer)
        read = 3 * layer
        for what, values in (("kernel", kernel), ("bias", bias)):
            dtype = TYPE.INT8 if what == "kernel" else TYPE.INT32
            scale = step if what == "kernel" else SCALES[layer] * step
            add(f"{name}/{what}", dtype, values.shape, scale, 0).buffer = len(buffers) + 1
            buffers.append(buffer(values))
        add(name, TYPE.INT8, (1, 4), SCALES[layer + 1], ZEROS[layer + 1])
        dense = operator(0, [read, read + 1, read + 2], [read + 3])
        dense.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
        dense.builtinOptions = schema.FullyConnectedOptionsT()
        dense.builtinOptions.fusedActivationFunction = int(layer == 0)
        operators.append(dense)
    codes = [code(BUILTIN.FULLY_CONNECTED)]
    codes[0].version = 4
    made = network(*operators, tensors=tensors, buffers=buffers, codes=codes)
    made.subgraphs[0].inputs, made.subgraphs[0].outputs = [0], [9]
    return pack(made)


def run(data: bytes, x: np.ndarray) -> np.ndarray:
    """Real values that a file gives, (4,), for one int8 input."""
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(source["index"], x[None])
    interpreter.invoke()
    scale, zero = result["quantization"]
    return (interpreter.get_tensor(result["index"])[0].astype(float) - zero) * scale


def reference(x: np.ndarray, dtypes: list[str]) -> np.ndarray:
    """The same in NumPy: float weights for float32, else the stored ones."""
    values = (x.astype(float) - ZEROS[0]) * SCALES[0]
    for layer, dtype in enumerate(dtypes):
        kernel, bias = KERNELS[layer], BIASES[layer]
        if dtype != "float32":
            rounded, sums, step = stored(layer)
            kernel, bias = rounded * step, sums * SCALES[layer] * step
        values = kernel @ values + bias
        values = np.maximum(values, 0) if layer == 0 else values
        step, zero = SCALES[layer + 1], ZEROS[layer + 1]
        if dtype == "int16":  # as wide as int8, around zero
            limit = step * max(128 + zero, 127 - zero)
            values = np.clip(values, -limit, limit)
        if "int8" in dtypes[layer : layer + 2] or layer == 2:  # someone takes or gives int8
            values = (np.clip(np.round(values / step) + zero, -128, 127) - zero) * step
    return values


@pytest.mark.parametrize(
    "dtypes",
    [
        ["int8", "int8", "int8"],
        ["float32", "int8", "int8"],
        ["int8", "float32", "int8"],
        ["int8", "float32", "float32"],
        ["float32", "float32", "float32"],
        ["int16", "int16", "int8"],
        ["int8", "int16", "float32"],
        ["float32", "int16", "int8"],
    ],
    ids="-".join,
)
def test_operators_compute_in_the_dtypes_asked_for(chain: bytes, dtypes: list[str]) -> None:
    changes = {
        number: OpOverride(dtype, [KERNELS[number], BIASES[number]] if dtype == "float32" else [])
        for number, dtype in enumerate(dtypes)
        if dtype != "int8"
    }
    data = mixed_precision.apply_overrides(chain, changes)
    dense = [x.dtypes for x in read_operators(data) if x.type == "FULLY_CONNECTED"]
    assert dense == [(dtype,) for dtype in dtypes]
    differences = []
    for x in RNG.integers(-128, 128, (20, 4)).astype(np.int8):
        differences.append((run(data, x) - reference(x, dtypes)) / SCALES[-1])
    assert np.abs(differences).max() < 1.5  # a value between two steps may go either way
    assert np.mean(np.abs(differences) > 0.5) < 0.1


def conversions(data: bytes) -> list[str]:
    types = [operator.type for operator in read_operators(data)]
    return [type_ for type_ in types if type_ != "FULLY_CONNECTED"]


def test_neighbours_of_one_dtype_need_no_conversion_between_them(chain: bytes) -> None:
    floats = {n: OpOverride("float32", [KERNELS[n], BIASES[n]]) for n in (0, 1)}
    assert conversions(mixed_precision.apply_overrides(chain, floats)) == ["DEQUANTIZE", "QUANTIZE"]
    alone = {1: OpOverride("int16")}
    assert conversions(mixed_precision.apply_overrides(chain, alone)) == ["QUANTIZE", "QUANTIZE"]


def test_a_range_that_clips_clips_for_all_who_read(chain: bytes) -> None:
    """The first layer without a ReLU of its own, whose range begins at zero."""
    clipping = schema.ModelT.InitFromObj(schema.Model.GetRootAs(chain, 0))
    clipping.subgraphs[0].operators[0].builtinOptions.fusedActivationFunction = 0
    clipping.subgraphs[0].tensors[3].quantization.zeroPoint = np.array([-128])
    data = pack(clipping)
    floats = {
        n: OpOverride("float32", [KERNELS[n], BIASES[n]], range_is_activation=n == 0)
        for n in (0, 1)
    }
    changed = mixed_precision.apply_overrides(data, floats)
    assert conversions(changed) == ["DEQUANTIZE", "QUANTIZE", "DEQUANTIZE", "QUANTIZE"]
    for x in RNG.integers(-128, 128, (20, 4)).astype(np.int8):
        np.testing.assert_allclose(run(changed, x), run(data, x), atol=3.5 * SCALES[-1])


def test_what_changed_operators_have_no_use_for_leaves_the_file(chain: bytes) -> None:
    floats = {n: OpOverride("float32", [KERNELS[n], BIASES[n]]) for n in range(3)}
    model = schema.ModelT.InitFromObj(
        schema.Model.GetRootAs(mixed_precision.apply_overrides(chain, floats), 0)
    )
    constants = [buffer for buffer in model.buffers if buffer.data is not None]
    assert sorted(len(buffer.data) for buffer in constants) == [16] * 3 + [64] * 3
    types = [tensor.type for tensor in model.subgraphs[0].tensors]
    assert types.count(TYPE.INT8) == 2  # the two ends
    assert types.count(TYPE.INT32) == 0


def test_constants_are_read_with_their_steps(chain: bytes) -> None:
    assert mixed_precision.output_names(chain) == NAMES
    (kernel, step), (bias, _) = mixed_precision.quantized_constants(chain, 1)
    assert np.abs(kernel - KERNELS[1]).max() <= step.item() / 2 * 1.001
    np.testing.assert_allclose(bias, BIASES[1], atol=SCALES[1] * stored(1)[2])
