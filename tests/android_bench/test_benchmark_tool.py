"""Output of the benchmark tools, printed by an oracle and read again."""

import dataclasses
import random
from dataclasses import replace
from typing import Any

import pytest

from android_bench import benchmark_tool
from android_bench.benchmark_tool import Delegate, ParseError, Result, Tool
from android_bench.measurement import TargetError
from tests.android_bench.outputs import corpus, printer
from tests.android_bench.printed import APPLIED, OUTPUTS, TRUTH, check

TEXTS = sorted(name for name in TRUTH if name.endswith(".txt"))


def delegates(run: Any, version: Any) -> tuple[Delegate, ...]:
    """What the output of that version tells of the delegate asked for."""
    if version.compiled or run.delegate in (None, "unknown_flag"):
        return ()
    kernels = {"declined": 0, "unavailable": None}.get(run.outcome, run.kernels)
    if version.applied == "old" and run.outcome == "partial":
        kernels = None
    return (Delegate(run.delegate, True, run.outcome, kernels),)


@pytest.mark.parametrize("name", TEXTS)
def test_parse_reads_the_corpus(name: str) -> None:
    version = printer.VERSIONS[name.removesuffix(".txt")]
    truth = dict(TRUTH[name])
    delegate, outcome, _ = truth.pop("delegate")
    truth.pop("profile")
    result = benchmark_tool.parse((OUTPUTS / name).read_bytes().decode())
    check(result, truth, version)
    assert result.tool is (Tool.COMPILED_MODEL if version.compiled else Tool.CLASSIC)
    if outcome:
        assert [(one.name, one.outcome) for one in result.delegates] == (
            [] if version.compiled else [(delegate, outcome)]
        )


def test_the_corpus_is_what_the_printer_prints() -> None:
    for name, content in corpus.corpus().items():
        assert (OUTPUTS / name).read_bytes().decode() == content


@pytest.mark.parametrize("name", printer.VERSIONS)
def test_parse_returns_what_was_printed(name: str) -> None:
    version = printer.VERSIONS[name]
    rng = random.Random(name)
    for _ in range(60):
        run = printer.random_run(rng)
        result = benchmark_tool.parse(printer.text(run, version))
        check(result, printer.truth(run, version), version)
        assert result.delegates == delegates(run, version)
        assert result.unconsumed == (("--use_gpu=true",) if run.delegate == "unknown_flag" else ())


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r\r\n"])
def test_parse_takes_both_orders_of_the_streams(line_end: str) -> None:
    rng = random.Random(5)
    for version in printer.VERSIONS.values():
        run = printer.random_run(rng)
        said = printer.lines(run, version)
        for order in (("out", "err"), ("err", "out")):
            lines = [line for stream in order for one, line in said if one == stream]
            text = (
                printer.logcat(lines, version, pid=7)
                if version.logcat
                else "".join(line + line_end for line in lines)
            )
            check(benchmark_tool.parse(text), printer.truth(run, version), version)


def test_values_that_were_not_told_are_none() -> None:
    run = replace(printer.random_run(random.Random(1)), warmup_us=[], warmup_loop=(0, 0, 150))
    run = replace(run, regular_us=[5, 7, 9], regular_loop=(3, 0, 150), peak_mb=None)
    result = benchmark_tool.parse(printer.text(run, printer.VERSIONS["tf2.8"]))
    assert (result.median_ms, result.p5_ms, result.p95_ms) == (None, None, None)
    assert (result.first_ms, result.warmup_ms, result.warmup_runs) == (None, None, 0)
    assert result.peak_memory_mb is None


def test_equal_durations_have_known_percentiles_in_every_version() -> None:
    run = replace(printer.random_run(random.Random(1)), regular_us=[1_240_273] * 7)
    run = replace(run, regular_loop=(7, 0, 150))
    result = benchmark_tool.parse(printer.text(run, printer.VERSIONS["tf2.8"]))
    assert (result.p5_ms, result.median_ms, result.avg_ms) == (1240.273,) * 3
    assert result.std_ms == 0


# Several runs, as in a logcat


def logcat_of(runs: list[Any], version: Any, *, same_process: bool) -> str:
    return "".join(
        printer.text(run, version, pid=100 if same_process else 100 + number)
        for number, run in enumerate(runs)
    )


@pytest.mark.parametrize("name", ["apk_threadtime", "apk_time", "apk_compiled_model"])
@pytest.mark.parametrize("same_process", [True, False])
def test_of_several_runs_the_last_of_our_model_counts(name: str, same_process: bool) -> None:
    version, rng = printer.VERSIONS[name], random.Random(3)
    runs = [
        replace(printer.random_run(rng), graph=f"/data/local/tmp/{graph}.tflite")
        for graph in ("a", "b", "a", "c")
    ]
    text = logcat_of(runs, version, same_process=same_process)
    for graph, index in {"a": 2, "b": 1, "c": 3}.items():
        result = benchmark_tool.parse(text, graph=f"/data/local/tmp/{graph}.tflite")
        check(result, printer.truth(runs[index], version), version)
    with pytest.raises(ParseError, match=r"found no run of /data/local/tmp/d\.tflite"):
        benchmark_tool.parse(text, graph="/data/local/tmp/d.tflite")
    with pytest.raises(ParseError, match="expected one run, found 4"):
        benchmark_tool.parse(text)


@pytest.mark.parametrize("name", ["apk_threadtime", "apk_compiled_model"])
def test_an_earlier_run_is_never_taken_for_one_that_has_only_begun(name: str) -> None:
    version, run = printer.VERSIONS[name], printer.random_run(random.Random(4))
    whole, again = printer.text(run, version, pid=5), printer.text(run, version, pid=6)
    lines = again.splitlines(keepends=True)
    lacking_nothing_of_value = next(i for i, line in enumerate(lines) if "Inference" in line) + 9
    for kept in range(2, min(lacking_nothing_of_value, len(lines)) - 9):
        with pytest.raises(ParseError):
            benchmark_tool.parse(whole + "".join(lines[:kept]), graph=run.graph)


def test_other_apps_in_the_logcat_do_not_count() -> None:
    version, run = printer.VERSIONS["apk_threadtime"], printer.random_run(random.Random(4))
    other = "11-02 08:15:04.500  999  999 I chatty  : count=5 first=1 curr=2\n"
    crash = "11-02 08:15:04.500  999  999 E AndroidRuntime: FATAL EXCEPTION: main\n"
    lines = printer.text(run, version).splitlines(keepends=True)
    text = "".join(line + other for line in lines) + crash
    check(benchmark_tool.parse(text), printer.truth(run, version), version)


@pytest.mark.parametrize(
    "crash",
    [
        "11-02 08:15:05.001  4321  4399 F libc    : Fatal signal 11 (SIGSEGV), code 1\n",
        "11-02 08:15:05.001  4321  4321 E AndroidRuntime: FATAL EXCEPTION: main\n",
        "11-02 08:15:05.001  4321  4321 E tflite  : Benchmarking failed.\n",
    ],
)
def test_a_crash_of_the_app_is_a_failure(crash: str) -> None:
    version, run = printer.VERSIONS["apk_threadtime"], printer.random_run(random.Random(4))
    with pytest.raises(ParseError, match="the tool failed: "):
        benchmark_tool.parse(printer.text(run, version) + crash, graph=run.graph)


# Failures


def parse_error(text: str) -> str:
    with pytest.raises(ParseError) as caught:
        benchmark_tool.parse(text)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) <= 500
    return message


def test_a_failed_inference_is_a_failure_although_times_are_printed() -> None:
    run = printer.random_run(random.Random(2))
    text = printer.text(run, printer.VERSIONS["litert1.1"])
    text += "ERROR: Node number 31 (TfLiteNnapiDelegate) failed to invoke.\n"
    assert parse_error(text).endswith("Node number 31 (TfLiteNnapiDelegate) failed to invoke.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the output of benchmark_model, got none"),
        ("sh: benchmark_model: not found\n", "expected the output of benchmark_model, got none"),
        (
            "INFO: STARTING!\nERROR: Failed to load model /a.tflite\nERROR: Benchmarking failed.\n",
            "the tool failed: Failed to load model /a.tflite; Benchmarking failed.",
        ),
        ("FATAL: The created delegate is nullptr!\n", "the tool failed: The created delegate"),
        ("STARTING!\nFailed to apply GPU delegate.\n", "the tool failed: Failed to apply GPU"),
        ("INFO: Graph: [/a]\nSegmentation fault\n", "the tool failed: Segmentation fault"),
        ("INFO: Graph: [/a]\n", "holds no inference timings"),
        ("INFO: Graph: [/a]", "cut off within its last line"),
        ("========\n BENCHMARK RESULTS\n========\n", "read its --result_json instead"),
    ],
)
def test_each_failure_is_one_clear_line(text: str, message: str) -> None:
    assert message in parse_error(text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("avg=5400", "avg=9999", "avg=9999 is none of 50 values"),
        ("p95=5900", "p95=5300", "out of order"),
        ("median=5400", "median=5880", "too far from"),
        ("count=50 ", "count=5 ", "though 50 were announced"),
        ("min=5000", "min=5600", "values beyond min=5600"),
        ("Inference (avg): 5400", "Inference (avg): 5401", "average is 5400 or 5401 us"),
        ("First inference: 9000", "First inference: 8000", "took 9000 or 8000 us"),
        ("Init: 4000,", "Init: 4100,", "took 4 ms or 4.1 ms"),
        ("Graph: [/m]", "Graph: [/n]", "two models"),
        ("std=400", "std=401 p5", "cut off or damaged"),
        ("std=400", "std=2", "std=2 is too little"),
        ("std=400", "std=900", "std=900 is too much"),
        ("count=50 first=5000", "count=50\nfirst=5000", "contradicts itself"),
        ("count=1 curr=9000", "count=2 curr=9000", "contradicts itself"),
        ("STARTING!", "STARTING!\nUse gpu: [0]\nThough GPU delegate is explicitly applied, the"
         " model graph will not be executed by the delegate.", "was not asked for"),
    ],
)  # fmt: skip
def test_contradictions_are_found(old: str, new: str, message: str) -> None:
    assert old in SMALL
    benchmark_tool.parse(SMALL)
    assert message in parse_error(SMALL.replace(old, new, 1))


SMALL = """\
STARTING!
Min num runs: [50]
Graph: [/m]
Loaded model /m
Initialized session in 4ms.
Running benchmark for at least 1 iterations and at least 0 seconds but terminate if exceeding 150 seconds.
count=1 curr=9000

Running benchmark for at least 50 iterations and at least 0 seconds but terminate if exceeding 150 seconds.
count=50 first=5000 curr=5500 min=5000 max=6000 avg=5400 std=400 p5=5010 median=5400 p95=5900

Inference timings in us: Init: 4000, First inference: 9000, Warmup (avg): 9000, Inference (avg): 5400
"""  # noqa: E501


# Delegates


@pytest.mark.parametrize("name", printer.VERSIONS)
@pytest.mark.parametrize("outcome", ["whole", "partial", "declined", "unavailable", None])
@pytest.mark.parametrize("asked", ["gpu", "nnapi", "xnnpack"])
def test_only_what_a_delegate_ran_is_its_figure(name: str, outcome: str | None, asked: str) -> None:
    version = printer.VERSIONS[name]
    run = replace(printer.random_run(random.Random(6)), delegate=asked, outcome=outcome, kernels=3)
    result = benchmark_tool.parse(printer.text(run, version))
    refused = outcome not in (("whole",) if version.compiled and asked != "xnnpack" else APPLIED)
    if version.compiled and asked == "xnnpack":
        refused = outcome in ("declined", "unavailable")  # else its creation is told
        if refused:
            return
    if refused:
        with pytest.raises(ParseError, match="delegate"):
            benchmark_tool.check_delegate(result, asked)
    else:
        assert benchmark_tool.check_delegate(result, asked).outcome in (*APPLIED, None)
    for other in {"gpu", "nnapi", "xnnpack"} - {asked}:
        if other != "xnnpack" or not version.compiled:
            with pytest.raises(ParseError, match="delegate"):
                benchmark_tool.check_delegate(result, other)


def test_a_flag_the_tool_does_not_know_is_no_delegate() -> None:
    run = replace(printer.random_run(random.Random(6)), delegate="unknown_flag")
    for version in printer.VERSIONS.values():
        result = benchmark_tool.parse(printer.text(run, version))
        for full_required in (False, True):
            with pytest.raises(ParseError, match="does not know --use_gpu=true"):
                benchmark_tool.check_delegate(result, "gpu", full_required=full_required)


def test_a_path_in_an_unknown_flag_is_no_delegate() -> None:
    result = benchmark_tool.parse(
        SMALL + "Use xnnpack: [1]\nUnconsumed cmdline flags: --result_file_path=/home/xnnpack/r\n"
        "Explicitly applied XNNPACK delegate, and the model graph will be completely executed by"
        " the delegate.\n"
    )
    assert result.unconsumed == ("--result_file_path=/home/xnnpack/r",)
    assert benchmark_tool.check_delegate(result, "xnnpack").outcome == "whole"


def test_the_compiled_model_tool_proves_itself_where_the_cpu_was_forbidden() -> None:
    run = replace(printer.random_run(random.Random(6)), delegate=None)
    text = printer.text(run, printer.VERSIONS["compiled_model2.2"])
    result = benchmark_tool.parse(text.replace("Created TensorFlow Lite XNNPACK", "Made"))
    with pytest.raises(ParseError, match="nothing says it was applied"):
        benchmark_tool.check_delegate(result, "gpu")
    assert benchmark_tool.check_delegate(result, "gpu", full_required=True).outcome == "whole"


def test_no_delegate_means_none() -> None:
    run = replace(printer.random_run(random.Random(6)), delegate=None)
    text = printer.text(run, printer.VERSIONS["litert1.1"])
    with pytest.raises(ParseError, match="expected no delegate, but xnnpack ran"):
        benchmark_tool.check_delegate(benchmark_tool.parse(text), "none")
    silent = text.replace("INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n", "")
    assert benchmark_tool.check_delegate(benchmark_tool.parse(silent), "none").kernels == 0


def test_a_parse_error_is_a_target_error() -> None:
    assert issubclass(ParseError, TargetError)
    assert dataclasses.is_dataclass(Result)


def test_a_line_that_no_tool_prints_is_refused() -> None:
    for parse in (benchmark_tool.parse, benchmark_tool.parse_profile):
        with pytest.raises(ParseError, match="has a line of 30001 letters, which no tool prints"):
            parse("a" + " " * 30_000 + "\n")
