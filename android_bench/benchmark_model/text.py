"""Reads what a benchmark tool prints, as it came: standard output and error, or a logcat."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from android_bench.benchmark_model.laws import check_sample
from android_bench.benchmark_model.result import (
    Delegate,
    ParseError,
    Replacement,
    Result,
    Tool,
    kind,
)

Outcome = Literal["whole", "partial", "declined", "unavailable"]

INTEGER = r"([0-9]{1,15})"
NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,12})?(?:e[+-][0-9]{2})?)"
SIGNED = r"(-?[0-9]{1,15}(?:\.[0-9]{1,12})?(?:e[+-][0-9]{2})?)"
PERCENTILES = rf" p5={INTEGER} median={INTEGER} p95={INTEGER}"
STATISTICS = re.compile(
    rf"count={INTEGER}(?:"
    rf" curr={INTEGER}(\(all same\))?|"
    rf" first={INTEGER} curr={INTEGER} min={INTEGER} max={INTEGER} avg={NUMBER} std={INTEGER}"
    rf")?(?:{PERCENTILES})?"
)
RUNNING = re.compile(
    rf"Running benchmark for at least {INTEGER} iterations and at least {SIGNED} seconds"
    rf"(?: but terminate if exceeding {NUMBER} seconds)?\.?"
)
HEADLINE = re.compile(
    rf"Inference timings in us: Init: {INTEGER}, First inference: {INTEGER},"
    rf" Warmup \(avg\): {NUMBER}, Inference \(avg\): {NUMBER}"
)
OLD_HEADLINE = re.compile(
    rf"Average inference timings in us: Warmup: {NUMBER}, Init: {INTEGER},"
    rf" (?:no stats|Inference): {NUMBER}"
)
FOOTPRINT = re.compile(
    r"(?:Memory footprint delta from the start of the tool|Peak memory footprint) \(MB\):"
    rf" init={SIGNED} overall={SIGNED}"
)
PEAK = re.compile(
    rf"Overall peak memory footprint \(MB\) via periodic monitoring: {NUMBER}",
)
SIZE = re.compile(rf"The input model file size \(MB\): {NUMBER}")
SESSION = re.compile(rf"Initialized session in {NUMBER}ms\.?")
BANNER = "========== BENCHMARK RESULTS =========="
BANNER_END = re.compile(r"={30,}")
BLOCK = re.compile(
    r"(Model initialization|Warmup \(first\)|First inference|Warmup \(avg\)|Inference \(avg\)"
    r"|Inference \(min\)|Inference \(max\)|Inference \(std\)|Init footprint|Overall footprint"
    r"|Peak memory): +(.*)"
)
BLOCK_VALUE = re.compile(r"(-?[0-9]{1,15}\.[0-9]{2})(?: (?:ms|MB))?(?: \(([0-9]{1,15}) runs\))?")

APPLIED = re.compile(
    r"(?:Explicitly a|A)pplied (\w+) delegate, and the model graph will be"
    r" (completely|partially) executed (?:by|w/) the delegate"
    rf"(?: w/ {INTEGER} delegate kernels)?\."
)
DECLINED = re.compile(
    r"Though (\w+) delegate is explicitly applied,"
    r" the model graph will not be executed by the delegate\."
)
UNAVAILABLE = [
    re.compile(r"(\w+) acceleration is unsupported on this platform\."),
    re.compile(r"Could not create (\w+) delegate: .*"),
    re.compile(r"Couldn't load (\w+) support library from path: .*"),
]
REPLACING = re.compile(
    rf"Replacing {INTEGER}(?: out of {INTEGER})? node\(s\) with delegate \((.*?)\) node,"
    rf" yielding {INTEGER} partitions(?: for subgraph .*)?\.?"
)
PARAMETER = re.compile(r"([#\w/()., -]+?) ?: \[(.*)\]")
ASKED = re.compile(r"Use (xnnpack|gpu|nnapi|hexagon|coreml|ynnpack)", re.IGNORECASE)
FAILED = re.compile(
    r"Benchmarking failed\.|.*failed to invoke|Failed to invoke|Run failed: |Failed to apply \w+"
    r"|Disallowed CPU fallback|Segmentation fault|Fatal signal|FATAL EXCEPTION|Aborted|Killed"
)

# A line that begins like the left is of the shape at the right, or it is damaged.
SHAPES = [
    (re.compile(start), shape)
    for start, shape in (
        (r"count=", STATISTICS),
        (r"Running benchmark", RUNNING),
        (r"Inference timings", HEADLINE),
        (r"Average inference timings", OLD_HEADLINE),
        (r"(?:Memory footprint delta|Peak memory footprint)", FOOTPRINT),
        (r"Overall peak memory", PEAK),
        (r"The input model file", SIZE),
        (r"Initialized session", SESSION),
        (r"(?:Explicitly applied|Applied \w+ delegate)", APPLIED),
        (r"Though \w+ delegate", DECLINED),
        (r"Replacing ", REPLACING),
    )
]
# A line with one of these in its middle is two lines run into one, or half of one.
FRAGMENT = re.compile(
    r"\bcount=[0-9]|\b(?:p5|median|p95|avg|std|curr|overall)=|delegate kernels|\(avg\): |"
    r"inference timings in|session in [0-9]|footprint \(MB\)|BENCHMARK RESULTS"
    r"|executed (?:by|w/) the delegate|via periodic monitoring"
)
SPLINTER = re.compile(r"(?=.*[0-9])(?!.*[^\W\d_]{2}).*")  # of a number: no word stands with it
VALUED_BY_USERS = ("Graph", "Loaded model", "Loading model", "Sav", "Generated", "Unconsumed")

SEVERITY = re.compile(r"(?:(INFO|WARN|WARNING|VERBOSE|DEBUG|ERROR|FATAL):(?: |$))")
SOURCE = re.compile(r"\[[\w.-]+:[0-9]+\] ?")  # LiteRT's logger names its own source file
LOGCAT = [
    re.compile(  # -v threadtime
        r"[0-9]{2}-[0-9]{2} [0-9:.]+ +(?P<pid>[0-9]+) +[0-9]+ (?P<level>[VDIWEF])"
        r" (?P<tag>[^:]*?) *: ?(?P<message>.*)"
    ),
    re.compile(  # -v time and -v brief
        r"(?:[0-9]{2}-[0-9]{2} [0-9:.]+ +)?(?P<level>[VDIWEF])/(?P<tag>[^(]*?) *"
        r"\( *(?P<pid>[0-9]+)\): ?(?P<message>.*)"
    ),
]
LOGCAT_TAGS = ("tflite", "litert")
CRASH_TAGS = ("AndroidRuntime", "libc")


@dataclass(frozen=True)
class Line:
    """A line without the tool's prefixes."""

    severity: str  # "INFO" where none is told
    text: str


@dataclass(frozen=True)
class Statistics:
    """A stat line, in us."""

    count: int
    first: int
    curr: int
    low: int
    high: int
    avg: float
    rounding: float  # of `avg`
    std: int
    percentiles: tuple[int, int, int] | None


@dataclass
class _Run:
    """What the lines of one run hold, as they come."""

    facts: dict[str, Any] = field(default_factory=dict)
    sequence: list[tuple[int, float, float] | Statistics] = field(default_factory=list)
    parameters: dict[str, str] = field(default_factory=dict)
    block: dict[str, tuple[float, int | None]] = field(default_factory=dict)
    banner: bool = False
    closed: bool = False
    outcomes: dict[str, tuple[Outcome, int | None]] = field(default_factory=dict)
    replacements: list[Replacement] = field(default_factory=list)
    default_xnnpack: bool = False
    unconsumed: list[str] = field(default_factory=list)
    dropped: bool = False
    errors: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def begun(self) -> bool:
        """Whether more than the runtime's and the flag parser's first words were read."""
        return bool(self.parameters or self.facts or self.sequence or self.failures or self.block)

    def graphs(self) -> set[str]:
        """The model's path: one, unless lines are damaged."""
        told = {self.parameters.get("Graph"), self.facts.get("graph")}
        return {name for name in told if name}

    def once(self, name: str, value: Any) -> None:
        """Keeps a fact that is told once; told again, it must be the same."""
        if self.facts.setdefault(name, value) != value:
            raise ParseError(f"the output tells two values of {name}: is it that of two runs?")


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


def unwrap(text: str) -> list[list[str]]:
    """Lines of each process, without line ends and logcat's columns; severities are kept."""
    if text and not text.endswith("\n"):
        last = text.rsplit("\n", 1)[-1].strip()
        raise ParseError(f"the output is cut off within its last line, {last[-60:]!r}")
    lines = [line.rstrip("\r") for line in text.split("\n")]
    entries = [
        next(filter(None, (form.fullmatch(line) for form in LOGCAT)), None) for line in lines
    ]
    ours = {entry["pid"] for entry in entries if entry and entry["tag"] in LOGCAT_TAGS}
    if not ours:
        return [lines]
    processes: dict[str, list[str]] = {pid: [] for pid in sorted(ours)}
    order: list[str] = []
    for entry in entries:
        if entry is None or entry["pid"] not in ours:
            continue
        level = {"E": "ERROR: ", "F": "FATAL: "}.get(entry["level"], "")
        if entry["tag"] in LOGCAT_TAGS or (level and entry["tag"] in CRASH_TAGS):
            processes[entry["pid"]].append(level + entry["message"])
            if entry["tag"] in LOGCAT_TAGS:
                order = [pid for pid in order if pid != entry["pid"]] + [entry["pid"]]
    return [processes[pid] for pid in order]


def _first(forms: Iterable[re.Pattern[str]], line: str) -> re.Match[str] | None:
    return next(filter(None, (form.fullmatch(line) for form in forms)), None)


def strip(line: str) -> Line:
    """Takes off the prefixes; two of them come where streams mix."""
    severity, text = "INFO", line.strip()
    while found := SEVERITY.match(text):
        if found[1] in ("ERROR", "FATAL") or severity == "INFO":
            severity = found[1]
        text = text[found.end() :].strip()
    return Line(severity, SOURCE.sub("", text, count=1) if SOURCE.match(text) else text)


def statistics(line: str) -> Statistics:
    """Reads a stat line and holds it to the laws of statistics."""
    found = STATISTICS.fullmatch(line)
    if not found:
        raise ParseError(f"expected a line of statistics, got {line[:120]!r}")
    count, same, all_same, *rest = found.groups()
    numbers = [int(text) for text in (*rest[:4], rest[5]) if text is not None]
    percentiles = None if rest[6] is None else (int(rest[6]), int(rest[7]), int(rest[8]))
    size = int(count)
    if size == 0 and same is None and not numbers:
        return Statistics(0, 0, 0, 0, 0, 0.0, 0.0, 0, None)
    broken = ParseError(f"a line of statistics contradicts itself: {line[:120]!r}")
    if size == 0 or (same is None and not numbers):
        raise broken
    if same is not None:
        value = int(same)
        if bool(all_same) != (size > 1) or percentiles not in (None, (value, value, value)):
            raise broken
        return Statistics(size, value, value, value, value, value, 0.0, 0, (value, value, value))
    first, curr, low, high, std = numbers
    avg = float(rest[4])
    known = Statistics(size, first, curr, low, high, avg, rounding(avg), std, percentiles)
    if size == 1 or low == high or (size == 2 and {first, curr} != {low, high}):
        raise broken
    check_sample(
        count=size,
        low=low,
        high=high,
        avg=avg,
        rounding=known.rounding,
        deviation=(std, std + 1),
        percentiles=percentiles,
        others=(first, curr),
    )
    if abs(avg * size - round(avg * size)) > known.rounding * size + 1e-6:
        raise ParseError(f"avg={avg:g} is not that of {size} whole numbers")
    return known


def rounding(value: float) -> float:
    """Half a unit of the last of the six digits that C++ prints."""
    return 0.5 * 10.0 ** (math.floor(math.log10(value)) - 5) if value > 0 else 0.0


def _runs(text: str) -> list[_Run]:
    runs = []
    for lines in unwrap(text):
        run = _Run()
        for line in map(strip, lines):
            start = line.text.startswith(("STARTING!", "Log parameter values verbosely"))
            again = line.text.startswith("Min num runs") and "Min num runs" in run.parameters
            # Standard error may have come first, and what is of it belongs to this run.
            if (start or again) and (run.parameters or run.sequence):
                runs.append(run)
                run = _Run()
            _read(line, run)
        runs.append(run)
    return [run for run in runs if run.begun()]


def _read(line: Line, run: _Run) -> None:
    text = line.text
    if line.severity == "FATAL" or FAILED.match(text):
        run.failures.append(text)
        return
    if line.severity == "ERROR":
        run.errors.append(text)
    shape = next((shape for start, shape in SHAPES if start.match(text)), None)
    if shape is not None:
        found = shape.fullmatch(text)
        if found is None:
            raise ParseError(f"a line is cut off or damaged: {text[:120]!r}")
        _READERS[shape](run, found)
        return
    if "Dropping ProfileBuffer event" in text:
        run.dropped = True
    elif text.startswith("Unconsumed cmdline flags: "):
        run.unconsumed += text.partition(": ")[2].split()
    elif "Created TensorFlow Lite XNNPACK delegate for CPU" in text:
        run.default_xnnpack = True
    elif text == "No inference runs were performed.":
        raise ParseError("the tool timed no inference")
    elif text == BANNER:
        run.banner = True
    elif text == "BENCHMARK RESULTS":
        raise ParseError("this is the output of litert-benchmark: read its --result_json instead")
    elif run.banner and BANNER_END.fullmatch(text):
        run.closed = True
    elif found := BLOCK.fullmatch(text):
        _read_block(run, found[1], found[2])
    elif found := _first(UNAVAILABLE, text):
        _outcome(run, found[1], "unavailable", None)
    elif text.startswith(("Loaded model ", "Loading model from: ")):
        run.once("graph", re.sub(r"^Load(?:ed model|ing model from:) ", "", text))
    elif (found := PARAMETER.fullmatch(text)) and "\t" not in line.text:
        if run.parameters.setdefault(found[1].strip(), found[2]) != found[2]:
            raise ParseError(f"the output tells two values of {found[1].strip()!r}")
    elif (
        (FRAGMENT.search(text) or SPLINTER.fullmatch(text))
        and not _is_table(text)
        and not text.startswith(VALUED_BY_USERS)
    ):
        raise ParseError(f"lines are mixed up or damaged: {text[:120]!r}")


def _is_table(text: str) -> bool:
    return bool(re.search(r"\t|% |%,|^Timings |^Memory \(bytes|^Subgraph |^Delegate |[|]", text))


def _read_statistics(run: _Run, found: re.Match[str]) -> None:
    run.sequence.append(statistics(found[0]))


def _read_running(run: _Run, found: re.Match[str]) -> None:
    run.sequence.append((int(found[1]), float(found[2]), float(found[3] or "inf")))


def _read_headline(run: _Run, found: re.Match[str]) -> None:
    run.once("headline", (int(found[1]), int(found[2]), float(found[3]), float(found[4])))


def _read_old_headline(run: _Run, found: re.Match[str]) -> None:
    run.once("headline", (int(found[2]), None, float(found[1]), float(found[3])))


def _read_footprint(run: _Run, found: re.Match[str]) -> None:
    run.once("footprint", (float(found[1]), float(found[2])))


def _read_applied(run: _Run, found: re.Match[str]) -> None:
    whole = found[2] == "completely"
    if whole and found[3]:
        raise ParseError(f"a line contradicts itself: {found[0]!r}")
    kernels = 1 if whole else int(found[3]) if found[3] else None
    _outcome(run, found[1], "whole" if whole else "partial", kernels)


def _read_declined(run: _Run, found: re.Match[str]) -> None:
    _outcome(run, found[1], "declined", 0)


def _read_replacing(run: _Run, found: re.Match[str]) -> None:
    nodes, of = int(found[1]), int(found[2]) if found[2] else None
    if (of is not None and nodes > of) or (of is not None and int(found[4]) > of):
        raise ParseError(f"a line contradicts itself: {found[0]!r}")
    run.replacements.append(Replacement(found[3], nodes, of, int(found[4])))


_READERS: dict[re.Pattern[str], Callable[[_Run, re.Match[str]], None]] = {
    STATISTICS: _read_statistics,
    RUNNING: _read_running,
    HEADLINE: _read_headline,
    OLD_HEADLINE: _read_old_headline,
    FOOTPRINT: _read_footprint,
    PEAK: lambda run, found: run.once("peak", float(found[1])),
    SIZE: lambda run, found: run.once("size", float(found[1])),
    SESSION: lambda run, found: run.once("session", float(found[1])),
    APPLIED: _read_applied,
    DECLINED: _read_declined,
    REPLACING: _read_replacing,
}


def _outcome(run: _Run, name: str, outcome: Outcome, kernels: int | None) -> None:
    if run.outcomes.setdefault(name.lower(), (outcome, kernels)) != (outcome, kernels):
        raise ParseError(f"the output tells two outcomes of the {name} delegate")


def _read_block(run: _Run, name: str, value: str) -> None:
    found = BLOCK_VALUE.fullmatch(value)
    if not found:
        raise ParseError(f"a line of the results is cut off or damaged: {name}: {value[:60]!r}")
    read = (float(found[1]), int(found[2]) if found[2] else None)
    name = "Warmup (first)" if name == "First inference" else name
    if run.block.setdefault(name, read) != read:
        raise ParseError(f"the output tells two values of {name}: is it that of two runs?")


def _choose(runs: Sequence[_Run], graph: str | None) -> _Run:
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


def _result(run: _Run) -> Result:
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


def _order(run: _Run) -> tuple[Statistics, Statistics]:
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


def _check_loop(run: _Run, place: int, done: Statistics, parameter: str) -> None:
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


def _check_headline(run: _Run, warmup: Statistics, regular: Statistics) -> float:
    init, first, warmup_avg, avg = run.facts["headline"]
    if abs(regular.avg - avg) > rounding(avg) + 1e-9:
        raise ParseError(f"the timed run's average is {regular.avg:g} or {avg:g} us")
    if abs(warmup.avg - warmup_avg) > rounding(warmup_avg) + 1e-9:
        raise ParseError(f"the warm-up's average is {warmup.avg:g} or {warmup_avg:g} us")
    if first is not None and first != warmup.first:
        raise ParseError(f"the first inference took {warmup.first} or {first} us")
    return init / 1000


def _check_block(run: _Run, warmup: Statistics, regular: Statistics) -> float:
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


def _delegates(run: _Run) -> tuple[Delegate, ...]:
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
