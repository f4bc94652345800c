"""Damaged output of real benchmark tools: the right figure or an error, never another figure."""

import contextlib
import random
import re
from collections.abc import Mapping

import pytest

from android_bench import benchmark_tool
from android_bench.benchmark_tool import ParseError, Tool, ToolResult
from android_bench.benchmark_tool.result import FIGURES
from android_bench.measurement import OperatorTime
from tests.android_bench import tool_samples

SAMPLES = tool_samples.samples()
TEXTS = [name for name in SAMPLES if name.endswith(".txt")]
KINDS = ("cut", "duplicate", "drop", "swap", "digit", "letter")
# Printed once, so that another digit is another figure for any reader of the output alone.  The
# result file tells them apart.
PRINTED_ONCE = {"median_ms", "p5_ms", "p95_ms", "memory_mb", "peak_memory_mb", "runs"}


def damage(text: str, kind: str, rng: random.Random) -> str:
    """Damages a text in one place."""
    if kind == "cut":
        return text[: rng.randrange(len(text))]
    if kind in ("digit", "letter"):
        pattern = r"[0-9]" if kind == "digit" else r"[A-Za-z_]"
        # Half of them in the lines that hold figures: most of a text is a table or a heading.
        lines = list(re.finditer(r".*(?:count=|timings in us|footprint|applied).*", text))
        if lines and rng.random() < 0.5:
            start, end = rng.choice(lines).span()
        else:
            start, end = 0, len(text)
        places = [
            match.start() for match in re.finditer(pattern, text) if start <= match.start() < end
        ]
        at = rng.choice(places or [len(text) // 2])
        new = rng.choice(
            [c for c in ("0123456789" if kind == "digit" else "xQz_") if c != text[at]]
        )
        return text[:at] + new + text[at + 1 :]
    lines_ = text.splitlines(keepends=True)
    one, other = rng.randrange(len(lines_)), rng.randrange(len(lines_))
    if kind == "duplicate":
        lines_.insert(other, lines_[one])
    elif kind == "drop":
        del lines_[one]
    else:
        lines_[one], lines_[other] = lines_[other], lines_[one]
    return "".join(lines_)


def read(text: str) -> ToolResult | None:
    try:
        return benchmark_tool.parse(text)
    except ParseError:
        return None


def profile(text: str) -> list[OperatorTime] | None:
    try:
        return sorted(benchmark_tool.parse_profile(text), key=repr)
    except ParseError:
        return None


def figures(result: ToolResult) -> Mapping[str, float | None]:
    return {name: getattr(result, name) for name in FIGURES}


def check_figures(damaged: ToolResult, true: ToolResult, kind: str) -> None:
    wrong = {
        name for name, value in figures(damaged).items() if value not in (None, getattr(true, name))
    }
    if true.tool is Tool.COMPILED_MODEL and wrong == {"init_ms"}:
        # Its log has the time with more digits than the two decimals of its summary.
        assert damaged.init_ms == pytest.approx(true.init_ms, abs=0.0051)
        return
    if kind == "digit":
        unguarded = PRINTED_ONCE | ({"min_ms", "max_ms"} if true.median_ms is None else set())
        assert len(wrong) <= 1
        wrong -= unguarded
    assert not wrong


def check_delegate(damaged: ToolResult, true: ToolResult, kind: str) -> None:
    """Who ran is never another than in the sound output."""
    before, after = (benchmark_tool.combine(one.delegations) for one in (true, damaged))
    for requested in (None, "xnnpack", "gpu"):
        try:
            ran = benchmark_tool.in_use(after, requested)
        except ParseError:
            continue
        if ran != "unknown":
            assert ran == benchmark_tool.in_use(before, requested)
            if kind != "digit":
                assert after.partitions[ran] == before.partitions[ran]


def check_profile(damaged: str, true: list[OperatorTime], text: str, kind: str) -> None:
    rows = profile(damaged)
    if rows is None:
        return
    # A letter or digit of a name may be another; that of a type contradicts the summary by type.
    assert sorted((row.type, row.calls) for row in rows) == sorted(
        (row.type, row.calls) for row in true
    )
    # The sum of all is checked with the rounding of each operator to microseconds.
    slack = 0.0006 * (sum(row.calls for row in rows) + 1) if kind == "digit" else 1e-9
    for row, other in zip(
        sorted(row.ms for row in rows), sorted(row.ms for row in true), strict=True
    ):
        assert abs(row - other) <= slack
    known = benchmark_tool.of_profile(rows, delegate="xnnpack")
    assert known in ([], benchmark_tool.of_profile(true, delegate="xnnpack"))


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))]
)
def test_damaged_output_is_never_another_figure(seed: int) -> None:
    rng = random.Random(seed)
    kept = 0
    for _ in range(250):
        name, kind = rng.choice(TEXTS), rng.choice(KINDS)
        text = tool_samples.text(name)
        damaged = damage(text, kind, rng)
        true, result = read(text), read(damaged)
        if true is None:  # a failed run stays one
            assert result is None
            continue
        if result is None:
            continue
        kept += 1
        check_figures(result, true, kind)
        check_delegate(result, true, kind)
        rows = profile(text)
        if rows is not None:
            check_profile(damaged, rows, text, kind)
        file = SAMPLES.get(f"{name.removesuffix('_res.txt')}.result.pb")
        if file is not None:
            try:
                merged = benchmark_tool.merge(result, benchmark_tool.parse_result_proto(file))
            except ParseError:
                continue
            assert all(
                value in (None, pytest.approx(getattr(true, figure), rel=1e-6))
                for figure, value in figures(merged).items()
                if getattr(true, figure) is not None
            )
    assert kept > 50  # else the readers refuse all that has a mark


@pytest.mark.parametrize("name", [name for name in SAMPLES if name.endswith(".result.pb")])
def test_a_damaged_result_file_is_never_another_figure(name: str) -> None:
    data = SAMPLES[name]
    printed = benchmark_tool.parse(tool_samples.text(name.replace(".result.pb", "_res.txt")))
    true = benchmark_tool.merge(printed, benchmark_tool.parse_result_proto(data))
    for at in range(len(data)):
        with pytest.raises(ParseError):
            benchmark_tool.parse_result_proto(data[:at])
        for byte in (0, data[at] ^ 1, data[at] ^ 64, 255):
            damaged = bytes([*data[:at], byte, *data[at + 1 :]])
            try:
                merged = benchmark_tool.merge(printed, benchmark_tool.parse_result_proto(damaged))
            except ParseError:
                continue
            for figure, value in figures(merged).items():
                # No output without its flag reports the peak, so the file alone does.
                if value is not None and figure != "peak_memory_mb":
                    assert value == pytest.approx(getattr(true, figure), rel=1e-5), figure


@pytest.mark.parametrize(
    "name", [name for name in SAMPLES if name.endswith((".ri.pb", ".prof.pb"))]
)
def test_a_cut_or_damaged_proto_is_refused_or_read(name: str) -> None:
    data, rng = SAMPLES[name], random.Random(name)
    parse = (
        benchmark_tool.parse_runtime_info_proto
        if name.endswith(".ri.pb")
        else benchmark_tool.parse_profile_proto
    )
    parse(data)
    for _ in range(20):
        with pytest.raises(ParseError):
            parse(data[: rng.randrange(len(data))])
        at = rng.randrange(len(data))
        damaged = bytearray(data)
        damaged[at] = rng.randrange(256)
        with contextlib.suppress(ParseError):
            parse(bytes(damaged))


def test_sources_of_a_damaged_runtime_info_contradict_it_or_it_tells_the_same() -> None:
    start = "classic_litert_head/models_shufflenet_v1_g3.direct.tflite_xnn"
    (line,) = benchmark_tool.parse(tool_samples.text(f"{start}_res.txt")).delegations
    data, rng = SAMPLES[f"{start}.ri.pb"], random.Random(1)
    for _ in range(200):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] = rng.randrange(256)
        try:
            info = benchmark_tool.parse_runtime_info_proto(bytes(damaged))
            found = benchmark_tool.combine([line, info])
            assert benchmark_tool.in_use(found, None) == "xnnpack"
        except ParseError:
            continue
        assert found.partitions["xnnpack"] == 7
