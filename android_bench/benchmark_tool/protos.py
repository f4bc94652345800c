"""Reads the protobuf files of the benchmark tools.

The classes of ai_edge_litert cannot be imported beside TensorFlow, since both register the same
message names, and the result file has no class in any package: so the wire format is read here.
Field numbers: tflite/tools/benchmark/proto/benchmark_result.proto and
tflite/profiling/proto/{profiling_info,model_runtime_info}.proto.
"""

import contextlib
import struct
from collections import Counter
from collections.abc import Iterator

from android_bench.benchmark_tool.delegation import Delegation, ParseError, delegate_name
from android_bench.benchmark_tool.log_lines import MAX_SIZE
from android_bench.benchmark_tool.profile import is_delegated
from android_bench.benchmark_tool.result import ToolResult
from android_bench.measurement import OperatorTime

_LATENCY = {
    **{"avg_ms": 1, "min_ms": 2, "max_ms": 3, "median_ms": 5, "p5_ms": 6, "p95_ms": 7},
    **{"init_ms": 8, "first_ms": 9},
}


def parse_result_proto(data: bytes) -> ToolResult:
    """Reads the file of `--result_file_path` (LiteRT 2.1 and later).

    Raises:
      ParseError: The file is cut off.
    """
    with _damage("result file", data):
        result = _Message(data)
        latency, memory, misc = (result.message(number) for number in (2, 3, 4))
        times = {name: latency.number(field) for name, field in _LATENCY.items()}
        runs, warmup_runs = misc.number(2), misc.number(3)  # the last that the tool writes
        if None in times.values() or runs is None or warmup_runs is None:
            raise ParseError("the result file is cut off: it lacks figures")
        if not warmup_runs:
            times["first_ms"] = None  # written as 0
        kb = memory.number(2)
        return ToolResult(
            tool=None,
            runs=int(runs),
            memory_mb=None if kb is None else kb / 1024,
            peak_memory_mb=memory.number(3),
            **times,  # type: ignore[arg-type]
        )


def parse_profile_proto(data: bytes) -> tuple[OperatorTime, ...]:
    """Reads the file of `--op_profiling_output_mode=proto`: means without the slowest call.

    A call that the system interrupts is much slower, and would take the others' share.

    Raises:
      ParseError: The file is cut off or contradicts itself.
    """
    rows = []
    with _damage("profile", data):
        graphs = _Message(data).message(3).messages(1)
        operators = next((one.messages(3) for one in graphs if not one.number(2)), [])
        counts = [(one.message(2).integer(9), one.integer(4)) for one in operators]
        # Calls are rounded down to whole calls per inference: the least quotient is the runs.
        runs = min((count // calls for count, calls in counts if calls > 0), default=0)
        if runs < 1:
            raise ParseError("the profile is cut off: it has no operators of the regular runs")
        for one, (count, calls) in zip(operators, counts, strict=True):
            average, least, most, total = map(one.message(2).integer, (3, 6, 7, 8))  # us
            name, type_ = one.text(5), one.text(1)
            sound = not count or (average == total // count and least <= average <= most)
            if not sound or count // runs != calls:
                raise ParseError(f"the figures of {name} in the profile contradict each other")
            call_us = (total - most) / (count - 1) if count > 1 else total
            ms = call_us * count / runs / 1000
            rows.append(OperatorTime(name, type_, ms, calls, is_delegated(name, type_)))
    return tuple(rows)


def parse_runtime_info_proto(data: bytes) -> Delegation:
    """Reads the file of `--model_runtime_info_output_file`.

    Raises:
      ParseError: The file is cut off.
    """
    partitions = Counter({"xnnpack": 0, "gpu": 0, "nnapi": 0})
    undelegated: Counter[str] = Counter()
    with _damage("runtime info", data):
        graph = _Message(data).messages(2)[0]  # the primary one
        nodes = {node.integer(1): node for node in graph.messages(3)}
        for index in graph.integers(4):  # its execution plan
            node = nodes[index]
            delegates = node.messages(8)
            if delegates:
                partitions[delegate_name(delegates[0].text(1))] += 1
            else:
                undelegated[node.text(2)] += 1
    return Delegation("the runtime info", dict(partitions), dict(undelegated))


@contextlib.contextmanager
def _damage(what: str, data: bytes) -> Iterator[None]:
    try:
        if len(data) > MAX_SIZE:
            raise ValueError(f"more than {MAX_SIZE} bytes")
        yield
    except (IndexError, KeyError, ValueError, struct.error) as error:
        raise ParseError(f"the {what} is cut off or damaged: {error!r:.200}") from error


class _Message:
    """The fields of a message, by number."""

    def __init__(self, data: bytes) -> None:
        self._fields: dict[int, list[int | bytes]] = {}
        at = 0
        while at < len(data):
            key, at = _varint(data, at)
            number, at = _varint(data, at) if key & 7 in (0, 2) else ({1: 8, 5: 4}[key & 7], at)
            if key & 7 == 0:
                self._fields.setdefault(key >> 3, []).append(number)
                continue
            if at + number > len(data):
                raise IndexError("a field ends behind the message")
            self._fields.setdefault(key >> 3, []).append(data[at : at + number])
            at += number

    def messages(self, number: int) -> "list[_Message]":
        return [_Message(one) for one in self._fields.get(number, ()) if isinstance(one, bytes)]

    def message(self, number: int) -> "_Message":
        return (self.messages(number) or [_Message(b"")])[-1]

    def integers(self, number: int) -> list[int]:
        integers: list[int] = []
        for value in self._fields.get(number, ()):
            at = 0
            while isinstance(value, bytes) and at < len(value):  # packed
                integer, at = _varint(value, at)
                integers.append(integer)
            integers += [] if isinstance(value, bytes) else [value]
        return [one - (1 << 64) if one >> 63 else one for one in integers]

    def integer(self, number: int) -> int:
        return (self.integers(number) or [0])[-1]

    def number(self, number: int) -> float | None:
        """A number of either kind; None if the field is missing."""
        value = self._fields.get(number, [None])[-1]
        if isinstance(value, bytes):
            return float(f"{struct.unpack('<f', value)[0]:.7g}")  # a float32 has seven digits
        return value if value is None else self.integer(number)

    def text(self, number: int) -> str:
        value = self._fields.get(number, [b""])[-1]
        return value.decode(errors="replace") if isinstance(value, bytes) else ""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value & (1 << 64) - 1, at
        shift += 7
    raise ValueError("an integer of more than ten bytes")
