"""What the benchmark tools print and write for tests, and whether it was read as it was meant."""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from android_bench.benchmark_tool import Profile, Result
from android_bench.measurement import OperatorTime
from tests.android_bench.outputs import printer, profile_printer

OUTPUTS = Path(__file__).with_name("outputs")

TRUTH = json.loads((OUTPUTS / "truth.json").read_text())
APPLIED = ("whole", "partial")


def close(name: str, told: Any, true: Any, version: Any) -> bool:
    """Whether a value is the true one, as exactly as that version prints it."""
    if told is None or isinstance(true, str) or true is None:
        return bool(told == true)
    two_decimals = version.compiled and ("memory" in name or name == "init_ms")
    return math.isclose(told, true, rel_tol=5.1e-6, abs_tol=0.00501 if two_decimals else 1e-9)


def check(
    result: Result, truth: Mapping[str, Any], version: Any, *, skip: tuple[str, ...] = ()
) -> None:
    for name, true in truth.items():
        told = getattr(result, name)
        if name not in skip:
            assert close(name, told, true, version), f"{name}: {told} in place of {true}"


def field(number: int, value: Any) -> bytes:
    """A field of a protocol buffer; the wire format is that of its specification."""
    if isinstance(value, float):
        return bytes([number << 3 | 5]) + struct.pack("<f", value)
    if isinstance(value, bytes):
        return bytes([number << 3 | 2]) + varint(len(value)) + value
    return bytes([number << 3]) + varint(value & (1 << 64) - 1)


def varint(value: int) -> bytes:
    data = b""
    while value > 0x7F:
        data += bytes([value & 0x7F | 0x80])
        value >>= 7
    return data + bytes([value])


def result_file(run: Any) -> bytes:
    us, warm = run.regular_us, run.warmup_us
    times = [
        *(printer.average(us), min(us), max(us), printer.deviation(us)),
        *(printer.percentile(us, percent) for percent in (50, 5, 95)),
        *(run.init_us, warm[0] if warm else 0, printer.average(warm)),
    ]
    latency = b"".join(field(n, float(v) / 1000) for n, v in enumerate(times, start=1))
    memory = field(1, run.init_kb) + field(2, run.overall_kb)
    if run.peak_mb is not None:
        memory += field(3, float(run.peak_mb))
    misc = field(1, run.size_bytes / 1e6) + field(2, len(us)) + field(3, len(warm)) + field(4, 1.5)
    return field(2, latency) + field(3, memory) + field(4, misc)


Row = tuple[str, str, float, int]


def check_operators(
    told: Sequence[OperatorTime], true: Sequence[Row], total_ms: float, *, csv: bool
) -> None:
    """Same operators in the same order; times within the rounding of a call's average."""
    assert [(one.name, one.type, one.calls) for one in told] == [
        (name, type_, calls) for name, type_, _, calls in true
    ]
    for one, (name, _, ms, calls) in zip(told, true, strict=True):
        # A share of 0.001 % is the other rounding, of operators that some runs leave out.
        step = max(calls, 1) * (ms * 5e-6 if csv else 0.0005)
        slack = step + 2e-5 * total_ms + 1e-9
        assert math.isclose(one.ms, ms, abs_tol=slack), f"{name}: {one.ms} in place of {ms}"


def check_profile(told: Profile, profile: Any, *, csv: bool = False) -> None:
    true = profile_printer.expected(profile.operators, profile.runs)
    total_ms = sum(ms for _, _, ms, _ in true)
    check_operators(told.operators, true, total_ms, csv=csv)
    assert told.total_ms == pytest.approx(total_ms, rel=6e-6)
    summed = math.fsum(one.ms for one in told.operators)
    calls = sum(max(one.calls, 1) for one in told.operators)
    assert summed == pytest.approx(told.total_ms, abs=0.0005 * calls + 1e-4 * total_ms)
    check_operators(told.initialization, profile_printer.expected(profile.initial, 1), 0, csv=csv)
    for graph in told.subgraphs.values():
        check_operators(
            graph, profile_printer.expected(profile.subgraph, profile.runs), total_ms, csv=csv
        )
    assert len(told.subgraphs) == bool(profile.subgraph)
    internal = profile_printer.expected(profile.internal, profile.runs)
    check_operators(told.delegate_internals, internal, total_ms, csv=csv)
