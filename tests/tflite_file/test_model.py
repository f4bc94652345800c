"""Operators and delegation of files, whole and damaged."""

import random
from typing import Any

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema

from tflite_file.model import Operator, count_delegation, output_operator, read_operators

BUILTIN = schema.BuiltinOperator
TYPE = schema.TensorType


def tensor(name: str, dtype: int, buffer: int = 0) -> Any:
    made = schema.TensorT()
    made.name, made.type, made.buffer, made.shape = name, dtype, buffer, [1, 4]
    return made


def operator(code: int, inputs: list[int], outputs: list[int]) -> Any:
    made = schema.OperatorT()
    made.opcodeIndex, made.inputs, made.outputs = code, inputs, outputs
    return made


def code(builtin: int, *, deprecated: int | None = None, custom: str | None = None) -> Any:
    made = schema.OperatorCodeT()
    made.builtinCode = builtin
    # builtins below 127 stand in both fields; older converters know the deprecated one only
    made.deprecatedBuiltinCode = min(builtin, 127) if deprecated is None else deprecated
    made.customCode, made.version = custom, 1
    return made


def graph(tensors: list[Any], operators: list[Any]) -> Any:
    made = schema.SubGraphT()
    made.tensors, made.operators, made.inputs, made.outputs = tensors, operators, [0], [1]
    return made


def pack(model: Any) -> bytes:
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def model() -> Any:
    made = schema.ModelT()
    made.version = 3
    weights = schema.BufferT()
    weights.data = list(range(200))
    made.buffers = [schema.BufferT(), weights]
    made.operatorCodes = [
        code(BUILTIN.CONV_2D),
        code(BUILTIN.CUSTOM, custom="Mystery"),
        code(BUILTIN.GELU),  # its number is above 127
        code(0, deprecated=BUILTIN.SPLIT),
    ]
    tensors = [
        tensor("image", TYPE.INT8),
        tensor("a", TYPE.INT8, 1),
        tensor("b", TYPE.FLOAT32),
        tensor("c", TYPE.INT32),
    ]
    main = graph(tensors, [operator(3, [0], [1, 2]), operator(0, [1], [3]), operator(1, [3], [])])
    branch = graph(tensors, [operator(2, [0], [2]), operator(0, [1], [1])])
    made.subgraphs = [main, branch]
    return made


OPERATORS = [
    Operator("SPLIT", ("int8", "float32")),
    Operator("CONV_2D", ("int32",)),
    Operator("Mystery", ()),
    Operator("GELU", ("float32",)),
    Operator("CONV_2D", ("int8",)),
]


def test_a_convolution_whose_filters_take_fewer_channels_is_grouped() -> None:
    shapes = [(1, 8, 8, 12), (6, 1, 1, 4), (6, 1, 1, 12), (1, 8, 8, 6), (6,)]
    tensors = [tensor(str(number), TYPE.INT8) for number in range(len(shapes))]
    for made, shape in zip(tensors, shapes, strict=True):
        made.shape = list(shape)
    made = model()
    for inputs, groups in (([0, 1, 4], 3), ([0, 2, 4], 1), ([0, 4], 1), ([0, -1, -1], 1), ([0], 1)):
        made.subgraphs = [graph(tensors, [operator(0, inputs, [3])])]
        assert read_operators(pack(made)) == [Operator("CONV_2D", ("int8",), groups)]


def test_the_output_is_of_the_operator_that_computes_it() -> None:
    made = model()
    made.operatorCodes = [
        code(getattr(BUILTIN, name)) for name in ("SOFTMAX", "DEQUANTIZE", "RESHAPE", "CONV_2D")
    ]
    tensors = [tensor(str(number), TYPE.INT8) for number in range(6)]
    for operators, type_ in (
        ([operator(3, [0], [2]), operator(0, [2], [1])], "SOFTMAX"),
        ([operator(0, [0], [2]), operator(2, [2], [3]), operator(1, [3], [1])], "SOFTMAX"),
        ([operator(0, [0], [2]), operator(3, [2], [1])], "CONV_2D"),
        ([operator(3, [0], [1]), operator(0, [1], [2])], "CONV_2D"),  # a softmax beside it
        ([operator(1, [0], [1])], ""),
        ([], ""),
    ):
        made.subgraphs = [graph(tensors, operators)]
        assert output_operator(pack(made)) == type_


def node(index: int, name: str, inputs: list[int], outputs: list[int]) -> dict[str, Any]:
    return {"index": index, "op_name": name, "inputs": inputs, "outputs": outputs}


def test_operators_come_in_order_with_the_dtypes_of_their_outputs() -> None:
    assert read_operators(pack(model())) == OPERATORS


def test_a_file_that_is_cut_anywhere_is_refused_or_lost_only_padding() -> None:
    data = pack(model())
    for length in range(len(data)):
        try:
            found = read_operators(data[:length])
        except ValueError:
            continue
        assert found == OPERATORS
        assert length > len(data) - 8, "more than padding is missing"


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.9])
def test_a_truncated_file_is_refused(kept: float) -> None:
    data = pack(model())
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_operators(data[: int(len(data) * kept)])


def test_a_damaged_file_gives_no_other_error() -> None:
    data = pack(model())
    rng = random.Random(0)
    refused = 0
    for _ in range(500):
        damaged = bytearray(data)
        for _ in range(4):
            damaged[rng.randrange(len(data))] = rng.randrange(256)
        try:
            read_operators(bytes(damaged))
        except ValueError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("offset", [0, 10_000])
def test_weights_that_lie_behind_the_tables_must_be_in_the_file(offset: int) -> None:
    made = model()
    made.buffers[1].data = None
    made.buffers[1].offset, made.buffers[1].size = offset, 5_000
    data = pack(made)
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_operators(data)
    assert read_operators(data + bytes(offset + 5_000)) == OPERATORS


def test_without_delegates_all_operators_are_outside() -> None:
    nodes = [
        node(0, "CONV_2D", [0, 10], [1]),
        node(1, "CONV_2D", [1, 11], [2]),
        node(2, "MEAN", [2], [3]),
    ]
    assert count_delegation(nodes) == (0, {"CONV_2D": 2, "MEAN": 1})


def test_operators_a_delegate_replaced_are_not_outside() -> None:
    nodes = [
        node(0, "CONV_2D", [0, 10], [1]),
        node(1, "RELU", [1], [2]),
        node(2, "MEAN", [2], [3]),
        node(3, "DELEGATE", [0, 10], [3]),
    ]
    assert count_delegation(nodes) == (1, {})


def test_an_operator_between_two_partitions_is_outside() -> None:
    nodes = [
        node(0, "CONV_2D", [0], [1]),
        node(1, "AVERAGE_POOL_2D", [1], [2]),
        node(2, "CONV_2D", [2], [3]),
        node(3, "SOFTMAX", [3], [4]),
        node(4, "DELEGATE", [0], [1]),
        node(5, "DELEGATE", [2], [3]),
    ]
    assert count_delegation(nodes) == (2, {"AVERAGE_POOL_2D": 1, "SOFTMAX": 1})


def test_branches_inside_one_partition_are_followed() -> None:
    # 0 -> 1 -> {2, 3} -> 4, and 5, which both the delegate and the operator behind it read
    nodes = [
        node(0, "CONV_2D", [0], [1]),
        node(1, "SPLIT", [1], [2, 3]),
        node(2, "CONV_2D", [3], [5]),
        node(3, "CONCATENATION", [2, 5], [4]),
        node(4, "CUSTOM", [4, 5], [6]),
        node(5, "DELEGATE", [0], [4, 5]),
    ]
    assert count_delegation(nodes) == (1, {"CUSTOM": 1})
