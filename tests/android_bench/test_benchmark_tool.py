"""Output of the benchmark tools, as an independent printer writes it."""

import random
from dataclasses import replace
from typing import Any

import pytest

from android_bench import benchmark_tool
from android_bench.benchmark_tool import Delegate, ParseError, Tool
from tests.android_bench.outputs import corpus, printer
from tests.android_bench.printed import OUTPUTS, TRUTH, check

TEXTS = sorted(name for name in TRUTH if name.endswith(".txt"))


def delegates(run: Any, version: Any) -> tuple[Delegate, ...]:
    """What the output of that version reports of the delegate."""
    if version.compiled or run.delegate in (None, "unknown_flag"):
        return ()
    kernels = {"declined": 0, "unavailable": None}.get(run.outcome, run.kernels)
    if version.applied == "old" and run.outcome == "partial":
        kernels = None
    return (Delegate(run.delegate, run.outcome, kernels),)


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
        streams = printer.lines(run, version)
        for order in (("out", "err"), ("err", "out")):
            lines = [line for stream in order for one, line in streams if one == stream]
            text = (
                printer.logcat(lines, version, pid=7)
                if version.logcat
                else "".join(line + line_end for line in lines)
            )
            check(benchmark_tool.parse(text), printer.truth(run, version), version)


def test_values_that_are_not_reported_are_none() -> None:
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


# Logcats


@pytest.mark.parametrize("name", ["apk_threadtime", "apk_time", "apk_compiled_model"])
def test_of_several_processes_the_last_with_our_model_counts(name: str) -> None:
    version, rng = printer.VERSIONS[name], random.Random(3)
    runs = [
        replace(printer.random_run(rng), graph=f"/data/local/tmp/{graph}.tflite")
        for graph in ("a", "b", "a", "c")
    ]
    text = "".join(printer.text(run, version, pid=100 + pid) for pid, run in enumerate(runs))
    for graph, index in {"a": 2, "b": 1, "c": 3}.items():
        result = benchmark_tool.parse(text, graph=f"/data/local/tmp/{graph}.tflite")
        check(result, printer.truth(runs[index], version), version)
    for graph in ("/data/local/tmp/d.tflite", None):
        with pytest.raises(ParseError, match=f"expected one run of {graph}, got 4"):
            benchmark_tool.parse(text, graph=graph)
    with pytest.raises(ParseError, match=r"expected a run of /d, got one of /data/local/tmp/a\."):
        benchmark_tool.parse(printer.text(runs[0], version), graph="/d")


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
            "INFO: STARTING!\n" + "ERROR: Run failed: x\n" * 9 + "ERROR: Benchmarking failed.\n",
            "the tool failed: Run failed: x; Benchmarking failed.",
        ),
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


@pytest.mark.parametrize("name", printer.VERSIONS)
def test_output_that_ends_too_early_is_refused(name: str) -> None:
    version = printer.VERSIONS[name]
    text = printer.text(printer.random_run(random.Random(7)), version)
    figures = max(text.rindex(word) for word in ("nference", "====") if word in text)
    for length in range(0, text.rindex("\n", 0, figures) + 1, 9):
        with pytest.raises(ParseError):
            benchmark_tool.parse(text[:length])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("count=50 first=5000", "count=50 first=-5000", "got 1 lines of statistics"),
        ("avg=5400 ", "avg=nan ", "got 1 lines of statistics"),
        ("avg=5400 ", "", "got 1 lines of statistics"),
        ("count=50 first", "count=1 curr=9000\ncount=50 first", "got 3 lines of statistics"),
        ("count=50 first=5000 curr=5500 min=5000 max=6000 avg=5400 std=400", "count=0", "timed no"),
        ("Inference timings", "Timings", "holds no inference timings"),
    ],
)
def test_a_figure_that_is_missing_or_impossible_is_refused(
    old: str, new: str, message: str
) -> None:
    assert old in SMALL
    benchmark_tool.parse(SMALL)
    assert message in parse_error(SMALL.replace(old, new, 1))


def test_lines_that_the_reader_does_not_need_are_ignored() -> None:
    noise = "Created 1 GPU delegate kernels.\nRSS count=1 avg=9\n1,2,3\nReplacing something\n"
    assert benchmark_tool.parse(SMALL.replace("STARTING!\n", f"STARTING!\n{noise}")) == (
        benchmark_tool.parse(SMALL)
    )


@pytest.mark.parametrize("folder", ["./litert/tools/", ".\\litert/tools/"])
def test_the_source_file_of_a_log_line_may_have_folders(folder: str) -> None:
    version = printer.VERSIONS["compiled_model2.2"]
    run = printer.random_run(random.Random(4))
    text = printer.text(run, version).replace("[benchmark_litert", f"[{folder}benchmark_litert")
    check(benchmark_tool.parse(text), printer.truth(run, version), version)


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
@pytest.mark.parametrize("delegate", ["gpu", "nnapi", "xnnpack"])
def test_figures_are_only_those_of_a_delegate_that_ran(
    name: str, outcome: str | None, delegate: str
) -> None:
    version = printer.VERSIONS[name]
    run = printer.random_run(random.Random(6))
    run = replace(run, delegate=delegate, outcome=outcome, kernels=3)
    result = benchmark_tool.parse(printer.text(run, version))
    applied = ("whole",) if version.compiled and delegate != "xnnpack" else ("whole", "partial")
    if version.compiled and delegate == "xnnpack":
        if outcome in ("declined", "unavailable"):
            return
        applied = (outcome,)  # the line on its creation is enough
    if outcome in applied:
        assert benchmark_tool.check_delegate(result, delegate).outcome == outcome
    else:
        with pytest.raises(ParseError, match="delegate"):
            benchmark_tool.check_delegate(result, delegate)
    for other in {"gpu", "nnapi", "xnnpack"} - {delegate}:
        if other != "xnnpack" or not version.compiled:
            with pytest.raises(ParseError, match="delegate"):
                benchmark_tool.check_delegate(result, other)


def test_a_delegate_may_take_the_whole_graph() -> None:
    run = replace(printer.random_run(random.Random(6)), delegate="xnnpack", outcome="whole")
    text = printer.text(run, printer.VERSIONS["litert1.1"])
    assert "for subgraph 0 (main)." in text
    result = benchmark_tool.parse(text.replace("for subgraph 0 (main)", "for the whole graph"))
    assert (result.replacements[0].nodes, result.replacements[0].of) == (60, 60)
    assert benchmark_tool.check_delegate(result, "xnnpack").outcome == "whole"


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
    with pytest.raises(ParseError, match="the tool does not report it"):
        benchmark_tool.check_delegate(result, "gpu")
    assert benchmark_tool.check_delegate(result, "gpu", full_required=True).outcome == "whole"


def test_no_delegate_means_none() -> None:
    run = replace(printer.random_run(random.Random(6)), delegate=None)
    text = printer.text(run, printer.VERSIONS["litert1.1"])
    with pytest.raises(ParseError, match="expected no delegate, but xnnpack ran"):
        benchmark_tool.check_delegate(benchmark_tool.parse(text), "none")
    silent = text.replace("INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n", "")
    assert benchmark_tool.check_delegate(benchmark_tool.parse(silent), "none").kernels == 0
