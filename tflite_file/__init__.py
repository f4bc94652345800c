"""What a .tflite file holds and how a runtime divides it: for `convert` and benchmarks."""

import contextlib
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DAMAGE = (struct.error, IndexError, KeyError, ValueError, TypeError, AttributeError)


@dataclass(frozen=True)
class Operator:
    """One operator of the file; the dtypes are those of its outputs, such as "int8"."""

    type: str  # "CONV_2D", or a custom operator's own name
    dtypes: tuple[str, ...]


def operators(data: bytes) -> list[Operator]:
    """Reads the operators of all subgraphs, in the order in which they run.

    Raises:
      ValueError: it is a file of another kind, or refers past its own end.
    """
    if data[4:8] != b"TFL3":
        start = f"one that starts with {data[:8]!r}" if data else "an empty file"
        raise ValueError(f"expected a TFLite file (identifier TFL3), got {start}")
    with damage_told(data):
        return _operators(data)


@contextlib.contextmanager
def damage_told(data: bytes) -> Iterator[None]:
    """Makes one ValueError of all that reading a damaged file may raise."""
    try:
        yield
    except DAMAGE as error:
        raise ValueError(
            f"expected a whole TFLite file, got one that points beyond its {len(data)} bytes: "
            "truncated or damaged; convert or copy it again"
        ) from error


def _operators(data: bytes) -> list[Operator]:
    from ai_edge_litert import schema_py_generated as schema  # slow, so not for --help

    model = schema.Model.GetRootAs(data, 0)
    known = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    dtype_names = {value: name.lower() for name, value in vars(schema.TensorType).items()}
    types = []
    for code in map(model.OperatorCodes, range(model.OperatorCodesLength())):
        builtin = known[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        types.append(code.CustomCode().decode() if builtin == "CUSTOM" else builtin)
    for buffer in map(model.Buffers, range(model.BuffersLength())):
        buffer.DataAsNumpy()  # NumPy refuses weights that end behind the file
        if buffer.Offset() + buffer.Size() > len(data):
            raise ValueError("weights outside of the file")
    found = []
    for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
        for op in map(graph.Operators, range(graph.OperatorsLength())):
            outputs = [graph.Tensors(op.Outputs(i)) for i in range(op.OutputsLength())]
            dtypes = tuple(dtype_names[tensor.Type()] for tensor in outputs)
            found.append(Operator(types[op.OpcodeIndex()], dtypes))
    return found


def delegation(nodes: Sequence[Mapping[str, Any]]) -> tuple[int, dict[str, int]]:
    """Counts delegate partitions, and by type the operators that no delegate took.

    Args:
      nodes: What an interpreter's `_get_ops_details()` gives once its tensors are allocated.  It
        keeps the replaced nodes and does not say which they are, so each delegate is followed
        from its outputs back to its inputs.
    """
    delegates = [node for node in nodes if node["op_name"] == "DELEGATE"]
    others = [node for node in nodes if node["op_name"] != "DELEGATE"]
    producers = {tensor: node for node in others for tensor in node["outputs"]}
    inside = set()
    for delegate in delegates:
        seen, todo = set(delegate["inputs"]), list(delegate["outputs"])
        while todo:
            tensor = todo.pop()
            if tensor in producers and tensor not in seen:
                inside.add(producers[tensor]["index"])
                todo.extend(producers[tensor]["inputs"])
            seen.add(tensor)
    outside = Counter(node["op_name"] for node in others if node["index"] not in inside)
    return len(delegates), dict(outside)
