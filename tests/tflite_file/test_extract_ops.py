"""Files of single operators compute what they did in the whole."""

import random
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from tests.tflite_file.test_model import code, graph, operator, pack, tensor
from tflite_file import extract_ops

BUILTIN = schema.BuiltinOperator
TYPE = schema.TensorType
RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(3, 4)).astype(np.float16)
BIAS = RNG.normal(size=(3,)).astype(np.float32)


def buffer(values: np.ndarray) -> Any:
    return schema.BufferT(data=np.frombuffer(values.tobytes(), np.uint8))


def shaped(name: str, dtype: int, shape: tuple[int, ...], number: int = 0) -> Any:
    made = tensor(name, dtype, number)
    made.shape = list(shape)
    return made


def network(*operators: Any, tensors: list[Any], buffers: list[Any], codes: list[Any]) -> Any:
    main = graph(tensors, list(operators))
    return schema.ModelT(
        version=3, operatorCodes=codes, subgraphs=[main], buffers=[schema.BufferT(), *buffers]
    )


def half_precision() -> Any:
    """image -> FULLY_CONNECTED, whose float16 weights a DEQUANTIZE widens -> RELU."""
    dense = operator(1, [0, 2, 3], [4])
    dense.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    dense.builtinOptions = schema.FullyConnectedOptionsT()
    made = network(
        operator(0, [1], [2]),
        dense,
        operator(2, [4], [5]),
        tensors=[
            shaped("image", TYPE.FLOAT32, (1, 4)),
            shaped("half", TYPE.FLOAT16, (3, 4), 1),
            shaped("weights", TYPE.FLOAT32, (3, 4)),
            shaped("bias", TYPE.FLOAT32, (3,), 2),
            shaped("logits", TYPE.FLOAT32, (1, 3)),
            shaped("out", TYPE.FLOAT32, (1, 3)),
        ],
        buffers=[buffer(WEIGHTS), buffer(BIAS)],
        codes=[code(BUILTIN.DEQUANTIZE), code(BUILTIN.FULLY_CONNECTED), code(BUILTIN.RELU)],
    )
    made.subgraphs[0].inputs, made.subgraphs[0].outputs = [0], [5]
    return made


def convolutions(**second: Any) -> bytes:
    """Two int8 1x1 convolutions of other weights, one after the other; `second` changes that."""

    def quantized(made: Any, scale: float) -> Any:
        made.quantization = schema.QuantizationParametersT(scale=[scale], zeroPoint=[0])
        return made

    def options(**changes: Any) -> schema.Conv2DOptionsT:
        return schema.Conv2DOptionsT(**{"strideW": 1, "strideH": 1, **changes})

    operators = [operator(0, [0, 1, -1], [2]), operator(0, [2, 3, -1], [4])]
    stride = second.get("stride", 1)
    for made, chosen in zip(operators, (options(), options(strideW=stride)), strict=True):
        made.builtinOptionsType = schema.BuiltinOptions.Conv2DOptions
        made.builtinOptions = chosen
    shape = (1, 8, 8, second.get("channels", 2))
    return pack(
        network(
            *operators,
            tensors=[
                quantized(shaped("a", TYPE.INT8, (1, 8, 8, 2)), 0.1),
                quantized(shaped("b", TYPE.INT8, (2, 1, 1, 2), 1), 0.01),
                quantized(shaped("c", TYPE.INT8, (1, 8, 8, 2)), 0.2),
                quantized(shaped("d", TYPE.INT8, (shape[3], 1, 1, 2), 2), 0.02),
                quantized(shaped("e", TYPE.INT8, shape), second.get("scale", 0.3)),
            ],
            buffers=[buffer(RNG.integers(-9, 9, (n, 2), np.int8)) for n in (2, shape[3])],
            codes=[code(BUILTIN.CONV_2D)],
        )
    )


def transposes(first: tuple[int, ...], second: tuple[int, ...]) -> bytes:
    order = [np.array(axes, np.int32) for axes in (first, second)]
    return pack(
        network(
            operator(0, [0, 1], [2]),
            operator(0, [2, 3], [4]),
            tensors=[
                shaped("a", TYPE.INT8, (4, 4, 4)),
                shaped("b", TYPE.INT32, (3,), 1),
                shaped("c", TYPE.INT8, (4, 4, 4)),
                shaped("d", TYPE.INT32, (3,), 2),
                shaped("e", TYPE.INT8, (4, 4, 4)),
            ],
            buffers=list(map(buffer, order)),
            codes=[code(BUILTIN.TRANSPOSE)],
        )
    )


def run(data: bytes, image: np.ndarray) -> dict[str, np.ndarray]:
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()
    interpreter.set_tensor(source["index"], image)
    interpreter.invoke()
    outputs = interpreter.get_output_details()
    return {one["name"]: interpreter.get_tensor(one["index"]) for one in outputs}


def read(data: bytes) -> Any:
    return schema.ModelT.InitFromPackedBuf(data, 0)


def test_what_a_constant_becomes_at_loading_is_no_part_and_comes_with_its_reader() -> None:
    data = pack(half_precision())
    assert [(part.index, part.type, part.tensor) for part in extract_ops.list_ops(data)] == [
        (1, "FULLY_CONNECTED", "logits"),
        (2, "RELU", "out"),
    ]
    image = RNG.normal(size=(1, 4)).astype(np.float32)
    expected = image @ WEIGHTS.astype(np.float32).T + BIAS
    found = run(extract_ops.extract(data, [1]), image)
    np.testing.assert_allclose(found["logits"], expected, rtol=1e-5)
    assert list(found) == ["logits"]


def test_a_run_gives_what_others_read_and_nothing_from_inside() -> None:
    data = pack(half_precision())
    image = RNG.normal(size=(1, 4)).astype(np.float32)
    found = run(extract_ops.extract(data, [1, 2]), image)
    assert list(found) == ["out"]
    expected = np.maximum(image @ WEIGHTS.astype(np.float32).T + BIAS, 0)
    np.testing.assert_allclose(found["out"], expected, rtol=1e-5)

    made = half_precision()
    made.subgraphs[0].outputs = [4, 5]
    assert list(run(extract_ops.extract(pack(made), [1, 2]), image)) == ["logits", "out"]


def test_weights_that_lie_behind_the_tables_come_along() -> None:
    made = half_precision()
    made.buffers[1].data = None
    made.buffers[1].size, made.buffers[1].offset = WEIGHTS.nbytes, 1 << 20
    data = pack(made)
    data += bytes((1 << 20) - len(data)) + WEIGHTS.tobytes()
    assert extract_ops.extract(data, [1]) == extract_ops.extract(pack(half_precision()), [1])


def test_options_quantization_and_values_are_kept() -> None:
    data = convolutions(stride=2, scale=0.25)
    whole, part = read(data), read(extract_ops.extract(data, [1]))
    (main,) = part.subgraphs
    (one,) = main.operators
    assert one.builtinOptions.strideW == 2
    assert [main.tensors[i].name for i in (*main.inputs, *main.outputs)] == [b"c", b"e"]
    assert list(main.tensors[main.outputs[0]].quantization.scale) == [0.25]
    weights = next(one for one in main.tensors if one.name == b"d")
    np.testing.assert_array_equal(part.buffers[weights.buffer].data, whole.buffers[2].data)
    assert list(one.inputs) == [main.inputs[0], main.tensors.index(weights), -1]


def test_constants_are_aligned_as_the_converter_does() -> None:
    data = extract_ops.extract(pack(half_precision()), [1])
    for values in (WEIGHTS, BIAS):
        assert data.index(values.tobytes()) % 16 == 0


@pytest.mark.parametrize(
    ("data", "alike"),
    [
        (convolutions(), True),  # other weights, other scales
        (convolutions(stride=2), False),
        (convolutions(channels=3), False),
        (convolutions(scale=0.2), False),  # the output's is now the input's: nothing to rescale
        (transposes((0, 2, 1), (0, 2, 1)), True),
        (transposes((0, 2, 1), (1, 0, 2)), False),
    ],
)
def test_operators_that_do_the_same_work_are_of_one_kind(data: bytes, alike: bool) -> None:
    first, second = extract_ops.list_ops(data)
    assert (first.kind == second.kind) is alike


def test_a_file_with_branches_is_refused() -> None:
    made = half_precision()
    made.subgraphs.append(made.subgraphs[0])
    with pytest.raises(ValueError, match="expected one subgraph, got 2"):
        extract_ops.list_ops(pack(made))
    with pytest.raises(ValueError, match="expected one subgraph, got 2"):
        extract_ops.extract(pack(made), [0])


def test_a_damaged_file_is_refused() -> None:
    data = pack(half_precision())
    with pytest.raises(ValueError, match="truncated or damaged"):
        extract_ops.list_ops(data[: len(data) // 2])


def test_no_damage_leads_to_another_error() -> None:
    data, rng, refused = pack(half_precision()), random.Random(0), 0
    for _ in range(1500):
        spoiled = bytearray(data)
        spoiled[rng.randrange(len(data))] = rng.randrange(256)
        try:
            for part in extract_ops.list_ops(bytes(spoiled)):
                extract_ops.extract(bytes(spoiled), [part.index])
        except UnicodeDecodeError:
            raise
        except ValueError:
            refused += 1
    assert 100 < refused < 1500
