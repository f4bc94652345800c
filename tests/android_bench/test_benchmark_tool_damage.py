"""Damaged output of the benchmark tools: read right, or refused."""

import math
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from android_bench import benchmark_tool
from android_bench.benchmark_tool import ParseError, Result
from tests.android_bench.outputs import printer, profile_printer
from tests.android_bench.printed import APPLIED, check, close, result_file

ONCE = ("median_ms", "p5_ms", "p95_ms", "min_ms", "max_ms", "std_ms", "runs", "warmup_runs")
ONCE += ("init_memory_mb", "memory_mb", "peak_memory_mb", "model_size_mb")


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
            told = benchmark_tool.check_delegate(result, asked)
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
        shown: list[str] = []
        if not version.logcat and rng.random() < 0.2:
            profile = profile_printer.random_profile(rng, runs=count if litert else None)
            shown = profile_printer.profile_lines(profile, version)
        lines = printer.text(run, version, profile=shown).splitlines(keepends=True)
        for _ in range(rng.choice([1, 1, 2, 3])):
            lines = rng.choice(MUTATIONS)(rng, lines) or ["\n"]
        try:
            result = benchmark_tool.parse("".join(lines))
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
        file = benchmark_tool.parse_result_proto(result_file(run))
        check(
            benchmark_tool.agree(benchmark_tool.parse(printer.text(run, version)), file),
            truth,
            version,
        )
        try:
            result = benchmark_tool.parse(damage_digit(rng, printer.text(run, version)))
            for name, true in truth.items():
                if name not in (*ONCE, "graph", "init_ms") and true is not None:
                    # The second copy of the CompiledModel tool has two decimals.
                    slack = 0.0102 if version.compiled else 1e-9
                    told = getattr(result, name)
                    assert math.isclose(told, true, rel_tol=1.1e-5, abs_tol=slack), name
            result = benchmark_tool.agree(result, file)
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
            benchmark_tool.parse(text)
