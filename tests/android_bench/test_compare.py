"""What got slower: rows against earlier rows of the same environment."""

import dataclasses
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from android_bench import compare, measure, results, tables
from android_bench.compare import Comparison
from android_bench.measurement import Machine, Options
from android_bench.results import Row
from shufflelite.errors import InputError
from tests.android_bench.rows import row

BASE = row("base")


def timed(model: str = "base", *, ms: float, spread: float = 0.01, ratio_to: str = "base") -> Row:
    span = {"p5_ms": ms * (1 - spread), "median_ms": ms, "p95_ms": ms * (1 + spread)}
    return row(model, **span, ratio_to=ratio_to)


def related(ratio: float, *, spread: float = 0.01) -> Row:
    ends = {"ratio_p5": ratio * (1 - spread), "ratio_p95": ratio * (1 + spread)}
    return row("net", ratio=ratio, **ends)


def changed(one: Row) -> Row:
    """The model of another file."""
    return dataclasses.replace(one, sha256="of another file")


def counted(dot: int, load: int = 0, *, model: str = "net", target: str = "emulated:a53") -> Row:
    return row(model, instructions={"dot": dot, "load": load}, target=target)


def compared(before: list[Row], after: list[Row], limit: float = 0.05) -> Comparison:
    return compare.compare(before, after, limit=limit)


@pytest.mark.parametrize(("after", "slower"), [(1050, False), (1051, True), (900, False)])
def test_instructions_are_compared_exactly_and_over_all_classes(after: int, slower: bool) -> None:
    comparison = compared([counted(600, 400)], [counted(after - 500, 500)])
    (change,) = comparison.changes
    assert (change.metric, change.before, change.after) == ("instructions", 1000, after)
    assert change.growth == pytest.approx(after / 1000 - 1)
    assert (comparison.slower == [change]) is slower
    assert bool(comparison.slower) is slower


@pytest.mark.parametrize(
    ("before", "after", "spread", "slower"),
    [
        (2.0, 2.2, 0.01, True),
        (2.0, 2.2, 0.06, False),  # 2.068 now may be 2.12 then
        (2.0, 2.2, 0.03, False),  # slower, but perhaps by 3.6 %
        (2.0, 2.08, 0.001, False),  # apart, and below the limit
        (2.0, 1.5, 0.01, False),
    ],
)
def test_times_are_slower_only_if_the_rounds_agree_that_the_limit_is_exceeded(
    before: float, after: float, spread: float, slower: bool
) -> None:
    then, now = timed(ms=before, spread=spread), timed(ms=after, spread=spread)
    comparison = compared([then], [changed(now)])
    assert [change.metric for change in comparison.changes] == ["ms"]
    assert bool(comparison.slower) is slower
    assert not compared([then], [now]).slower  # of the same file it is the machine's


def test_ratios_to_the_same_file_are_compared_and_not_milliseconds() -> None:
    # The machine is half as fast today.
    before = [timed(ms=1.0), related(2.0)]
    base = timed(ms=2.0)
    comparison = compared(before, [base, changed(related(2.02))])
    assert [(c.model, c.metric) for c in comparison.changes] == [("base", "ms"), ("net", "ratio")]
    assert not comparison.slower
    assert [c.model for c in compared(before, [base, changed(related(2.2))]).slower] == ["net"]
    assert not compared(before, [base, changed(related(2.2, spread=0.1))]).slower


def test_another_runtime_is_compared_in_milliseconds_too() -> None:
    before = [timed(ms=1.0), related(2.0)]
    after = [dataclasses.replace(one, runtime_version="2.4") for one in (timed(ms=2.0), before[1])]
    assert [(c.model, c.metric) for c in compared(before, after).slower] == [("base", "ms")]


def rounds(*models: tuple[str, list[float]]) -> list[Row]:
    """The rows of a run, with the times of its rounds."""
    base = models[0][1]
    return [
        row(name, round_ms=ms, median_ms=float(np.median(ms)), **vars(_ratio(ms, base)))
        for name, ms in models
    ]


def _ratio(own: list[float], base: list[float]) -> measure.Ratio:
    p5, median, p95 = np.percentile(np.divide(own, base), (5, 50, 95))
    return measure.Ratio(median, p5, p95)


def test_a_file_that_has_not_changed_stands_in_for_a_reference_that_has() -> None:
    # Each round and the whole machine are noisy, the ratios of the rounds are not.
    before = rounds(("base", [1.0, 2.0, 3.0]), ("net", [2.0, 4.0, 6.0]))
    after = rounds(("base", [9.0, 6.0, 3.9]), ("net", [18.0, 12.0, 6.0]))
    comparison = compared(before, [changed(after[0]), after[1]])
    base = comparison.changes[0]
    assert (base.model, base.metric, base.before, base.after) == ("base", "ratio", 0.5, 0.5)
    assert not comparison.slower
    after = rounds(("base", [9.0, 6.0, 3.0]), ("net", [9.0, 6.0, 3.0]))
    assert [c.model for c in compared(before, [changed(after[0]), after[1]]).slower] == ["base"]


def test_one_round_proves_nothing() -> None:
    before, after = rounds(("base", [1.0])), rounds(("base", [9.0]))
    comparison = compared(before, [changed(after[0])])
    assert not comparison.slower
    assert comparison.verdict(comparison.changes[0]) == "uncertain"


@pytest.mark.parametrize("ms", [0.0, -1.0, float("nan"), float("inf"), 1e308, 5e-324])
def test_rounds_that_no_machine_measures_are_no_traceback(ms: float) -> None:
    plain = rounds(("base", [1.0, 2.0]), ("net", [1.0, 2.0]))
    damaged = [dataclasses.replace(one, round_ms=[ms, 1e-300], median_ms=ms) for one in plain]
    for before, after in ((plain, damaged), (damaged, plain), (damaged, damaged)):
        tables.comparison_table(compared(before, [after[0], changed(after[1])]))


def runs_of(
    factor: float, count: int, *, models: Sequence[tuple[int, int]] = ((1, 1), (2, 2))
) -> Iterator[tuple[list[Row], list[Row]]]:
    """Pairs of recorded runs; the second is of another file, which costs `factor` times more."""
    runs = json.loads((Path(__file__).parent / "recorded_rounds.json").read_text())["runs"]
    rng = random.Random(count)
    for _ in range(250):
        start = rng.randrange(len(runs[0][0]) - count + 1)
        before, after = (
            [model[start : start + count] for model in run] for run in rng.sample(runs, 2)
        )
        for old, new in models:
            slower = [factor * ms for ms in after[new]]
            now = rounds(("base", after[0]), ("net", slower))
            yield rounds(("base", before[0]), ("net", before[old])), [now[0], changed(now[1])]


@pytest.mark.parametrize(
    ("count", "factor", "least", "most"),
    [(20, 1.0, 0.0, 0.01), (6, 1.0, 0.0, 0.03), (20, 1.15, 0.9, 1.0), (6, 1.15, 0.75, 1.0)],
)
def test_on_a_busy_machine_what_is_slower_is_found_and_nothing_else(
    count: int, factor: float, least: float, most: float
) -> None:
    pairs = list(runs_of(factor, count))
    assert len(pairs) == 500
    called = [bool(compared(then, now, limit=0.05).slower) for then, now in pairs]
    assert least <= sum(called) / len(called) <= most


def test_on_a_busy_machine_a_larger_input_is_slower() -> None:
    pairs = list(runs_of(1.0, 6, models=[(1, 2)]))
    called = [bool(compared(then, now, limit=0.05).slower) for then, now in pairs]
    assert sum(called) >= 0.95 * len(called)


def test_milliseconds_are_compared_where_the_reference_is_another_file() -> None:
    before = [BASE, timed("net", ms=3.0)]
    after = [row("base", sha256="new"), timed("net", ms=3.3)]
    (change,) = [change for change in compared(before, after).changes if change.model == "net"]
    assert (change.metric, change.growth) == ("ms", pytest.approx(0.1))


def test_the_last_row_of_a_model_counts() -> None:
    assert not compared([counted(500), counted(1000)], [counted(2000), counted(1000)]).slower


def test_the_reference_of_a_row_is_the_one_before_it() -> None:
    # Two runs in one file, to two files of the same name: the second run's is its own.
    before = [row("base", sha256="old"), related(5.0), BASE, related(2.0)]
    comparison = compared(before, [BASE, related(2.0)])
    assert [(c.model, c.metric, c.growth) for c in comparison.changes][1] == ("net", "ratio", 0)


def test_what_has_no_counterpart_is_named() -> None:
    comparison = compared([BASE, row("gone"), counted(1)], [BASE, row("new")])
    assert comparison.missing == ["gone on host"]  # nothing was measured on the emulated core
    assert comparison.new == ["new on host"]
    assert not comparison.slower


@pytest.mark.parametrize(
    "other",
    [
        {"cpu": "Another CPU"},
        {"threads": 2},
        {"runtime": "tflite-runtime"},
        {"cores": [4, 5]},
        {"target": "ssh:pi@board"},
        {"fingerprint": "a phone"},
        {"delegate_asked": "gpu"},
    ],
)
def test_environments_that_differ_are_not_compared(other: dict[str, object]) -> None:
    with pytest.raises(
        InputError, match="expected rows of the same device, cores, runtime"
    ) as caught:
        compared([row("base", **other)], [BASE])
    expected, baseline = str(caught.value).split(", got those of ")  # which do not look alike
    assert expected.endswith("as host (Some CPU), litert, 1 thread, delegate xnnpack")
    assert baseline not in expected


def test_each_delegate_has_a_gate_of_its_own() -> None:
    before = [timed(ms=1.0), row("base", median_ms=9.0, delegate_asked="gpu")]
    comparison = compared(before, [changed(timed(ms=1.5))])
    assert [(change.before, change.after) for change in comparison.slower] == [(1.0, 1.5)]
    assert comparison.missing == []  # the gpu was not measured now
    with pytest.raises(InputError, match=r"delegate xnnpack, got those of .* delegate gpu"):
        compared(before[1:], [timed(ms=1.5)])


def test_a_phone_is_the_same_through_any_cable() -> None:
    phone = {"fingerprint": "maker/phone/1:14"}
    comparison = compared(
        [row("base", target="adb:1234", **phone)], [row("base", target="adb", **phone)]
    )
    assert len(comparison.changes) == 1


def test_a_core_is_the_same_after_its_runtime_was_upgraded_and_the_table_says_so() -> None:
    old = counted(1000)
    new = row("net", instructions={"dot": 1100}, runtime_version="2.4.0", fingerprint="other")
    comparison = compared([old], [new])
    assert comparison.slower
    assert comparison.differences == ["emulated:a53: runtime version was 2.3.0, is 2.4.0"]
    assert "runtime version was 2.3.0, is 2.4.0." in tables.comparison_table(comparison)
    with pytest.raises(InputError):
        compared([old], [counted(1000, target="emulated:a76")])


def test_another_instruction_set_explains_a_change_of_times() -> None:
    """Two machines may be "AMD EPYC", and one of them has no VNNI."""
    old, new = row("base", instruction_set="avx512-vnni"), row("base", instruction_set="avx2")
    (difference,) = compared([old], [new]).differences
    assert difference == "host: instruction set was avx512-vnni, is avx2"
    assert not compared([row("base")], [new]).differences  # not recorded: no difference is known


def test_a_baseline_of_other_models_is_refused_with_its_names() -> None:
    with pytest.raises(InputError, match=r"a row of three, by which name .* those of one, two"):
        compared([row("one"), row("two")], [row("three")])
    with pytest.raises(InputError, match="expected rows of an earlier run, got none"):
        compared([], [row("three")])
    many = [row(f"net{number}") for number in range(7)]
    with pytest.raises(InputError, match="net0, net1, net2, net3, net4 and 2 more"):
        compared(many, [row("three")])


def test_a_model_must_be_in_the_environment_where_it_is_measured() -> None:
    before = [row("here"), counted(1, model="there")]
    here, there = results.environment(before[0]), results.environment(before[1])
    compare.check_environments(before, [here])
    compare.check_models(before, [(here, "here"), (here, "new"), (there, "new")])
    with pytest.raises(InputError, match="expected a row of here, there, by which name"):
        compare.check_models(before, [(there, "here"), (here, "there")])


def test_the_environment_of_rows_is_known_before_they_are_measured() -> None:
    machine = Machine(cpu="Some CPU", governor=None, load_average=3.0, cores=(4, 5))
    options = Options(threads=2, delegate="none")
    measured = row(threads=2, cores=[4, 5], delegate_asked="none", delegate="none")
    assert results.expected_environment("host", machine, options) == results.environment(measured)
    assert str(results.environment(measured)) == (
        "host (Some CPU), cores 4 5, litert, 2 threads, delegate none"
    )


def test_a_delegate_that_takes_nothing_any_more_is_slower_and_told() -> None:
    before, after = timed(ms=1.0), timed(ms=9.0)
    after = dataclasses.replace(after, delegate="none", delegate_partitions=0)
    comparison = compared([before], [after])
    assert comparison.slower
    assert comparison.differences == ["host: delegate was xnnpack, is none"]


def test_what_cost_nothing_then_is_infinitely_slower() -> None:
    (change,) = compared([counted(0)], [counted(1)]).changes
    assert change.growth == float("inf")


def test_the_table_has_the_worst_first_and_a_verdict() -> None:
    before = [BASE, related(2.0), counted(1_000_000)]
    after = [timed(ms=2.1, spread=0.2), changed(related(1.0)), counted(1_500_000)]
    lines = tables.comparison_table(compared(before, after)).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:5]]
    assert cells == [
        ["net", "emulated:a53", "instructions", "1.000 M", "1.500 M", "+50.00 %", "SLOWER"],
        ["base", "host", "ms", "2.00", "2.10", "+5.00 %", "same file and runtime"],
        ["net", "host", "ratio", "2.000", "1.000", "-50.00 %", ""],
    ]


@pytest.mark.parametrize(
    ("text", "limit"), [("5%", 0.05), ("2.5 %", 0.025), ("0%", 0), (".5%", 0.005)]
)
def test_a_limit_is_a_percentage(text: str, limit: float) -> None:
    assert compare.parse_limit(text) == pytest.approx(limit)


@pytest.mark.parametrize("text", ["", "5", "%", "-5%", "five%", "5%5%", "nan%", "1e3%"])
def test_any_other_limit_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="as a percentage such as 5%"):
        compare.parse_limit(text)
