"""Reads what a benchmark tool prints: standard output and error, or a logcat."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from android_bench.benchmark_tool import log_lines
from android_bench.benchmark_tool.delegation import Delegation, ParseError, delegate_name
from android_bench.benchmark_tool.log_lines import Line
from android_bench.benchmark_tool.result import ROUNDING, Tool, ToolResult

INTEGER = r"([0-9]{1,15})"
NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,12})?(?:e[+-][0-9]{2})?)"
SIGNED = f"(-?{NUMBER[1:]}"
STATISTICS = re.compile(  # in us
    rf"count={INTEGER}(?:"
    rf" curr={INTEGER}(?:\(all same\))?|"
    rf" first={INTEGER} curr={INTEGER} min={INTEGER} max={INTEGER} avg={NUMBER} std=[0-9]{{1,15}}"
    rf")?(?: p5={INTEGER} median={INTEGER} p95={INTEGER})?"
)
UNKNOWN = "Unconsumed cmdline flags: "
BANNER = "========== BENCHMARK RESULTS =========="  # of the CompiledModel tool, as its end:
BANNER_END = re.compile(r"={30,80}")
_HEADLINE = r"(?:Average i|I)nference timings in us: (?:.{1,200}, )?"
_FACTS = [  # (fact, printed units of one of ours, the line)
    (name, unit, re.compile(pattern))
    for name, unit, pattern in (
        ("init", 1000, rf"{_HEADLINE}Init: {INTEGER},.*"),
        ("first", 1000, rf"{_HEADLINE}First inference: {INTEGER},.*"),
        ("avg", 1000, rf"{_HEADLINE}(?:Inference(?: \(avg\))?|no stats): {NUMBER}"),
        ("session", 1, rf"Initialized session in {NUMBER}ms\.?"),
        ("init", 1, rf"Model initialization: +{NUMBER} ms"),
        ("first", 1, rf"Warmup \(first\): +{NUMBER} ms"),
        ("avg", 1, rf"Inference \(avg\): +{NUMBER} ms.*"),
        ("min", 1, rf"Inference \(min\): +{NUMBER} ms"),
        ("memory", 1, rf"[^:]{{1,99}} footprint[^:]*\(MB\): init=[^ ]+ overall={SIGNED}"),
        ("memory", 1, rf"Overall footprint: +{SIGNED} MB"),
        ("peak", 1, rf"Overall peak memory footprint \(MB\) via[^:]*: {NUMBER}"),
        ("peak", 1, rf"Peak memory: +{NUMBER} MB"),
    )
]
GRAPH = re.compile(r"Graph ?: \[(.+)\]|Loaded model (.+)|Loading model from: (.+)")
APPLIED = re.compile(
    r"(?:Explicitly a|A)pplied (\w+) delegate, and the model graph will be"
    r" (completely|partially) executed (?:by|w/) the delegate"
    rf"(?: w/ {INTEGER} delegate kernels)?\."
)
NOT_APPLIED = re.compile(
    r"Though (\w+) delegate is explicitly applied,"
    r" the model graph will not be executed by the delegate\."
    r"|(\w+) acceleration is unsupported on this platform\."
    r"|Could not create (\w+) delegate: .*|Couldn't load (\w+) support library from path: .*"
)
REPLACING = re.compile(  # of the primary graph
    rf"Replacing {INTEGER}(?: out of {INTEGER})? node\(s\) with delegate \((.*?)\) node,"
    rf" yielding {INTEGER} partitions(?! for subgraph [1-9]).*"
)
FAILED = re.compile(
    r"Benchmarking failed\.|.*failed to invoke|Failed to invoke|Run failed: |Failed to apply \w+"
    r"|Disallowed CPU fallback|Segmentation fault|Fatal signal|FATAL EXCEPTION|Aborted|Killed"
)
SHELL = re.compile(r"(?:.*\b)?(?:Aborted|Segmentation fault|Killed)\b.*")  # its words for a signal


@dataclass(frozen=True)
class Statistics:
    """A line of statistics, in us."""

    count: int
    first: int
    low: int
    high: int
    avg: float
    percentiles: Sequence[int | None]  # 5, 50, 95


def parse(text: str, *, graph: str | None = None) -> ToolResult:
    """Reads one run of `benchmark_model`, of either tool and any version since TF 2.2.

    Args:
      text: All of standard output and error, or a logcat, with its last newline: a last line
        without one is cut off, perhaps within a number.
      graph: The model's path as given to the tool; other apps' runs in a logcat are ignored.

    Raises:
      ParseError: The run failed, its output is cut off, or its figures contradict each other.
    """
    lines = log_lines.split(text, graph=graph)
    texts = [line.text for line in lines]
    if any(line.severity == "FATAL" or FAILED.match(line.text) for line in lines):
        raise ParseError(f"the tool failed: {_reason(lines)}")
    facts = _facts(texts)
    compiled = BANNER in texts
    if "avg" not in facts or (compiled and not any(map(BANNER_END.fullmatch, texts))):
        if not any("[" in one or one.startswith(("STARTING", "Load")) for one in texts):
            raise ParseError("expected the output of benchmark_model, got none")
        has_errors = any(line.severity == "ERROR" for line in lines)
        why = f"; it said: {_reason(lines)}" if has_errors else ""
        raise ParseError(f"the output is cut off: it holds no inference timings{why}")
    named = next((match for one in texts if (match := GRAPH.fullmatch(one))), None)
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
    _check(facts, warmup, timed, slack_ms=0.0051 if compiled else 0.0)  # two decimals
    p5, median, p95 = (None if us is None else us / 1000 for us in timed.percentiles)
    return ToolResult(
        tool=Tool.COMPILED_MODEL if compiled else Tool.CLASSIC,
        runs=timed.count,
        avg_ms=timed.avg / 1000,
        min_ms=timed.low / 1000,
        max_ms=timed.high / 1000,
        median_ms=median,
        p5_ms=p5,
        p95_ms=p95,
        init_ms=facts.get("session" if compiled else "init", facts.get("init")),
        first_ms=warmup.first / 1000 if warmup.count else None,  # printed as 0 without a warm-up
        memory_mb=facts.get("memory"),
        peak_memory_mb=facts.get("peak"),
        delegations=tuple(_delegations(texts)),
        unconsumed=tuple(
            flag for line in texts if line.startswith(UNKNOWN) for flag in line.split()[3:]
        ),
        lost_profile_events=any("Dropping ProfileBuffer event" in line for line in texts),
    )


def failure(text: str) -> str:
    """Returns why a tool failed, in one line: its last distinct errors, else its last line."""
    lines = log_lines.split(f"{text[-log_lines.MAX_SIZE // 2 :]}\n")
    said = [line for line in lines if not SHELL.fullmatch(line.text)]
    return " ".join(_reason(said or lines).split())[:500]


def statistics(text: str) -> Statistics | None:
    """Reads a line of statistics; None if it is another line."""
    match = STATISTICS.fullmatch(text)
    if match is None:
        return None
    count, same, *rest = match.groups()
    p5, median, p95 = (int(value) if value else None for value in rest[5:])
    if rest[0] is None:  # one value, or with count=0 none
        first = last = low = high = int(same or 0)
        avg = float(first)
    else:
        (first, last, low, high), avg = map(int, rest[:4]), float(rest[4])
    if low == high and p5 is None:
        p5 = median = p95 = low
    runs, total = int(count), int(count) * avg
    if not (
        low <= first <= high
        and low <= last <= high
        and (runs == 0) == (same is None and rest[0] is None)
        and abs(total - round(total)) <= total * ROUNDING  # a sum of whole microseconds
        # The percentile p is the value at index count * p // 100 of the sorted ones.
        and (runs >= 20 or p5 in (None, low))
        and (runs > 20 or p95 in (None, high))
    ):
        raise ParseError(f"the statistics contradict each other: {text[:300]!r}")
    return Statistics(runs, first, low, high, avg, (p5, median, p95))


def _check(
    facts: Mapping[str, float], warmup: Statistics, timed: Statistics, *, slack_ms: float
) -> None:
    """Raises ParseError if the summary is not that of the statistics."""
    again = {"first": warmup.first, "avg": timed.avg, "min": timed.low}
    again["session"] = facts.get("init", facts.get("session", 0)) * 1000
    for name, us in again.items():
        value = facts.get(name, us / 1000)
        if not math.isclose(value, us / 1000, rel_tol=ROUNDING, abs_tol=slack_ms):
            raise ParseError(f"the output contradicts itself: {name} {value} and {us / 1000} ms")


def _reason(lines: Sequence[Line]) -> str:
    errors = dict.fromkeys(
        one.text for one in lines if one.severity in ("ERROR", "FATAL") or FAILED.match(one.text)
    )
    raised = [one.text for one in lines if re.match(r"[\w.]{1,80}(Error|Exception): ", one.text)]
    reasons = [text for text in errors if text != "Benchmarking failed."] or list(errors)
    chosen = raised[-1:] or reasons[-4:] or [one.text for one in lines[-1:]]
    return "; ".join(chosen)


def _facts(texts: Iterable[str]) -> dict[str, float]:
    facts: dict[str, float] = {}
    for text in texts:
        if ": " not in text and " in " not in text:  # as no line of a table has
            continue
        for name, unit, pattern in _FACTS:
            if match := pattern.fullmatch(text):
                value = float(match[1]) / unit
                if facts.setdefault(name, value) != value:
                    raise ParseError(f"the output has two different values of {name}")
    return facts


def _delegations(texts: Iterable[str]) -> Iterable[Delegation]:
    for text in texts:
        if match := APPLIED.fullmatch(text):
            name, whole, kernels = match[1].lower(), match[2] == "completely", match[3]
            number = 1 if whole else int(kernels) if kernels else None
            yield Delegation(text, {name: number}, {} if whole else None)
        elif match := NOT_APPLIED.fullmatch(text):
            yield Delegation(text, {next(filter(None, match.groups())).lower(): 0})
        elif match := REPLACING.fullmatch(text):
            nodes, of, runtime_name, partitions = match.groups()
            number = 0 if nodes == "0" else 1 if partitions == "1" else None
            name = delegate_name(runtime_name)
            yield Delegation(text, {name: number}, {} if nodes == of else None)
