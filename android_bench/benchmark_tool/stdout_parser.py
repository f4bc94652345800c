"""Reads what a benchmark tool prints, as it came: standard output and error, or a logcat."""

from collections.abc import Iterable, Sequence

from android_bench.benchmark_tool.line_patterns import ASKED, Run, read
from android_bench.benchmark_tool.log_prefixes import strip, unwrap
from android_bench.benchmark_tool.result import Delegate, ParseError, Result, Tool, kind
from android_bench.benchmark_tool.stat_line import Statistics, rounding


def parse(text: str, *, graph: str | None = None) -> Result:
    """Reads one run of `benchmark_model`, of either tool and any version since TF 2.2.

    Args:
      text: All of standard output and error, or a logcat, with its last newline: a last line
        without one has been cut off, which may have cost a digit.
      graph: The model's path as given to the tool; of several runs, as in a logcat, the last with
        that model is read.

    Raises:
      ParseError: The run failed, or its output is cut off or contradicts itself.
    """
    try:
        return _result(_choose(_runs(text), graph))
    except ParseError as error:
        raise ParseError(" ".join(str(error).split())[:500]) from None


def _runs(text: str) -> list[Run]:
    runs = []
    for lines in unwrap(text):
        run = Run()
        for line in map(strip, lines):
            start = line.text.startswith(("STARTING!", "Log parameter values verbosely"))
            again = line.text.startswith("Min num runs") and "Min num runs" in run.parameters
            # Standard error may have come first, and what is of it belongs to this run.
            if (start or again) and (run.parameters or run.sequence):
                runs.append(run)
                run = Run()
            read(line, run)
        runs.append(run)
    return [run for run in runs if run.begun()]


def _choose(runs: Sequence[Run], graph: str | None) -> Run:
    if graph is None:
        if len(runs) > 1:
            raise ParseError(f"expected one run, found {len(runs)}: say which graph is meant")
        if not runs:
            raise ParseError("expected the output of benchmark_model, got none")
        return runs[0]
    if runs and not runs[-1].failures and not runs[-1].graphs():
        raise ParseError("the output is cut off: the last run does not tell its model")
    for run in reversed(runs):
        if graph in run.graphs():
            return run
    failures = [line for run in runs for line in run.failures]
    if failures:
        raise ParseError(f"the tool failed: {_last(failures)}")
    raise ParseError(f"found no run of {graph}: did it start?")


def _last(lines: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(list(lines)[-4:]))


def _result(run: Run) -> Result:
    if run.failures:
        raise ParseError(f"the tool failed: {_last(run.errors + run.failures)}")
    if "headline" not in run.facts and not run.banner:
        why = f"; it said: {_last(run.errors)}" if run.errors else ""
        raise ParseError(f"the output is cut off: it holds no inference timings{why}")
    warmup, regular = _order(run)
    _check_loop(run, 0, warmup, "Min warmup runs")
    _check_loop(run, 2, regular, "Min num runs")
    if regular.count == 0:
        raise ParseError("the tool timed no inference")
    if "headline" in run.facts and run.banner:
        raise ParseError("the output is that of two tools")
    session = run.facts.get("session")
    if run.banner:
        init_ms = _check_block(run, warmup, regular)
        footprint = [run.block.get(f"{name} footprint", (None,))[0] for name in ("Init", "Overall")]
        peak = run.block.get("Peak memory", (None,))[0]
    else:
        init_ms = _check_headline(run, warmup, regular)
        footprint = list(run.facts.get("footprint", (None, None)))
        peak = run.facts.get("peak")
    if session is not None and init_ms is not None:
        slack = 0.0051 if run.banner else 0.0
        if abs(session - init_ms) > rounding(session) + slack + 1e-9:
            raise ParseError(f"the session took {session:g} ms or {init_ms:g} ms to initialize")
        init_ms = session if run.banner else init_ms
    graphs = run.graphs()
    if len(graphs) > 1:
        raise ParseError(f"the output is that of two models: {sorted(graphs)}")
    percentiles: Sequence[float | None] = [None, None, None]
    if regular.percentiles is not None:
        percentiles = [value / 1000 for value in regular.percentiles]
    warm = warmup.count > 0  # without a warm-up the tool prints 0 for its times
    return Result(
        tool=Tool.COMPILED_MODEL if run.banner else Tool.CLASSIC,
        graph=next(iter(graphs), None),
        runs=regular.count,
        avg_ms=regular.avg / 1000,
        min_ms=regular.low / 1000,
        max_ms=regular.high / 1000,
        std_ms=regular.std / 1000,
        median_ms=percentiles[1],
        p5_ms=percentiles[0],
        p95_ms=percentiles[2],
        init_ms=init_ms,
        first_ms=warmup.first / 1000 if warm else None,
        warmup_runs=warmup.count,
        warmup_ms=warmup.avg / 1000 if warm else None,
        init_memory_mb=footprint[0],
        memory_mb=footprint[1],
        peak_memory_mb=peak,
        model_size_mb=run.facts.get("size"),
        delegates=_delegates(run),
        replacements=tuple(run.replacements),
        default_xnnpack=run.default_xnnpack and run.outcomes.get("xnnpack") is None,
        unconsumed=tuple(run.unconsumed),
        dropped_profile_events=run.dropped,
        errors=tuple(run.errors),
    )


def _order(run: Run) -> tuple[Statistics, Statistics]:
    kinds = [isinstance(one, Statistics) for one in run.sequence]
    if kinds != [False, True, False, True]:
        raise ParseError(
            "expected a warm-up and a timed run, each announced and with its statistics, found"
            f" {kinds.count(False)} announcements and {kinds.count(True)} statistics:"
            " the output is cut off or mixed up"
        )
    _, warmup, _, regular = run.sequence
    assert isinstance(warmup, Statistics)
    assert isinstance(regular, Statistics)
    return warmup, regular


def _check_loop(run: Run, place: int, done: Statistics, parameter: str) -> None:
    """Holds the number of runs to the rule by which the tool ends its loop."""
    announced = run.sequence[place]
    assert isinstance(announced, tuple)
    wanted, least_s, most_s = announced
    if run.parameters.get(parameter, str(wanted)) != str(wanted):
        raise ParseError(f"{parameter} is {run.parameters[parameter]!r}, but {wanted} announced")
    total_s = done.avg * done.count / 1e6
    without_last_s = total_s - done.curr / 1e6
    if done.count > wanted and without_last_s > least_s + done.rounding * done.count / 1e6 + 1e-5:
        raise ParseError(f"{done.count} runs of {total_s:.3g} s, though {wanted} were enough")
    paused = any("delay" in name or "prorated" in name for name in run.parameters)
    if done.count < wanted and not paused and total_s < 0.2 * most_s:
        raise ParseError(f"{done.count} runs of {total_s:.3g} s, though {wanted} were announced")


def _check_headline(run: Run, warmup: Statistics, regular: Statistics) -> float:
    init, first, warmup_avg, avg = run.facts["headline"]
    if abs(regular.avg - avg) > rounding(avg) + 1e-9:
        raise ParseError(f"the timed run's average is {regular.avg:g} or {avg:g} us")
    if abs(warmup.avg - warmup_avg) > rounding(warmup_avg) + 1e-9:
        raise ParseError(f"the warm-up's average is {warmup.avg:g} or {warmup_avg:g} us")
    if first is not None and first != warmup.first:
        raise ParseError(f"the first inference took {warmup.first} or {first} us")
    return init / 1000


def _check_block(run: Run, warmup: Statistics, regular: Statistics) -> float:
    if not run.closed:
        raise ParseError("the output is cut off within its results")
    expected: dict[str, tuple[float, int | None]] = {
        "Warmup (first)": (warmup.first / 1000, None),
        "Warmup (avg)": (warmup.avg / 1000, warmup.count),
        "Inference (avg)": (regular.avg / 1000, regular.count),
        "Inference (min)": (regular.low / 1000, None),
        "Inference (max)": (regular.high / 1000, None),
        "Inference (std)": (regular.std / 1000, None),
    }
    missing = [name for name in ("Model initialization", *expected) if name not in run.block]
    if missing:
        raise ParseError(f"the results lack {missing[0]}: the output is cut off or mixed up")
    for name, (value_ms, count) in expected.items():
        told_ms, told_count = run.block[name]
        slack = 0.0051 + rounding(value_ms)
        if abs(told_ms - value_ms) > slack or told_count not in (count, None):
            raise ParseError(f"{name} is {value_ms:g} or {told_ms:g} ms")
    return run.block["Model initialization"][0]


def _delegates(run: Run) -> tuple[Delegate, ...]:
    asked = {}
    for name, value in run.parameters.items():
        if found := ASKED.fullmatch(name):
            asked[found[1].lower()] = value == "1"
        elif name == "External delegate path":
            asked["external"] = bool(value)
    told = []
    for name in sorted({name for name in asked if asked[name]} | set(run.outcomes)):
        outcome, kernels = run.outcomes.get(name, (None, None))
        if outcome is not None and not asked.get(name, True):
            raise ParseError(f"the {name} delegate was not asked for, but is said to be {outcome}")
        taken = [one for one in run.replacements if kind(one.delegate) == name]
        if outcome == "whole" and any(one.nodes != (one.of or one.nodes) for one in taken):
            raise ParseError(f"the {name} delegate is said to take the model whole and in part")
        told.append(Delegate(name, asked.get(name, False), outcome, kernels))
    return tuple(told)
