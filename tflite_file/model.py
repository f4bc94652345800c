"""The operators of a .tflite file, and how a runtime divides them among its delegates."""

import contextlib
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STORES_AGAIN = ("QUANTIZE", "DEQUANTIZE", "RESHAPE", "SQUEEZE", "CAST")
DAMAGE = (struct.error, IndexError, KeyError, ValueError, TypeError, AttributeError)


@dataclass(frozen=True)
class Operator:
    """One operator of the file; the dtypes are those of its outputs, such as "int8"."""

    type: str  # "CONV_2D", or a custom operator's own name
    dtypes: tuple[str, ...]
    groups: int = 1  # of a CONV_2D


def read_operators(data: bytes) -> list[Operator]:
    """Returns the operators of all subgraphs in execution order.

    Raises:
      ValueError: it is another kind of file, or points beyond its own end.
    """
    if data[4:8] != b"TFL3":
        start = f"one that starts with {data[:8]!r}" if data else "an empty file"
        raise ValueError(f"expected a TFLite file (identifier TFL3), got {start}")
    with damage_as_value_error(data):
        return _read_operators(data)


@contextlib.contextmanager
def damage_as_value_error(data: bytes) -> Iterator[None]:
    """Turns everything that reading a damaged file may raise into one ValueError."""
    try:
        yield
    except DAMAGE as error:
        raise ValueError(
            f"expected a whole TFLite file, got one that points beyond its {len(data)} bytes: "
            "truncated or damaged; convert or copy it again"
        ) from error


def _read_operators(data: bytes) -> list[Operator]:
    from ai_edge_litert import schema_py_generated as schema  # slow, so not for --help

    model = schema.Model.GetRootAs(data, 0)
    builtin_names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    dtype_names = {value: name.lower() for name, value in vars(schema.TensorType).items()}
    types = []
    for code in map(model.OperatorCodes, range(model.OperatorCodesLength())):
        builtin = builtin_names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        types.append(code.CustomCode().decode() if builtin == "CUSTOM" else builtin)
    for buffer in map(model.Buffers, range(model.BuffersLength())):
        buffer.DataAsNumpy()  # NumPy refuses weights that end beyond the file
        if buffer.Offset() + buffer.Size() > len(data):
            raise ValueError("weights outside of the file")
    operators = []
    for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
        for op in map(graph.Operators, range(graph.OperatorsLength())):
            outputs = [graph.Tensors(op.Outputs(i)) for i in range(op.OutputsLength())]
            dtypes = tuple(dtype_names[tensor.Type()] for tensor in outputs)
            type_ = types[op.OpcodeIndex()]
            groups = _groups(graph, op) if type_ == "CONV_2D" else 1
            operators.append(Operator(type_, dtypes, groups))
    return operators


def _groups(graph: Any, convolution: Any) -> int:
    """How often the channels of a filter, (out, h, w, channels), go into those of the input."""
    indices = [convolution.Inputs(i) for i in range(min(2, convolution.InputsLength()))]
    shapes = [graph.Tensors(i) for i in indices if 0 <= i < graph.TensorsLength()]
    channels = [shape.Shape(3) for shape in shapes if shape.ShapeLength() == 4]
    return channels[0] // channels[1] if len(channels) == 2 and channels[1] > 0 else 1


def output_operator(data: bytes) -> str:
    """The type of the operator that computes the first output; "": none does.

    Looks through those that only store the same values in another way.
    """
    from ai_edge_litert import schema_py_generated as schema

    operators = read_operators(data)
    with damage_as_value_error(data):
        graph = schema.Model.GetRootAs(data, 0).Subgraphs(0)
        tensor = graph.Outputs(0)
        for index in reversed(range(graph.OperatorsLength())):  # in execution order
            op, type_ = graph.Operators(index), operators[index].type
            if tensor in map(op.Outputs, range(op.OutputsLength())):
                if type_ not in STORES_AGAIN:
                    return type_
                tensor = op.Inputs(0)
    return ""


def count_delegation(nodes: Sequence[Mapping[str, Any]]) -> tuple[int, dict[str, int]]:
    """Returns the number of delegate partitions, and the operators outside of them by type.

    Args:
      nodes: An interpreter's `_get_ops_details()` after its tensors are allocated.  It includes
        the nodes that a delegate replaced, without marking them, so this walks from each
        delegate's outputs back to its inputs.
    """
    delegates = [node for node in nodes if node["op_name"] == "DELEGATE"]
    others = [node for node in nodes if node["op_name"] != "DELEGATE"]
    producers = {tensor: node for node in others for tensor in node["outputs"]}
    delegated = set()
    for delegate in delegates:
        visited, pending = set(delegate["inputs"]), list(delegate["outputs"])
        while pending:
            tensor = pending.pop()
            if tensor in producers and tensor not in visited:
                delegated.add(producers[tensor]["index"])
                pending.extend(producers[tensor]["inputs"])
            visited.add(tensor)
    outside = Counter(node["op_name"] for node in others if node["index"] not in delegated)
    return len(delegates), dict(outside)
