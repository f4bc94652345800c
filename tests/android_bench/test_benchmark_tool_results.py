"""litert-benchmark's JSON, logcats, and output that is too long or made to hang a reader."""

import contextlib
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from android_bench import benchmark_tool
from android_bench.benchmark_tool import ParseError, StartOptions, Tool
from android_bench.benchmark_tool.log_lines import MAX_SIZE
from tests.android_bench import tool_samples

XNNPACK = "classic_litert_head/xnn_true.txt"
GRAPH = "/data/local/data/local/tmp/model.tflite"


def litert_json(**changes: Any) -> dict[str, Any]:
    latency = {
        "init_ms": 7.5,
        "warmup_first_ms": 0.6,
        "warmup_avg_ms": 0.5,
        "num_warmup_runs": 3,
        "avg_ms": 0.55,
        "min_ms": 0.5,
        "max_ms": 0.8,
        "median_ms": 0.52,
        "std_ms": 0.09,
        "p5_ms": 0.5,
        "p95_ms": 0.75,
        "num_runs": 20,
    }
    whole = {"model": "/m.tflite", "accelerators": ["CPU"], "fully_accelerated": True}
    latency.update({name: value for name, value in changes.items() if name in latency})
    whole.update({name: value for name, value in changes.items() if name in whole})
    return {**whole, "latency": latency}


def in_use(report: Mapping[str, Any], requested: str | None) -> str:
    result = benchmark_tool.parse_result_json(json.dumps(report))
    found = benchmark_tool.combine(result.delegations)
    return benchmark_tool.in_use(found, requested, whole=requested == "gpu")


def test_the_json_of_litert_benchmark_is_read() -> None:
    result = benchmark_tool.parse_result_json(json.dumps(litert_json()))
    assert (result.median_ms, result.p5_ms, result.p95_ms, result.runs) == (0.52, 0.5, 0.75, 20)
    assert (result.init_ms, result.first_ms) == (7.5, 0.6)


@pytest.mark.parametrize(
    ("accelerators", "full", "requested", "ran"),
    [
        (["CPU"], True, None, "xnnpack"),
        (["CPU"], False, None, "unknown"),  # some of it, or nothing
        (["CPU"], True, "gpu", "the tool does not report it"),
        (["GPU"], True, "gpu", "gpu"),
        (["GPU"], False, "gpu", "the delegate gpu left operators to the CPU"),
        (["GPU", "CPU"], True, "gpu", "the tool does not report it"),
    ],
)
def test_litert_benchmark_s_figures_are_only_those_of_a_delegate_that_ran(
    accelerators: list[str], full: bool, requested: str | None, ran: str
) -> None:
    report = litert_json(accelerators=accelerators, fully_accelerated=full)
    if " " not in ran:
        assert in_use(report, requested) == ran
    else:
        with pytest.raises(ParseError, match=ran):
            in_use(report, requested)


@pytest.mark.parametrize(
    "change",
    [
        {"num_runs": 0},
        {"median_ms": None},
        {"avg_ms": float("nan")},
        {"min_ms": -1},
        {"median_ms": 0.4},  # below the minimum
        {"num_runs": 10**400},
        {"p95_ms": "9" * 5000},
    ],
)
def test_json_without_a_figure_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ParseError):
        benchmark_tool.parse_result_json(json.dumps(litert_json(**change)))


def test_json_cut_off_anywhere_is_refused() -> None:
    text = json.dumps(litert_json(), indent=2)
    numbers = text.replace("0.52", "9" * 5000)
    for damaged in ("[" * 100_000, "[]", "null", '{"latency": 3}', numbers):
        with pytest.raises(ParseError):
            benchmark_tool.parse_result_json(damaged)
    for length in range(len(text)):
        with pytest.raises(ParseError, match="cut off or lacks a figure"):
            benchmark_tool.parse_result_json(text[:length])


@pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_litert.tools") is None
    or importlib.util.find_spec("ai_edge_litert.tools.benchmark_litert_model") is None,
    reason="this ai-edge-litert has no litert-benchmark",
)
@pytest.mark.parametrize("kind", ["float", "int8"])
def test_the_real_litert_benchmark_takes_our_flags_and_is_understood(
    toys: Mapping[str, Path], tmp_path: Path, kind: str
) -> None:
    written = tmp_path / "result.json"
    options = StartOptions(runs=12, warmup=2, delegate="xnnpack", result_file=str(written))
    words = benchmark_tool.flags(Tool.LITERT_BENCHMARK, str(toys[kind]), options)
    command = [sys.executable, "-m", "ai_edge_litert.tools.benchmark_litert_model", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=True)
    result = benchmark_tool.parse_result_json(written.read_text())
    assert result.runs == 12
    assert f"Inference (median):    {result.median_ms:.2f} ms" in done.stdout
    assert f"Inference (p95):       {result.p95_ms:.2f} ms" in done.stdout
    found = benchmark_tool.combine(result.delegations)
    assert benchmark_tool.in_use(found, "xnnpack") == "xnnpack"


@pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_litert.tools") is None,
    reason="this ai-edge-litert has no litert-benchmark",
)
def test_the_real_litert_benchmark_s_reason_is_kept(unrunnable: Path) -> None:
    command = [sys.executable, "-m", "ai_edge_litert.tools.benchmark_litert_model"]
    done = subprocess.run(
        [*command, f"--model={unrunnable}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 1
    assert benchmark_tool.failure(done.stdout).startswith("RuntimeError: CompiledModel error: ")


# Logcats


def logcat(text: str, *, pid: int, tag: str = "tflite") -> str:
    """As Android logs what the tool inside the app prints."""
    head = f"07-14 13:14:57.521 {pid:5} {pid:5} I {tag:8}: "
    return "".join(head + line.removeprefix("INFO: ") + "\n" for line in text.splitlines())


@pytest.mark.parametrize("name", [XNNPACK, "compiled_model_2.2/cpu.txt", "classic_2.20/gpu.txt"])
def test_of_several_processes_the_last_with_our_model_counts(name: str) -> None:
    ours = tool_samples.text(name)
    other = tool_samples.text("classic_2.20/xnn_true.txt").replace(GRAPH, "/other.tflite")
    log = logcat(other, pid=1) + logcat(ours, pid=2) + logcat(other, pid=3)
    log += "07-14 13:14:58.500  999  999 I chatty  : count=5 first=1 curr=2\n"
    log += "07-14 13:14:58.500  999  999 E AndroidRuntime: FATAL EXCEPTION: main\n"  # another app's
    assert benchmark_tool.parse(log, graph=GRAPH) == benchmark_tool.parse(ours)
    with pytest.raises(ParseError, match=r"expected a run of /d\.tflite, got several of other"):
        benchmark_tool.parse(log, graph="/d.tflite")


@pytest.mark.parametrize(
    "crash", ["F libc    : Fatal signal 11 (SIGSEGV)", "E AndroidRuntime: FATAL EXCEPTION: main"]
)
def test_a_crash_of_the_app_is_a_failure(crash: str) -> None:
    log = logcat(tool_samples.text(XNNPACK), pid=4321)
    with pytest.raises(ParseError, match="the tool failed: F"):
        benchmark_tool.parse(f"{log}07-14 13:15:05.001  4321  4399 {crash}\n", graph=GRAPH)


# Streams


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r\r\n"])
def test_line_ends_and_mixed_streams_are_no_matter(line_end: str) -> None:
    text = tool_samples.text(XNNPACK)
    without = text.replace("INFO: ", "")  # as up to TF 2.8
    for mixed in (text, without, text.replace("INFO: Created", "INFO: INFO: Created")):
        damaged = mixed.replace("\n", line_end)
        assert benchmark_tool.parse(damaged) == benchmark_tool.parse(text)


def test_lines_that_the_reader_does_not_need_are_ignored() -> None:
    text = tool_samples.text(XNNPACK)
    noise = "Created 1 GPU delegate kernels.\nRSS count=1 avg=9\n1,2,3\nReplacing something\n"
    noisy = text.replace("STARTING!\n", f"STARTING!\n{noise}")
    assert benchmark_tool.parse(noisy) == benchmark_tool.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the output of benchmark_model, got none"),
        ("sh: benchmark_model: not found\n", "expected the output of benchmark_model, got none"),
        ("INFO: Graph: [/a]\nSegmentation fault\n", "the tool failed: Segmentation fault"),
        ("INFO: Graph: [/a]\n", "holds no inference timings"),
        ("INFO: Graph: [/a]", "cut off within its last line"),
    ],
)
def test_each_failure_is_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        benchmark_tool.parse(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("what(): bad\nAborted\n", "what(): bad"),
        ("ERROR: x\nERROR: x\nERROR: y\nsh: line 1:   77 Killed   ./tool\n", "x; y"),
        ("Segmentation fault (core dumped)\n", "Segmentation fault (core dumped)"),
        ("", ""),
    ],
)
def test_the_reason_is_the_tool_s_not_the_shell_s(text: str, reason: str) -> None:
    assert benchmark_tool.failure(text) == reason


def hostile() -> dict[str, str]:
    text = tool_samples.text("compiled_model_2.2/prof_mb_float.tflite.txt")
    return {
        "too long": "x" * (MAX_SIZE + 1),
        "banners": "========== BENCHMARK RESULTS ==========\n" * 40_000,
        "statistics": "count=1 curr=1\n" * 100_000,
        "short lines": "a\n" * (MAX_SIZE // 4),
        "a long line": f"INFO: {'=' * (MAX_SIZE - 100)}\n",
        "blanks": f"INFO: Graph: [{' ' * (MAX_SIZE - 100)}\n",
        "brackets": f"INFO: {'[a' * (MAX_SIZE // 2 - 100)}\n",
        "digits": text.replace("count=7", f"count={'7' * 5000}"),
        "a long time": text.replace("5.87 ms", f"{'9' * 100_000}.87 ms"),
        "a long row": text.replace("0.323", "0.323" + " \t" * 500_000, 1),
        "a number in a row": text.replace("[Delegate]:0", "0.000 " * 200_000, 1),
        "tags": "07-14 13:14:57.521 1 1 I tflite: " * 50_000 + "\n",
    }


@pytest.mark.parametrize("name", hostile())
def test_hostile_output_is_an_error_or_a_figure_within_seconds(name: str) -> None:
    text = hostile()[name]
    start = time.process_time()
    for read in (benchmark_tool.parse, benchmark_tool.parse_profile):
        with contextlib.suppress(ParseError):
            read(text)
    assert len(benchmark_tool.failure(text)) <= 500
    assert time.process_time() - start < 20  # hung, not slow


def test_hostile_protos_are_refused_within_seconds() -> None:
    start = time.process_time()
    for data in (
        b"\x0a" * MAX_SIZE,
        b"\xff" * 1000,
        b"\x12\xff\xff\xff\xff\x0f",
        b"\x12\x02\x1a\x00" * 100_000,
        bytes(MAX_SIZE + 1),
    ):
        for read in (
            benchmark_tool.parse_result_proto,
            benchmark_tool.parse_profile_proto,
            benchmark_tool.parse_runtime_info_proto,
        ):
            with contextlib.suppress(ParseError):
                assert read(data).undelegated == {}  # of a graph without operators
    assert time.process_time() - start < 20
