"""The lines that the tools print, of every version, and what each tells of a run."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from android_bench.benchmark_tool.log_prefixes import Line
from android_bench.benchmark_tool.result import ParseError, Replacement
from android_bench.benchmark_tool.stat_line import (
    INTEGER,
    NUMBER,
    STATISTICS,
    Statistics,
    statistics,
)

Outcome = Literal["whole", "partial", "declined", "unavailable"]
SIGNED = r"(-?[0-9]{1,15}(?:\.[0-9]{1,12})?(?:e[+-][0-9]{2})?)"
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


@dataclass
class Run:
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


def read(line: Line, run: Run) -> None:
    """Adds to `run` what a line tells; one that tells nothing is left alone."""
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


def _first(forms: Iterable[re.Pattern[str]], line: str) -> re.Match[str] | None:
    return next(filter(None, (form.fullmatch(line) for form in forms)), None)


def _is_table(text: str) -> bool:
    return bool(re.search(r"\t|% |%,|^Timings |^Memory \(bytes|^Subgraph |^Delegate |[|]", text))


def _read_statistics(run: Run, found: re.Match[str]) -> None:
    run.sequence.append(statistics(found[0]))


def _read_running(run: Run, found: re.Match[str]) -> None:
    run.sequence.append((int(found[1]), float(found[2]), float(found[3] or "inf")))


def _read_headline(run: Run, found: re.Match[str]) -> None:
    run.once("headline", (int(found[1]), int(found[2]), float(found[3]), float(found[4])))


def _read_old_headline(run: Run, found: re.Match[str]) -> None:
    run.once("headline", (int(found[2]), None, float(found[1]), float(found[3])))


def _read_footprint(run: Run, found: re.Match[str]) -> None:
    run.once("footprint", (float(found[1]), float(found[2])))


def _read_applied(run: Run, found: re.Match[str]) -> None:
    whole = found[2] == "completely"
    if whole and found[3]:
        raise ParseError(f"a line contradicts itself: {found[0]!r}")
    kernels = 1 if whole else int(found[3]) if found[3] else None
    _outcome(run, found[1], "whole" if whole else "partial", kernels)


def _read_declined(run: Run, found: re.Match[str]) -> None:
    _outcome(run, found[1], "declined", 0)


def _read_replacing(run: Run, found: re.Match[str]) -> None:
    nodes, of = int(found[1]), int(found[2]) if found[2] else None
    if (of is not None and nodes > of) or (of is not None and int(found[4]) > of):
        raise ParseError(f"a line contradicts itself: {found[0]!r}")
    run.replacements.append(Replacement(found[3], nodes, of, int(found[4])))


_READERS: dict[re.Pattern[str], Callable[[Run, re.Match[str]], None]] = {
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


def _outcome(run: Run, name: str, outcome: Outcome, kernels: int | None) -> None:
    if run.outcomes.setdefault(name.lower(), (outcome, kernels)) != (outcome, kernels):
        raise ParseError(f"the output tells two outcomes of the {name} delegate")


def _read_block(run: Run, name: str, value: str) -> None:
    found = BLOCK_VALUE.fullmatch(value)
    if not found:
        raise ParseError(f"a line of the results is cut off or damaged: {name}: {value[:60]!r}")
    read = (float(found[1]), int(found[2]) if found[2] else None)
    name = "Warmup (first)" if name == "First inference" else name
    if run.block.setdefault(name, read) != read:
        raise ParseError(f"the output tells two values of {name}: is it that of two runs?")
