"""Reads the protobuf files of the benchmark tools.

The classes of ai_edge_litert (profiling_info_pb2, model_runtime_info_pb2) cannot be imported
beside TensorFlow: both register the same message names in protobuf's default pool.  The result
file has no class in any package.  So the fields that are read are declared here, in a pool of
their own.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from android_bench.benchmark_tool.profile import is_delegated
from android_bench.benchmark_tool.result import ParseError, ToolResult
from android_bench.measurement import OperatorTime

# Message: field: (number, type), "*" repeated.  From tflite/tools/benchmark/proto/
# benchmark_result.proto and tflite/profiling/proto/{profiling_info,model_runtime_info}.proto.
_LATENCY = [
    *("avg_ms", "min_ms", "max_ms", "std_ms", "median_ms", "p5_ms", "p95_ms"),
    *("init_ms", "first_ms", "warmup_ms"),
]
_SCHEMA: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "Result": {"latency": (2, "Latency"), "memory": (3, "Memory"), "misc": (4, "Misc")},
    "Latency": {name: (number, "float") for number, name in enumerate(_LATENCY, start=1)},
    "Memory": {"init_kb": (1, "int64"), "overall_kb": (2, "int64"), "peak_mb": (3, "float")},
    "Misc": {"size_mb": (1, "float"), "runs": (2, "int32"), "warmup_runs": (3, "int32")},
    "Profile": {"runtime": (3, "ModelProfile")},
    "ModelProfile": {"subgraphs": (1, "*SubgraphProfile")},
    "SubgraphProfile": {"index": (2, "int32"), "operators": (3, "*Operator")},
    "Operator": {
        "type": (1, "bytes"),  # names in bytes: they need not be valid UTF-8
        "us": (2, "OperatorStatistics"),
        "calls": (4, "int64"),
        "name": (5, "bytes"),
    },
    "OperatorStatistics": {"sum": (8, "int64"), "count": (9, "int64")},
    "RuntimeInfo": {"subgraphs": (2, "*Subgraph")},
    "Subgraph": {"nodes": (3, "*Node"), "plan": (4, "*int32")},
    "Node": {"id": (1, "int32"), "name": (2, "bytes"), "delegate": (8, "NodeDelegate")},
    "NodeDelegate": {"name": (1, "bytes")},
}


@dataclass(frozen=True)
class RuntimeInfo:
    """Which delegates took which operators, over all subgraphs."""

    partitions: Mapping[str, int]  # by the runtime's name of the delegate
    undelegated_operators: Mapping[str, int]  # by type


def parse_result_proto(data: bytes) -> ToolResult:
    """Reads the file of `--result_file_path` (LiteRT 2.1 and later).

    Raises:
      ParseError: The file is cut off.
    """
    result = _read("Result", data, "result file")
    latency, memory, misc = result.latency, result.memory, result.misc
    # The tool writes all of these, and the last of them at the end of the file.
    if not all(map(latency.HasField, _LATENCY)) or not misc.HasField("warmup_runs"):
        raise ParseError("the result file is cut off: it lacks figures")
    times = {name: getattr(latency, name) for name in _LATENCY}
    if not misc.warmup_runs:
        times["first_ms"] = times["warmup_ms"] = None
    return ToolResult(
        tool=None,
        graph=None,
        runs=misc.runs,
        warmup_runs=misc.warmup_runs,
        init_memory_mb=memory.init_kb / 1024 if memory.HasField("init_kb") else None,
        memory_mb=memory.overall_kb / 1024 if memory.HasField("overall_kb") else None,
        peak_memory_mb=memory.peak_mb if memory.HasField("peak_mb") else None,
        model_size_mb=misc.size_mb or None,
        **times,
    )


def parse_profile_proto(data: bytes) -> tuple[OperatorTime, ...]:
    """Reads the file of `--op_profiling_output_mode=proto`.

    Raises:
      ParseError: The file is cut off.
    """
    subgraphs = _read("Profile", data, "profile").runtime.subgraphs
    operators = next((graph.operators for graph in subgraphs if graph.index == 0), ())
    if not operators:
        raise ParseError("the profile has no operators of the regular runs: it is cut off")
    # An operator's calls are rounded down to whole calls per inference, so the least quotient
    # is the number of runs.
    runs = min((one.us.count // one.calls for one in operators if one.calls > 0), default=1)
    times = []
    for one in operators:
        name, type_ = _text(one.name), _text(one.type)
        ms = one.us.sum / max(runs, 1) / 1000
        times.append(OperatorTime(name, type_, ms, one.calls, is_delegated(name, type_)))
    return tuple(times)


def parse_runtime_info_proto(data: bytes) -> RuntimeInfo:
    """Reads the file of `--model_runtime_info_output_file`.

    Raises:
      ParseError: The file is cut off.
    """
    subgraphs = _read("RuntimeInfo", data, "runtime info").subgraphs
    if not subgraphs:
        raise ParseError("the runtime info has no graph: it is cut off")
    partitions: Counter[str] = Counter()
    undelegated: Counter[str] = Counter()
    for graph in subgraphs:
        nodes = {node.id: node for node in graph.nodes}
        for index in graph.plan:
            if index not in nodes:
                raise ParseError(f"the runtime info lacks node {index}: it is cut off")
            node = nodes[index]
            if node.HasField("delegate"):
                partitions[_text(node.delegate.name)] += 1
            else:
                undelegated[_text(node.name)] += 1
    return RuntimeInfo(dict(partitions), dict(undelegated))


def _text(value: bytes) -> str:
    return value.decode(errors="replace")


def _read(message: str, data: bytes, what: str) -> Any:
    from google.protobuf.message import DecodeError

    try:
        return _classes()[message].FromString(data)
    except DecodeError as error:
        raise ParseError(f"the {what} is cut off or damaged: {error}") from error


@cache
def _classes() -> dict[str, Any]:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="benchmark_tool.proto", syntax="proto2")
    for message, fields in _SCHEMA.items():
        descriptor = file.message_type.add(name=message)
        for name, (number, type_) in fields.items():
            field = descriptor.field.add(name=name, number=number)
            field.label = field.LABEL_REPEATED if type_[0] == "*" else field.LABEL_OPTIONAL
            kind = type_.lstrip("*")
            if kind in _SCHEMA:
                field.type, field.type_name = field.TYPE_MESSAGE, kind
            else:
                field.type = getattr(field, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in _SCHEMA
    }
