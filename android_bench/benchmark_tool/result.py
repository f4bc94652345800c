"""The figures of one run of a benchmark tool."""

import dataclasses
import enum
import itertools
import math
from dataclasses import dataclass

from android_bench.benchmark_tool.delegation import Delegation, ParseError


class Tool(enum.Enum):
    """A benchmark tool; the value is its name in messages."""

    CLASSIC = "benchmark_model (TFLite)"
    COMPILED_MODEL = "benchmark_model (LiteRT CompiledModel)"
    LITERT_BENCHMARK = "litert-benchmark"


@dataclass(frozen=True)
class ToolResult:
    """One run of a tool; None: not reported.  Memory is in MB of 2**20 bytes."""

    tool: Tool | None  # None: read from a result file, which does not name it
    runs: int  # timed inferences
    avg_ms: float
    min_ms: float
    max_ms: float
    median_ms: float | None  # percentiles are reported since TF 2.20
    p5_ms: float | None
    p95_ms: float | None
    init_ms: float | None
    first_ms: float | None  # the first inference, which is part of the warm-up
    memory_mb: float | None = None  # growth over the whole run
    peak_memory_mb: float | None = None  # of the whole process

    delegations: tuple[Delegation, ...] = ()  # one for each source that reports some
    unconsumed: tuple[str, ...] = ()  # flags that this version of the tool does not know
    lost_profile_events: bool = False  # the profile lacks operators

    def __post_init__(self) -> None:
        values = {name: getattr(self, name) for name in FIGURES}
        known = {name: value for name, value in values.items() if value is not None}
        for name, value in known.items():
            if not math.isfinite(value) or (value < 0 and name != "memory_mb"):
                raise ParseError(f"expected {name} of 0 or more, got {value}")
        if self.runs < 1:
            raise ParseError("the tool timed no inference")
        for names in (("min_ms", "avg_ms", "max_ms"), _ORDERED):
            ordered = [known[name] for name in names if name in known]
            if any(low > high * (1 + ROUNDING) for low, high in itertools.pairwise(ordered)):
                raise ParseError(f"expected {' <= '.join(names)}, got {ordered}")


_ORDERED = ("min_ms", "p5_ms", "median_ms", "p95_ms", "max_ms")
FIGURES = ("runs", "avg_ms", *_ORDERED, "init_ms", "first_ms", "memory_mb", "peak_memory_mb")
ROUNDING = 6e-6  # relative, of the six digits of a printed figure


def merge(printed: ToolResult, file: ToolResult) -> ToolResult:
    """Returns the figures of the run's result file, and what else the tool printed.

    Raises:
      ParseError: Both have a figure, and differ by more than the rounding of the printed one.
    """
    figures = {}
    for name in FIGURES:
        value, in_file = getattr(printed, name), getattr(file, name)
        figures[name] = value if in_file is None else in_file
        # Footprints of the CompiledModel tool have two decimals.
        slack = 0.0051 if printed.tool is Tool.COMPILED_MODEL and "memory" in name else 0.0
        if None not in (value, in_file) and not math.isclose(
            value, in_file, rel_tol=ROUNDING, abs_tol=slack
        ):
            raise ParseError(
                f"the output has {name} = {value:g}, the result file {in_file:g}:"
                " they are of different runs"
            )
    return dataclasses.replace(printed, **figures)
