"""Reads the binary files of the benchmark tools, without the protobuf package."""

import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from android_bench.benchmark_tool.profile import Profile, is_delegated
from android_bench.benchmark_tool.result import ParseError, Result
from android_bench.benchmark_tool.sample_checks import check_sample
from android_bench.measurement import OperatorTime

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
Message = Mapping[int, list[int | bytes]]  # field number: its values, as they came


@dataclass(frozen=True)
class RuntimeInfo:
    """Which delegates took which operators, over all subgraphs."""

    partitions: Mapping[str, int]  # by the runtime's name of the delegate
    undelegated_operators: Mapping[str, int]  # by type


def parse_result_proto(data: bytes) -> Result:
    """Reads the file of `--result_file_path` (LiteRT 2.1 and later).

    Raises:
      ParseError: The file is cut off or contradicts itself.
    """
    whole = _message(data, "result file")
    latency, misc = _submessage(whole, 2), _submessage(whole, 4)
    memory = _submessage(whole, 3) if 3 in whole else {}
    # The tool writes all of these, and the last of them at the end of the file.
    avg, low, high, std, median, p5, p95, init, first, warmup = (
        _float(latency, number) for number in range(1, 11)
    )
    size = _float(misc, 1)
    runs, warmup_runs = _int(misc, 2), _int(misc, 3)
    _float(misc, 4)
    if runs < 1:
        raise ParseError("the result file tells of no timed inference")
    check_sample(
        count=runs,
        low=low,
        high=high,
        avg=avg,
        rounding=avg * 1e-6,
        deviation=(std * (1 - 1e-6), std * (1 + 1e-6) + 0.001),
        percentiles=(p5, median, p95),
        others=(),
    )
    warm = warmup_runs > 0
    return Result(
        tool=None,
        graph=None,
        runs=runs,
        avg_ms=avg,
        min_ms=low,
        max_ms=high,
        std_ms=std,
        median_ms=median,
        p5_ms=p5,
        p95_ms=p95,
        init_ms=init,
        first_ms=first if warm else None,
        warmup_runs=warmup_runs,
        warmup_ms=warmup if warm else None,
        init_memory_mb=_int(memory, 1) / 1024 if 1 in memory else None,
        memory_mb=_int(memory, 2) / 1024 if 2 in memory else None,
        peak_memory_mb=_float(memory, 3) if 3 in memory else None,
        model_size_mb=size if size > 0 else None,
    )


def parse_profile_proto(data: bytes) -> Profile:
    """Reads the file of `--op_profiling_output_mode=proto`.

    Raises:
      ParseError: The file is cut off or contradicts itself.
    """
    whole = _message(data, "profile")
    if 3 not in whole:
        raise ParseError("the profile lacks its regular runs: it is cut off, or nothing was timed")
    regular = _submessage(whole, 3)
    initial = _submessage(whole, 2) if 2 in whole else {}
    first = [_submessage_of(graph) for graph in initial.get(1, [])]
    graphs = [_submessage_of(graph) for graph in regular.get(1, [])]
    primary = next((graph for graph in graphs if _int(graph, 2) == 0), {})
    operators = _operators(primary.get(3, []))
    if not operators:
        raise ParseError("the profile has no operators")
    subgraphs = {
        _text(graph, 1) or str(_int(graph, 2)): _operators(graph.get(3, []))
        for graph in graphs
        if graph is not primary
    }
    internals = [_submessage_of(delegate) for delegate in regular.get(2, [])]
    return Profile(
        operators=operators,
        initialization=tuple(row for graph in first for row in _operators(graph.get(3, []))),
        subgraphs=subgraphs,
        delegate_internals=tuple(
            row for internal in internals for row in _operators(internal.get(2, []))
        ),
        total_ms=sum(row.ms for row in operators),
    )


def parse_runtime_info_proto(data: bytes) -> RuntimeInfo:
    """Reads the file of `--model_runtime_info_output_file`.

    Raises:
      ParseError: The file is cut off or contradicts itself.
    """
    graphs = [_submessage_of(one) for one in _message(data, "runtime info").get(2, [])]
    if not graphs:
        raise ParseError("the runtime info has no graph: it is cut off")
    partitions: Counter[str] = Counter()
    outside: Counter[str] = Counter()
    for graph in graphs:
        nodes = {_int(node, 1): node for node in map(_submessage_of, graph.get(3, []))}
        for index in _packed(graph.get(4, [])):
            if index not in nodes:
                raise ParseError(f"the runtime info plans node {index}, which it does not have")
            node = nodes[index]
            if 9 in node:
                raise ParseError(f"the runtime info plans node {index}, which a delegate took")
            if 8 in node:
                partitions[_text(_submessage(node, 8), 1)] += 1
            else:
                outside[_text(node, 2)] += 1
    return RuntimeInfo(dict(partitions), dict(outside))


def _operators(rows: Sequence[int | bytes]) -> tuple[OperatorTime, ...]:
    read = [_submessage_of(row) for row in rows]
    times = [_submessage(row, 2) for row in read]
    sums = [(_int(time, 8), _int(time, 9)) for time in times]
    called = [_int(row, 4) for row in read]
    for (total, count), time in zip(sums, times, strict=True):
        low, high = _int(time, 6), _int(time, 7)
        if count < 1 or not 0 <= low <= high or not low * count <= total <= high * count:
            raise ParseError(f"the profile has {count} calls of {total} us in {low} to {high} us")
    # An operator's calls are cut to whole calls per inference, so the fullest tells the runs.
    runs = min(
        (count // calls for (_, count), calls in zip(sums, called, strict=True) if calls > 0),
        default=1,
    )
    for (_, count), calls in zip(sums, called, strict=True):
        if any(called) and count // max(runs, 1) != calls:
            raise ParseError(f"the profile has {count} calls in {runs} runs, but tells {calls}")
    return tuple(
        OperatorTime(
            name=_text(row, 5),
            type=_text(row, 1),
            ms=total / runs / 1000,
            calls=calls,
            delegated=is_delegated(_text(row, 5), _text(row, 1)),
        )
        for row, (total, _), calls in zip(read, sums, called, strict=True)
    )


def _message(data: bytes, what: str) -> Message:
    """Splits a message into its fields."""
    if not data:
        raise ParseError(f"the {what} is empty")
    fields: dict[int, list[int | bytes]] = {}
    place = 0
    try:
        while place < len(data):
            tag, place = _varint(data, place)
            value: int | bytes
            if tag & 7 == VARINT:
                value, place = _varint(data, place)
            elif tag & 7 in (FIXED64, FIXED32, BYTES):
                length = {FIXED64: 8, FIXED32: 4}.get(tag & 7)
                if length is None:
                    length, place = _varint(data, place)
                value, place = data[place : place + length], place + length
            else:
                raise ValueError(f"wire type {tag & 7}")
            if place > len(data) or tag >> 3 == 0:
                raise ValueError("a field beyond the end")
            fields.setdefault(tag >> 3, []).append(value)
    except (ValueError, IndexError) as error:
        raise ParseError(f"the {what} is cut off or damaged: {error}") from error
    return fields


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return value, place
    raise ValueError("a number of more than 64 bits")


def _submessage_of(value: int | bytes) -> Message:
    if not isinstance(value, bytes):
        raise ParseError("the file is damaged: a number where a message belongs")
    return _message(value, "part of the file") if value else {}


def _submessage(message: Message, number: int) -> Message:
    return _submessage_of(_one(message, number))


def _one(message: Message, number: int) -> int | bytes:
    values = message.get(number, [])
    if len(values) != 1:
        raise ParseError(f"the file is cut off or damaged: field {number} is there {len(values)}x")
    return values[0]


def _int(message: Message, number: int) -> int:
    value = _one(message, number)
    if isinstance(value, bytes):
        raise ParseError(f"the file is damaged: field {number} is no whole number")
    return value - (1 << 64) if value >= 1 << 63 else value


def _float(message: Message, number: int) -> float:
    value = _one(message, number)
    if not isinstance(value, bytes) or len(value) != 4:
        raise ParseError(f"the file is damaged: field {number} is no float")
    (read,) = struct.unpack("<f", value)
    if not 0 <= read < 1e12:
        raise ParseError(f"the file is damaged: field {number} is {read}")
    return read


def _text(message: Message, number: int) -> str:
    value = _one(message, number) if number in message else b""
    if not isinstance(value, bytes):
        raise ParseError(f"the file is damaged: field {number} is no text")
    return value.decode(errors="replace")


def _packed(values: Sequence[int | bytes]) -> list[int]:
    numbers: list[int] = []
    for value in values:
        if isinstance(value, int):
            numbers.append(value)
            continue
        place = 0
        try:
            while place < len(value):
                number, place = _varint(value, place)
                numbers.append(number)
        except (ValueError, IndexError) as error:
            raise ParseError("the file is damaged: a list is cut off") from error
    return numbers
