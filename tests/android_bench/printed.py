"""What the benchmark tools print and write for tests, and checks of how it was read."""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from android_bench.benchmark_tool import ToolResult
from android_bench.measurement import OperatorTime
from tests.android_bench.outputs import printer, profile_printer

OUTPUTS = Path(__file__).with_name("outputs")

TRUTH = json.loads((OUTPUTS / "truth.json").read_text())


def close(name: str, value: Any, true: Any, version: Any) -> bool:
    """Whether a value is the true one, to the precision of that version's output."""
    if value is None or isinstance(true, str) or true is None:
        return bool(value == true)
    two_decimals = version.compiled and ("memory" in name or name == "init_ms")
    return math.isclose(value, true, rel_tol=5.1e-6, abs_tol=0.00501 if two_decimals else 1e-9)


def check(result: ToolResult, truth: Mapping[str, Any], version: Any) -> None:
    for name, true in truth.items():
        value = getattr(result, name)
        assert close(name, value, true, version), f"{name}: {value} in place of {true}"


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
    operators: Sequence[OperatorTime], true: Sequence[Row], total_ms: float, *, csv: bool
) -> None:
    """Same operators in the same order; times within the rounding of a call's average."""
    assert [(one.name, one.type, one.calls) for one in operators] == [
        (name, type_, calls) for name, type_, _, calls in true
    ]
    for one, (name, _, ms, calls) in zip(operators, true, strict=True):
        # A share of 0.001 % is the other rounding, of operators that some runs leave out.
        step = max(calls, 1) * (ms * 5e-6 if csv else 0.0005)
        slack = step + 2e-5 * total_ms + 1e-9
        assert math.isclose(one.ms, ms, abs_tol=slack), f"{name}: {one.ms} in place of {ms}"


def check_profile(operators: Sequence[OperatorTime], profile: Any, *, csv: bool = False) -> None:
    """Asserts that the operators are those of the primary graph in the regular runs."""
    expected = profile_printer.expected(profile.operators, profile.runs)
    total_ms = sum(ms for _, _, ms, _ in expected)
    check_operators(operators, expected, total_ms, csv=csv)
    calls = sum(max(one.calls, 1) for one in operators)
    slack_ms = 0.0005 * calls + 1e-4 * total_ms
    assert math.fsum(one.ms for one in operators) == pytest.approx(total_ms, abs=slack_ms)
