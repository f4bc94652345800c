"""Result files of the benchmark tools."""

import importlib.util
import json
import random
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from android_bench import benchmark_tool
from android_bench.benchmark_tool import ParseError, StartOptions, Tool
from tests.android_bench.outputs import printer
from tests.android_bench.printed import check, result_file


def test_the_result_file_holds_the_same_as_the_output() -> None:
    rng = random.Random(7)
    version = printer.VERSIONS["litert2.2"]
    for _ in range(200):
        run = printer.random_run(rng)
        file = benchmark_tool.parse_result_proto(result_file(run))
        truth = printer.truth(run, version)
        assert file.tool is None
        for name, true in truth.items():
            if name != "graph" and true is not None:
                assert getattr(file, name) == pytest.approx(true, rel=1e-7)
        result = benchmark_tool.merge(benchmark_tool.parse(printer.text(run, version)), file)
        check(result, truth, version)


def test_the_result_file_fills_in_what_the_output_lacks() -> None:
    run = replace(printer.random_run(random.Random(9)), regular_us=[5, 7, 9, 12])
    run = replace(run, regular_loop=(4, 0, 150))
    printed = benchmark_tool.parse(printer.text(run, printer.VERSIONS["tf2.12"]))
    file = benchmark_tool.parse_result_proto(result_file(run))
    assert printed.median_ms is None
    assert benchmark_tool.merge(printed, file).median_ms == pytest.approx(0.009)


def test_a_result_file_of_another_run_is_refused() -> None:
    rng = random.Random(8)
    one, other = printer.random_run(rng), printer.random_run(rng)
    printed = benchmark_tool.parse(printer.text(one, printer.VERSIONS["litert1.1"]))
    with pytest.raises(ParseError, match="they are of different runs"):
        benchmark_tool.merge(printed, benchmark_tool.parse_result_proto(result_file(other)))


def test_a_result_file_cut_off_anywhere_is_refused() -> None:
    data = result_file(printer.random_run(random.Random(8)))
    for length in range(len(data)):
        with pytest.raises(ParseError):
            benchmark_tool.parse_result_proto(data[:length])


# litert-benchmark


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
    whole = {
        "model": "/m.tflite",
        "model_size_mb": 1.5,
        "accelerators": ["CPU"],
        "fully_accelerated": True,
    }
    latency.update({name: value for name, value in changes.items() if name in latency})
    whole.update({name: value for name, value in changes.items() if name in whole})
    return {**whole, "latency": latency}


def test_the_json_of_litert_benchmark_is_read() -> None:
    result = benchmark_tool.parse_result_json(json.dumps(litert_json()))
    assert (result.median_ms, result.p5_ms, result.p95_ms, result.runs) == (0.52, 0.5, 0.75, 20)
    assert result.model_size_mb == pytest.approx(1.5 * 1.048576)
    assert benchmark_tool.check_delegate(result, "xnnpack").outcome == "whole"
    with pytest.raises(ParseError, match="the tool does not report it"):
        benchmark_tool.check_delegate(result, "gpu")


@pytest.mark.parametrize(
    ("accelerators", "full", "good"),
    [(["GPU"], True, True), (["GPU"], False, False), (["GPU", "CPU"], True, False)],
)
def test_gpu_figures_with_possible_help_of_the_cpu_are_refused(
    accelerators: list[str], full: bool, good: bool
) -> None:
    text = json.dumps(litert_json(accelerators=accelerators, fully_accelerated=full))
    result = benchmark_tool.parse_result_json(text)
    if good:
        assert benchmark_tool.check_delegate(result, "gpu").outcome == "whole"
    else:
        with pytest.raises(ParseError, match="the delegate gpu"):
            benchmark_tool.check_delegate(result, "gpu")


@pytest.mark.parametrize(
    "change", [{"num_runs": 0}, {"median_ms": None}, {"avg_ms": float("nan")}, {"min_ms": -1}]
)
def test_json_without_a_figure_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ParseError):
        benchmark_tool.parse_result_json(json.dumps(litert_json(**change)))


def test_json_cut_off_anywhere_is_refused() -> None:
    text = json.dumps(litert_json(), indent=2)
    for length in range(len(text)):
        with pytest.raises(ParseError, match="cut off or lacks a figure"):
            benchmark_tool.parse_result_json(text[:length])
    for damaged in ("[" * 100_000, "[]", "null", '{"latency": 3}'):
        with pytest.raises(ParseError):
            benchmark_tool.parse_result_json(damaged)


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
    assert (result.runs, result.warmup_runs, result.graph) == (12, 2, str(toys[kind]))
    assert result.accelerators == ("CPU",)
    assert f"Inference (median):    {result.median_ms:.2f} ms" in done.stdout
    assert f"Inference (p95):       {result.p95_ms:.2f} ms" in done.stdout
    benchmark_tool.check_delegate(result, "xnnpack")
    with pytest.raises(ParseError, match="--result_json"):
        benchmark_tool.parse(done.stdout)
