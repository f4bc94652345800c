"""Reads the lines that a benchmark tool prints: standard output and error, or a logcat."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from android_bench.benchmark_tool import log_lines
from android_bench.benchmark_tool.log_lines import Line
from android_bench.benchmark_tool.result import (
    Delegate,
    ParseError,
    Replacement,
    Tool,
    ToolResult,
)

INTEGER = r"([0-9]{1,15})"
NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,12})?(?:e[+-][0-9]{2})?)"
SIGNED = f"(-?{NUMBER[1:]}"
STATISTICS = re.compile(  # in us
    rf"count={INTEGER}(?:"
    rf" curr={INTEGER}(?:\(all same\))?|"
    rf" first={INTEGER} curr=[0-9]+ min={INTEGER} max={INTEGER} avg={NUMBER} std={INTEGER}"
    rf")?(?: p5={INTEGER} median={INTEGER} p95={INTEGER})?"
)
BANNER = "========== BENCHMARK RESULTS =========="  # of the CompiledModel tool, as its end:
BANNER_END = re.compile(r"={30,}")
_FACTS = [  # (fact, printed units of one of ours, the line)
    (name, unit, re.compile(pattern))
    for name, unit, pattern in (
        ("headline", 1000, rf"(?:Average i|I)nference timings in us: .*?Init: {INTEGER},.*"),
        ("session", 1, rf"Initialized session in {NUMBER}ms\.?"),
        ("banner", 1, rf"Model initialization: +{NUMBER} ms"),
        ("init_memory_mb", 1, rf"[^:]* footprint[^:]*\(MB\): init={SIGNED} overall=.*"),
        ("memory_mb", 1, rf"[^:]* footprint[^:]*\(MB\): init=[^ ]+ overall={SIGNED}"),
        ("init_memory_mb", 1, rf"Init footprint: +{SIGNED} MB"),
        ("memory_mb", 1, rf"Overall footprint: +{SIGNED} MB"),
        ("peak_memory_mb", 1, rf"Overall peak memory footprint \(MB\) via[^:]*: {NUMBER}"),
        ("peak_memory_mb", 1, rf"Peak memory: +{NUMBER} MB"),
        ("model_size_mb", 1, rf"The input model file size \(MB\): {NUMBER}"),
    )
]
GRAPH = re.compile(r"Graph ?: \[(.+)\]|Loaded model (.+)|Loading model from: (.+)")
APPLIED = re.compile(
    r"(?:Explicitly a|A)pplied (\w+) delegate, and the model graph will be"
    r" (completely|partially) executed (?:by|w/) the delegate"
    rf"(?: w/ {INTEGER} delegate kernels)?\."
)
DECLINED = re.compile(
    r"Though (\w+) delegate is explicitly applied,"
    r" the model graph will not be executed by the delegate\."
)
UNAVAILABLE = re.compile(
    r"(\w+) acceleration is unsupported on this platform\.|Could not create (\w+) delegate: .*"
    r"|Couldn't load (\w+) support library from path: .*"
)
REPLACING = re.compile(
    rf"Replacing {INTEGER}(?: out of {INTEGER})? node\(s\) with delegate \((.*?)\) node,"
    rf" yielding {INTEGER} partitions.*"
)
FAILED = re.compile(
    r"Benchmarking failed\.|.*failed to invoke|Failed to invoke|Run failed: |Failed to apply \w+"
    r"|Disallowed CPU fallback|Segmentation fault|Fatal signal|FATAL EXCEPTION|Aborted|Killed"
)


@dataclass(frozen=True)
class Statistics:
    """A line of statistics, in us."""

    count: int
    first: int
    low: int
    high: int
    avg: float
    std: int
    percentiles: Sequence[int | None]  # 5, 50, 95


def parse(text: str, *, graph: str | None = None) -> ToolResult:
    """Reads one run of `benchmark_model`, of either tool and any version since TF 2.2.

    Args:
      text: All of standard output and error, or a logcat, with its last newline: a last line
        without one is cut off, perhaps within a number.
      graph: The model's path as given to the tool; other apps' runs in a logcat are ignored.

    Raises:
      ParseError: The run failed, or its output is cut off.
    """
    try:
        return _result(log_lines.split(text, graph=graph), graph)
    except ParseError as error:
        raise ParseError(" ".join(str(error).split())[:500]) from None


def statistics(text: str) -> Statistics | None:
    """Reads a line of statistics; None if it is another line."""
    match = STATISTICS.fullmatch(text)
    if match is None:
        return None
    count, same, *rest = match.groups()
    percentiles = [int(value) if value else None for value in rest[5:]]
    if rest[0] is not None:
        first, low, high, avg, std = rest[:5]
        return Statistics(
            int(count), int(first), int(low), int(high), float(avg), int(std), percentiles
        )
    value = int(same or 0)  # count=0 has no value
    return Statistics(int(count), value, value, value, value, 0, [value] * 3)


def _result(lines: Sequence[Line], graph: str | None) -> ToolResult:
    texts = [line.text for line in lines]
    failed = [line for line in lines if line.severity == "FATAL" or FAILED.match(line.text)]
    errors = [line.text for line in lines if line.severity == "ERROR" and line not in failed]
    if failed:
        raise ParseError(f"the tool failed: {_last(errors + [line.text for line in failed])}")
    if "BENCHMARK RESULTS" in texts:
        raise ParseError("this is the output of litert-benchmark: read its --result_json instead")
    facts = _facts(texts)
    compiled = BANNER in texts
    if not (any(map(BANNER_END.fullmatch, texts)) if compiled else "headline" in facts):
        if not any("[" in text or text.startswith(("STARTING", "Load")) for text in texts):
            raise ParseError("expected the output of benchmark_model, got none")
        why = f"; it said: {_last(errors)}" if errors else ""
        raise ParseError(f"the output is cut off: it holds no inference timings{why}")
    named = next((match for text in texts if (match := GRAPH.fullmatch(text))), None)
    run_graph = next(filter(None, named.groups()), None) if named else None
    if graph is not None and run_graph != graph:
        raise ParseError(f"expected a run of {graph}, got one of {run_graph}")
    phases = [one for one in map(statistics, texts) if one is not None]
    if len(phases) != 2:
        raise ParseError(
            "expected the statistics of the warm-up and of the timed runs, got"
            f" {len(phases)} lines of statistics"
        )
    warmup, timed = phases
    init_names = ("session", "banner") if compiled else ("headline",)
    delegates = _delegates(texts)
    p5, median, p95 = (None if us is None else us / 1000 for us in timed.percentiles)
    return ToolResult(
        tool=Tool.COMPILED_MODEL if compiled else Tool.CLASSIC,
        graph=run_graph,
        runs=timed.count,
        avg_ms=timed.avg / 1000,
        min_ms=timed.low / 1000,
        max_ms=timed.high / 1000,
        std_ms=timed.std / 1000,
        median_ms=median,
        p5_ms=p5,
        p95_ms=p95,
        init_ms=next((facts[name] for name in init_names if name in facts), None),
        # Without a warm-up the tool prints 0 for its times.
        first_ms=warmup.first / 1000 if warmup.count else None,
        warmup_runs=warmup.count,
        warmup_ms=warmup.avg / 1000 if warmup.count else None,
        init_memory_mb=facts.get("init_memory_mb"),
        memory_mb=facts.get("memory_mb"),
        peak_memory_mb=facts.get("peak_memory_mb"),
        model_size_mb=facts.get("model_size_mb"),
        delegates=delegates,
        replacements=tuple(_replacements(texts)),
        default_xnnpack=all(one.name != "xnnpack" for one in delegates)
        and any("Created TensorFlow Lite XNNPACK delegate for CPU" in text for text in texts),
        unconsumed=tuple(
            flag
            for text in texts
            if text.startswith("Unconsumed cmdline flags: ")
            for flag in text.partition(": ")[2].split()
        ),
        dropped_profile_events=any("Dropping ProfileBuffer event" in text for text in texts),
    )


def _last(lines: Iterable[str]) -> str:
    return "; ".join(list(dict.fromkeys(lines))[-4:])


def _facts(texts: Iterable[str]) -> dict[str, float]:
    facts: dict[str, float] = {}
    for text in texts:
        for name, unit, pattern in _FACTS:
            if match := pattern.fullmatch(text):
                facts[name] = float(match[1]) / unit
    return facts


def _replacements(texts: Iterable[str]) -> Iterable[Replacement]:
    for match in filter(None, map(REPLACING.fullmatch, texts)):
        nodes, of, name, partitions = match.groups()
        yield Replacement(name, int(nodes), int(of) if of else None, int(partitions))


def _delegates(texts: Iterable[str]) -> tuple[Delegate, ...]:
    delegates = {}
    for text in texts:
        delegate = None
        if match := APPLIED.fullmatch(text):
            name, extent, kernels = match.groups()
            whole = extent == "completely"
            count = 1 if whole else int(kernels) if kernels else None
            delegate = Delegate(name.lower(), "whole" if whole else "partial", count)
        elif match := DECLINED.fullmatch(text):
            delegate = Delegate(match[1].lower(), "declined", 0)
        elif match := UNAVAILABLE.fullmatch(text):
            name = next(filter(None, match.groups()))
            delegate = Delegate(name.lower(), "unavailable", None)
        if delegate is not None:
            delegates[delegate.name] = delegate
    return tuple(delegates[name] for name in sorted(delegates))
