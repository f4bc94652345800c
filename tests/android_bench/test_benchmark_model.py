import dataclasses
import importlib.util
import json
import math
import random
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from android_bench import benchmark_model
from android_bench.benchmark_model import Delegate, ParseError, Result, Tool
from android_bench.targets import TargetError
from keras_models.errors import InputError

OUTPUTS = Path(__file__).with_name("outputs")
SPEC = importlib.util.spec_from_file_location("benchmark_printer", OUTPUTS / "printer.py")
printer = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = printer
SPEC.loader.exec_module(printer)

TRUTH = json.loads((OUTPUTS / "truth.json").read_text())
TEXTS = sorted(name for name in TRUTH if name.endswith(".txt"))
APPLIED = ("whole", "partial")
ONCE = ("median_ms", "p5_ms", "p95_ms", "min_ms", "max_ms", "std_ms", "runs", "warmup_runs")
ONCE += ("init_memory_mb", "memory_mb", "peak_memory_mb", "model_size_mb")


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
    result = benchmark_model.parse((OUTPUTS / name).read_bytes().decode())
    check(result, truth, version)
    assert result.tool is (Tool.COMPILED_MODEL if version.compiled else Tool.CLASSIC)
    if outcome:
        assert [(one.name, one.outcome) for one in result.delegates] == (
            [] if version.compiled else [(delegate, outcome)]
        )


def test_the_corpus_is_what_the_printer_prints() -> None:
    for name, content in printer.corpus().items():
        assert (OUTPUTS / name).read_bytes().decode() == content


@pytest.mark.parametrize("name", printer.VERSIONS)
def test_parse_returns_what_was_printed(name: str) -> None:
    version = printer.VERSIONS[name]
    rng = random.Random(name)
    for _ in range(60):
        run = printer.random_run(rng)
        result = benchmark_model.parse(printer.text(run, version))
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
            check(benchmark_model.parse(text), printer.truth(run, version), version)


def test_values_that_were_not_told_are_none() -> None:
    run = replace(printer.random_run(random.Random(1)), warmup_us=[], warmup_loop=(0, 0, 150))
    run = replace(run, regular_us=[5, 7, 9], regular_loop=(3, 0, 150), peak_mb=None)
    result = benchmark_model.parse(printer.text(run, printer.VERSIONS["tf2.8"]))
    assert (result.median_ms, result.p5_ms, result.p95_ms) == (None, None, None)
    assert (result.first_ms, result.warmup_ms, result.warmup_runs) == (None, None, 0)
    assert result.peak_memory_mb is None


def test_equal_durations_have_known_percentiles_in_every_version() -> None:
    run = replace(printer.random_run(random.Random(1)), regular_us=[1_240_273] * 7)
    run = replace(run, regular_loop=(7, 0, 150))
    result = benchmark_model.parse(printer.text(run, printer.VERSIONS["tf2.8"]))
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
        result = benchmark_model.parse(text, graph=f"/data/local/tmp/{graph}.tflite")
        check(result, printer.truth(runs[index], version), version)
    with pytest.raises(ParseError, match=r"found no run of /data/local/tmp/d\.tflite"):
        benchmark_model.parse(text, graph="/data/local/tmp/d.tflite")
    with pytest.raises(ParseError, match="expected one run, found 4"):
        benchmark_model.parse(text)


@pytest.mark.parametrize("name", ["apk_threadtime", "apk_compiled_model"])
def test_an_earlier_run_is_never_taken_for_one_that_has_only_begun(name: str) -> None:
    version, run = printer.VERSIONS[name], printer.random_run(random.Random(4))
    whole, again = printer.text(run, version, pid=5), printer.text(run, version, pid=6)
    lines = again.splitlines(keepends=True)
    lacking_nothing_of_value = next(i for i, line in enumerate(lines) if "Inference" in line) + 9
    for kept in range(2, min(lacking_nothing_of_value, len(lines)) - 9):
        with pytest.raises(ParseError):
            benchmark_model.parse(whole + "".join(lines[:kept]), graph=run.graph)


def test_other_apps_in_the_logcat_do_not_count() -> None:
    version, run = printer.VERSIONS["apk_threadtime"], printer.random_run(random.Random(4))
    other = "11-02 08:15:04.500  999  999 I chatty  : count=5 first=1 curr=2\n"
    crash = "11-02 08:15:04.500  999  999 E AndroidRuntime: FATAL EXCEPTION: main\n"
    lines = printer.text(run, version).splitlines(keepends=True)
    text = "".join(line + other for line in lines) + crash
    check(benchmark_model.parse(text), printer.truth(run, version), version)


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
        benchmark_model.parse(printer.text(run, version) + crash, graph=run.graph)


# Failures


def parse_error(text: str) -> str:
    with pytest.raises(ParseError) as caught:
        benchmark_model.parse(text)
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
    benchmark_model.parse(SMALL)
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
    result = benchmark_model.parse(printer.text(run, version))
    refused = outcome not in (("whole",) if version.compiled and asked != "xnnpack" else APPLIED)
    if version.compiled and asked == "xnnpack":
        refused = outcome in ("declined", "unavailable")  # else its creation is told
        if refused:
            return
    if refused:
        with pytest.raises(ParseError, match="delegate"):
            benchmark_model.check_delegate(result, asked)
    else:
        assert benchmark_model.check_delegate(result, asked).outcome in (*APPLIED, None)
    for other in {"gpu", "nnapi", "xnnpack"} - {asked}:
        if other != "xnnpack" or not version.compiled:
            with pytest.raises(ParseError, match="delegate"):
                benchmark_model.check_delegate(result, other)


def test_a_flag_the_tool_does_not_know_is_no_delegate() -> None:
    run = replace(printer.random_run(random.Random(6)), delegate="unknown_flag")
    for version in printer.VERSIONS.values():
        result = benchmark_model.parse(printer.text(run, version))
        for full_required in (False, True):
            with pytest.raises(ParseError, match="does not know --use_gpu=true"):
                benchmark_model.check_delegate(result, "gpu", full_required=full_required)


def test_a_path_in_an_unknown_flag_is_no_delegate() -> None:
    result = benchmark_model.parse(
        SMALL + "Use xnnpack: [1]\nUnconsumed cmdline flags: --result_file_path=/home/xnnpack/r\n"
        "Explicitly applied XNNPACK delegate, and the model graph will be completely executed by"
        " the delegate.\n"
    )
    assert result.unconsumed == ("--result_file_path=/home/xnnpack/r",)
    assert benchmark_model.check_delegate(result, "xnnpack").outcome == "whole"


def test_the_compiled_model_tool_proves_itself_where_the_cpu_was_forbidden() -> None:
    run = replace(printer.random_run(random.Random(6)), delegate=None)
    text = printer.text(run, printer.VERSIONS["compiled_model2.2"])
    result = benchmark_model.parse(text.replace("Created TensorFlow Lite XNNPACK", "Made"))
    with pytest.raises(ParseError, match="nothing says it was applied"):
        benchmark_model.check_delegate(result, "gpu")
    assert benchmark_model.check_delegate(result, "gpu", full_required=True).outcome == "whole"


def test_no_delegate_means_none() -> None:
    run = replace(printer.random_run(random.Random(6)), delegate=None)
    text = printer.text(run, printer.VERSIONS["litert1.1"])
    with pytest.raises(ParseError, match="expected no delegate, but xnnpack ran"):
        benchmark_model.check_delegate(benchmark_model.parse(text), "none")
    silent = text.replace("INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n", "")
    assert benchmark_model.check_delegate(benchmark_model.parse(silent), "none").kernels == 0


# Damage


TELLING = re.compile(r"count=|Running|timings|MB|session|delegate|Inference|Warmup|Use |Graph")


def pick(rng: random.Random, lines: list[str]) -> int:
    """A line, most often one that is of consequence."""
    telling = [index for index, line in enumerate(lines) if TELLING.search(line)]
    return rng.choice(telling) if telling and rng.random() < 0.8 else rng.randrange(len(lines))


def spot(rng: random.Random, lines: list[str]) -> int:
    """A place in the text, most often in such a line."""
    index = pick(rng, lines)
    return len("".join(lines[:index])) + rng.randrange(len(lines[index]) + 1)


def drop(rng: random.Random, lines: list[str]) -> list[str]:
    index = pick(rng, lines)
    return lines[:index] + lines[index + 1 :]


def duplicate(rng: random.Random, lines: list[str]) -> list[str]:
    index, place = pick(rng, lines), rng.randrange(len(lines))
    return [*lines[:place], lines[index], *lines[place:]]


def move(rng: random.Random, lines: list[str]) -> list[str]:
    line = lines[pick(rng, lines)]
    lines = [one for one in lines if one is not line]
    place = rng.randrange(len(lines) + 1)
    return [*lines[:place], line, *lines[place:]]


def swap(rng: random.Random, lines: list[str]) -> list[str]:
    one, other = pick(rng, lines), pick(rng, lines)
    lines = lines[:]
    lines[one], lines[other] = lines[other], lines[one]
    return lines


def swap_statistics(rng: random.Random, lines: list[str]) -> list[str]:
    places = [index for index, line in enumerate(lines) if "count=" in line]
    if len(places) > 1:
        lines = lines[:]
        lines[places[0]], lines[places[1]] = lines[places[1]], lines[places[0]]
    return lines


def truncate(rng: random.Random, lines: list[str]) -> list[str]:
    return "".join(lines)[: spot(rng, lines)].splitlines(keepends=True)


def cut_start(rng: random.Random, lines: list[str]) -> list[str]:
    return "".join(lines)[spot(rng, lines) :].splitlines(keepends=True)


def mix(rng: random.Random, lines: list[str]) -> list[str]:
    """A line of the other stream gets in between, or into the middle of a line."""
    noise = rng.choice(
        [
            "INFO: Created TensorFlow Lite delegate for GPU.\n",
            "WARNING: linker: something\n",
            "INFO: ",
            "ERROR: Following operations are not supported by GPU delegate:\n",
        ]
    )
    index = pick(rng, lines)
    place = rng.choice([0, rng.randrange(len(lines[index]) + 1)])
    mixed = lines[index][:place] + noise + lines[index][place:]
    return "".join([*lines[:index], mixed, *lines[index + 1 :]]).splitlines(keepends=True)


def join(rng: random.Random, lines: list[str]) -> list[str]:
    index = pick(rng, lines)
    joined = [*lines[:index], lines[index].rstrip("\r\n"), *lines[index + 1 :]]
    return "".join(joined).splitlines(keepends=True)


def sprinkle(rng: random.Random, lines: list[str]) -> list[str]:
    """Bytes that are not part of a number, between or in place of others."""
    text, place = "".join(lines), spot(rng, lines)
    junk = "".join(rng.choice("\0\x07\t ,:=%[]()ABxyz\r\n\u0663\u00b2é\ufffd") for _ in range(2))
    gone = rng.randrange(2) if not text[place : place + 1].isdigit() else 0
    return (text[:place] + junk + text[place + gone :]).splitlines(keepends=True)


def damage_digit(rng: random.Random, text: str) -> str:
    lines = [line for line in text.splitlines(keepends=True) if TELLING.search(line)]
    line = rng.choice([line for line in lines if any(sign.isdigit() for sign in line)])
    start = text.index(line)
    place = start + rng.choice([place for place, sign in enumerate(line) if sign.isdigit()])
    digit = rng.choice([sign for sign in "0123456789" if sign != text[place]])
    return (
        text[:place]
        + rng.choice([digit, digit, "", digit + text[place], "-", "."])
        + text[place + 1 :]
    )


MUTATIONS: list[Callable[..., list[str]]] = [
    *(drop, duplicate, move, swap, swap_statistics, truncate, cut_start, mix, join, sprinkle)
]


def accuses(result: Result, run: Any, truth: Mapping[str, Any], version: Any) -> None:
    """Asserts that nothing in a result is wrong; what was lost may be None."""
    for name, true in truth.items():
        told = getattr(result, name)
        if told is None or name == "graph":  # a name of any letters, and no figure
            continue
        # The CompiledModel tool tells the warm-up from the rest by two decimals only.
        alike = version.compiled and name.endswith("_ms") and true is not None
        if not (alike and abs(told - true) < 0.0102):
            assert close(name, told, true, version), f"{name}: {told} in place of {true}"
    for asked in ("gpu", "nnapi", "xnnpack"):
        try:
            told = benchmark_model.check_delegate(result, asked)
        except ParseError:
            continue
        default = asked == "xnnpack" and version.compiled
        assert default or (run.delegate == asked and run.outcome in APPLIED)
        assert default or told.outcome == run.outcome


def mutate_text(cases: int, seed: int) -> int:
    rng = random.Random(seed)
    survived = 0
    versions = list(printer.VERSIONS.values())
    for _ in range(cases):
        version, run = rng.choice(versions), printer.random_run(rng)
        litert = version.profile in ("2.1.6", "2.2")
        count = len(run.warmup_us) + len(run.regular_us)
        profile = None
        if not version.logcat and rng.random() < 0.2:
            profile = printer.random_profile(rng, runs=count if litert else None)
        lines = printer.text(run, version, profile=profile).splitlines(keepends=True)
        for _ in range(rng.choice([1, 1, 2, 3])):
            lines = rng.choice(MUTATIONS)(rng, lines) or ["\n"]
        try:
            result = benchmark_model.parse("".join(lines))
        except ParseError:
            continue
        survived += 1
        accuses(result, run, printer.truth(run, version), version)
    return survived


def mutate_digits(cases: int, seed: int) -> int:
    """One damaged number: found by the second copy, or by the result file."""
    rng = random.Random(seed)
    survived = 0
    versions = [version for version in printer.VERSIONS.values() if version.percentiles]
    for _ in range(cases):
        version, run = rng.choice(versions), printer.random_run(rng)
        truth = printer.truth(run, version)
        file = benchmark_model.parse_result_proto(result_file(run))
        check(
            benchmark_model.agree(benchmark_model.parse(printer.text(run, version)), file),
            truth,
            version,
        )
        try:
            result = benchmark_model.parse(damage_digit(rng, printer.text(run, version)))
            for name, true in truth.items():
                if name not in (*ONCE, "graph", "init_ms") and true is not None:
                    # The second copy of the CompiledModel tool has two decimals.
                    slack = 0.0102 if version.compiled else 1e-9
                    told = getattr(result, name)
                    assert math.isclose(told, true, rel_tol=1.1e-5, abs_tol=slack), name
            result = benchmark_model.agree(result, file)
        except ParseError:
            continue
        survived += 1
        for name, true in truth.items():
            if name != "graph":
                told = getattr(result, name)
                two = version.compiled and "memory" in name
                assert told == true or math.isclose(
                    told, true, rel_tol=1.2e-5, abs_tol=0.011 if two else 1e-9
                ), f"{name}: {told} in place of {true}"
    return survived


def test_damaged_output_is_right_or_an_error() -> None:
    assert mutate_text(400, seed=1) > 40


def test_a_damaged_number_is_found_by_its_second_copy_or_the_result_file() -> None:
    assert mutate_digits(200, seed=2) > 20


@pytest.mark.slow
def test_much_damaged_output_is_right_or_an_error() -> None:
    assert mutate_text(9000, seed=3) > 900


@pytest.mark.slow
def test_many_damaged_numbers_are_found_by_their_second_copy_or_the_result_file() -> None:
    assert mutate_digits(4000, seed=4) > 400


@pytest.mark.slow
def test_random_text_is_an_error() -> None:
    rng = random.Random(5)
    words = ["count=", "first=", "avg=", "INFO:", "Graph: [x]", "Inference timings in us:"]
    words += ["12", "3.5", "\n", "\r\n", "\t", "%", "====", "STARTING!", "Use gpu: [1]"]
    for _ in range(2000):
        text = " ".join(rng.choice(words) for _ in range(rng.randrange(60))) + "\n"
        with pytest.raises(ParseError):
            benchmark_model.parse(text)


# Result files


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


def test_the_result_file_holds_the_same_as_the_output() -> None:
    rng = random.Random(7)
    version = printer.VERSIONS["litert2.2"]
    for _ in range(200):
        run = printer.random_run(rng)
        file = benchmark_model.parse_result_proto(result_file(run))
        truth = printer.truth(run, version)
        assert file.tool is None
        for name, true in truth.items():
            if name != "graph" and true is not None:
                assert getattr(file, name) == pytest.approx(true, rel=1e-7)
        result = benchmark_model.agree(benchmark_model.parse(printer.text(run, version)), file)
        check(result, truth, version)


def test_the_result_file_fills_in_what_the_output_lacks() -> None:
    run = replace(printer.random_run(random.Random(9)), regular_us=[5, 7, 9, 12])
    run = replace(run, regular_loop=(4, 0, 150))
    printed = benchmark_model.parse(printer.text(run, printer.VERSIONS["tf2.12"]))
    file = benchmark_model.parse_result_proto(result_file(run))
    assert printed.median_ms is None
    assert benchmark_model.agree(printed, file).median_ms == pytest.approx(0.009)


def test_a_result_file_of_another_run_is_refused() -> None:
    rng = random.Random(8)
    one, other = printer.random_run(rng), printer.random_run(rng)
    printed = benchmark_model.parse(printer.text(one, printer.VERSIONS["litert1.1"]))
    with pytest.raises(ParseError, match="not of one run, or one of them is damaged"):
        benchmark_model.agree(printed, benchmark_model.parse_result_proto(result_file(other)))


def test_a_result_file_cut_off_anywhere_is_refused() -> None:
    data = result_file(printer.random_run(random.Random(8)))
    for length in range(len(data)):
        with pytest.raises(ParseError):
            benchmark_model.parse_result_proto(data[:length])


def test_a_damaged_result_file_breaks_nothing_else() -> None:
    rng = random.Random(9)
    version = printer.VERSIONS["litert1.1"]
    for _ in range(1000):
        run = printer.random_run(rng)
        data = bytearray(result_file(run))
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        printed = benchmark_model.parse(printer.text(run, version))
        try:
            result = benchmark_model.agree(printed, benchmark_model.parse_result_proto(bytes(data)))
        except ParseError:
            continue
        check(result, printer.truth(run, version), version)


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
    result = benchmark_model.parse_result_json(json.dumps(litert_json()))
    assert (result.median_ms, result.p5_ms, result.p95_ms, result.runs) == (0.52, 0.5, 0.75, 20)
    assert result.model_size_mb == pytest.approx(1.5 * 1.048576)
    assert benchmark_model.check_delegate(result, "xnnpack").outcome == "whole"
    with pytest.raises(ParseError, match="nothing says it was applied"):
        benchmark_model.check_delegate(result, "gpu")


@pytest.mark.parametrize(
    ("accelerators", "full", "good"),
    [(["GPU"], True, True), (["GPU"], False, False), (["GPU", "CPU"], True, False)],
)
def test_a_gpu_that_the_cpu_could_help_is_not_believed(
    accelerators: list[str], full: bool, good: bool
) -> None:
    text = json.dumps(litert_json(accelerators=accelerators, fully_accelerated=full))
    result = benchmark_model.parse_result_json(text)
    if good:
        assert benchmark_model.check_delegate(result, "gpu").outcome == "whole"
    else:
        with pytest.raises(ParseError, match="the delegate gpu"):
            benchmark_model.check_delegate(result, "gpu")


@pytest.mark.parametrize(
    "change",
    [
        *({"median_ms": 0.9}, {"avg_ms": 5.5}, {"p5_ms": 0.4}, {"num_runs": 0}, {"std_ms": 0.9}),
        *({"median_ms": "0.52"}, {"avg_ms": float("nan")}, {"min_ms": -1}, {"num_runs": True}),
        *({"warmup_first_ms": 3.0}, {"accelerators": [1]}, {"fully_accelerated": 1}),
    ],
)
def test_json_that_contradicts_itself_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ParseError, match=r"litert-benchmark|an average|a deviation"):
        benchmark_model.parse_result_json(json.dumps(litert_json(**change)))


def test_json_cut_off_anywhere_is_refused() -> None:
    text = json.dumps(litert_json(), indent=2)
    for length in range(len(text)):
        with pytest.raises(ParseError, match="cut off or damaged"):
            benchmark_model.parse_result_json(text[:length])
    for damaged in ("[" * 100_000, "[]", "null", '{"latency": 3}'):
        with pytest.raises(ParseError):
            benchmark_model.parse_result_json(damaged)


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
    words = benchmark_model.flags(
        Tool.LITERT_BENCHMARK,
        str(toys[kind]),
        runs=12,
        warmup=2,
        delegate="xnnpack",
        result_file=str(written),
    )
    command = [sys.executable, "-m", "ai_edge_litert.tools.benchmark_litert_model", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    result = benchmark_model.parse_result_json(written.read_text())
    assert (result.runs, result.warmup_runs, result.graph) == (12, 2, str(toys[kind]))
    assert result.accelerators == ("CPU",)
    assert f"Inference (median):    {result.median_ms:.2f} ms" in done.stdout
    assert f"Inference (p95):       {result.p95_ms:.2f} ms" in done.stdout
    benchmark_model.check_delegate(result, "xnnpack")
    with pytest.raises(ParseError, match="--result_json"):
        benchmark_model.parse(done.stdout)


# Flags


def test_flags_of_the_classic_tool() -> None:
    words = benchmark_model.flags(
        Tool.CLASSIC,
        "/data/local/tmp/a b; rm -rf $HOME.tflite",
        runs=10,
        warmup=3,
        threads=4,
        delegate="gpu",
        profile="csv",
        profile_file="/t/p.csv",
        result_file="/t/r.pb",
        runtime_info_file="/t/i.pb",
        peak_memory=True,
        max_seconds=60,
    )
    assert words[0] == "--graph=/data/local/tmp/a b; rm -rf $HOME.tflite"
    assert set(words[1:]) == {
        "--num_threads=4",
        "--num_runs=10",
        "--warmup_runs=3",
        "--min_secs=0",
        "--warmup_min_secs=0",
        "--report_peak_memory_footprint=true",
        "--max_secs=60",
        "--use_gpu=true",
        "--enable_op_profiling=true",
        "--max_profiling_buffer_entries=65536",
        "--op_profiling_output_mode=csv",
        "--op_profiling_output_file=/t/p.csv",
        "--profiling_output_csv_file=/t/p.csv",
        "--result_file_path=/t/r.pb",
        "--model_runtime_info_output_file=/t/i.pb",
        "--export_model_runtime_info=true",
    }


def test_the_warm_up_lasts_as_long_as_asked_for_or_as_the_tool_likes() -> None:
    for seconds, expected in ((2.5, ["--warmup_min_secs=2.5"]), (None, [])):
        words = benchmark_model.flags(Tool.CLASSIC, "/m", runs=1, warmup=0, warmup_seconds=seconds)
        assert [word for word in words if "warmup_min_secs" in word] == expected


def test_the_deprecated_csv_flag_does_not_overrule_a_proto() -> None:
    words = benchmark_model.flags(
        Tool.CLASSIC, "/m", runs=1, warmup=0, profile="proto", profile_file="/t/p.pb"
    )
    assert not [word for word in words if "csv" in word]


def test_the_compiled_model_tool_keeps_the_cpu_out_only_by_both_flags() -> None:
    words = benchmark_model.flags(
        Tool.COMPILED_MODEL, "/m", runs=5, warmup=1, delegate="gpu", profile="text"
    )
    assert {"--use_gpu=true", "--use_cpu=false", "--require_full_delegation=true"} < set(words)
    assert "--use_profiler=true" in words


def test_a_path_that_looks_like_a_handle_stays_a_path() -> None:
    assert "--graph=./fd:3:0:9" in benchmark_model.flags(Tool.CLASSIC, "fd:3:0:9", runs=1, warmup=0)


@pytest.mark.parametrize(
    ("tool", "change", "message"),
    [
        (Tool.CLASSIC, {"delegate": "tpu"}, "has no delegate 'tpu'. It has none, xnnpack, gpu"),
        (Tool.COMPILED_MODEL, {"delegate": "nnapi"}, "has no delegate 'nnapi'"),
        (Tool.LITERT_BENCHMARK, {"delegate": "none"}, "It has xnnpack, gpu"),
        (Tool.CLASSIC, {"runs": 0}, "runs and threads of 1 or more"),
        (Tool.CLASSIC, {"profile": "csv"}, "needs profile_file"),
        (Tool.CLASSIC, {"profile_file": "/p"}, "needs profile_file"),
        (Tool.COMPILED_MODEL, {"profile": "csv", "profile_file": "/p"}, "only as text"),
        (Tool.LITERT_BENCHMARK, {"profile": "text"}, "has no profile"),
        (Tool.LITERT_BENCHMARK, {"warmup_seconds": 0.5}, "seconds of warm-up"),
        (Tool.LITERT_BENCHMARK, {"peak_memory": True}, "peak of memory"),
        (Tool.CLASSIC, {"result_file": "a\nb"}, "expected a path in one line"),
    ],
)
def test_what_a_tool_cannot_do_is_refused(tool: Tool, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        benchmark_model.flags(tool, "/m", **{"runs": 5, "warmup": 1, **change})
    assert message in str(caught.value)


def test_a_parse_error_is_a_target_error() -> None:
    assert issubclass(ParseError, TargetError)
    assert dataclasses.is_dataclass(Result)


def test_a_number_that_no_tool_counts_to_is_refused() -> None:
    with pytest.raises(ParseError, match="lacks 'num_runs', or it is 1000"):
        benchmark_model.parse_result_json(json.dumps(litert_json(num_runs=10**400)))


def test_a_line_that_no_tool_prints_is_refused() -> None:
    for parse in (benchmark_model.parse, benchmark_model.parse_profile):
        with pytest.raises(ParseError, match="has a line of 30001 letters, which no tool prints"):
            parse("a" + " " * 30_000 + "\n")
