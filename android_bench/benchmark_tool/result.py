"""The result of a run of a benchmark tool, and which delegate it belongs to."""

import dataclasses
import enum
import math
import re
from dataclasses import dataclass
from typing import Literal

from android_bench.measurement import TargetError

Outcome = Literal["whole", "partial", "declined", "unavailable"]


class ParseError(TargetError):
    """Output that lacks a figure or reports a failure."""


class Tool(enum.Enum):
    """A benchmark tool; the value is its name in messages."""

    CLASSIC = "benchmark_model (TFLite)"
    COMPILED_MODEL = "benchmark_model (LiteRT CompiledModel)"
    LITERT_BENCHMARK = "litert-benchmark"


@dataclass(frozen=True)
class Delegate:
    """What a delegate ran of the model."""

    name: str  # "xnnpack", "gpu", "nnapi", "hexagon", ...
    outcome: Outcome | None  # None: not reported
    kernels: int | None  # partitions of the graph that it runs


@dataclass(frozen=True)
class Replacement:
    """The runtime's line on the nodes of a subgraph that a delegate takes."""

    delegate: str  # the runtime's name, as "TfLiteXNNPackDelegate"
    nodes: int
    of: int | None  # nodes of the subgraph; None: an old runtime does not report them
    partitions: int  # including those that the interpreter runs


@dataclass(frozen=True)
class ToolResult:
    """One run of a tool; None: not reported.  Footprints are in MB of 2**20 bytes."""

    tool: Tool | None  # None: read from a result file, which does not name it
    graph: str | None  # the model's path, as the tool got it

    runs: int  # timed inferences
    avg_ms: float
    min_ms: float
    max_ms: float
    std_ms: float
    median_ms: float | None  # percentiles are reported since TF 2.20
    p5_ms: float | None
    p95_ms: float | None

    init_ms: float | None
    first_ms: float | None  # the first inference, which is part of the warm-up
    warmup_runs: int | None
    warmup_ms: float | None  # average

    init_memory_mb: float | None = None  # growth of the footprint while loading
    memory_mb: float | None = None  # growth over the whole run
    peak_memory_mb: float | None = None  # of the whole process
    model_size_mb: float | None = None  # of 10**6 bytes

    delegates: tuple[Delegate, ...] = ()
    replacements: tuple[Replacement, ...] = ()
    default_xnnpack: bool = False  # the runtime made an XNNPACK delegate that no flag requested
    accelerators: tuple[str, ...] = ()  # litert-benchmark: the permitted ones, as "CPU"
    fully_accelerated: bool | None = None  # litert-benchmark
    unconsumed: tuple[str, ...] = ()  # flags that this version of the tool does not know
    dropped_profile_events: bool = False  # the profile lacks operators

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise ParseError("the tool timed no inference")
        for name in _FIGURES:
            value = getattr(self, name)
            if value is not None and name.endswith("_ms") and not 0 <= value < math.inf:
                raise ParseError(f"expected {name} of 0 or more, got {value}")


_FIGURES = [
    *("runs", "avg_ms", "min_ms", "max_ms", "std_ms", "median_ms", "p5_ms", "p95_ms"),
    *("init_ms", "first_ms", "warmup_runs", "warmup_ms"),
    *("init_memory_mb", "memory_mb", "peak_memory_mb", "model_size_mb"),
]


def merge(printed: ToolResult, file: ToolResult) -> ToolResult:
    """Returns the printed result, with missing figures taken from the run's result file.

    Raises:
      ParseError: The two differ by more than the rounding of the printed figures.
    """
    missing = {}
    for name in _FIGURES:
        value, in_file = getattr(printed, name), getattr(file, name)
        if value is None:
            missing[name] = in_file
        elif in_file is not None:
            # Text has six digits; footprints of the CompiledModel tool have two decimals.
            slack = 0.0051 if printed.tool is Tool.COMPILED_MODEL and "memory" in name else 0.0
            if not math.isclose(value, in_file, rel_tol=6e-6, abs_tol=slack):
                raise ParseError(
                    f"the output has {name} = {value:g}, the result file {in_file:g}:"
                    " they are of different runs"
                )
    return dataclasses.replace(printed, **missing)


def check_delegate(result: ToolResult, delegate: str, *, full_required: bool = False) -> Delegate:
    """Returns the delegate's part in a run.

    Args:
      result: The run.
      delegate: "xnnpack", "gpu", "nnapi" or "none", as given to `flags`.
      full_required: The flags forbade the CPU, so that success alone proves full delegation
        where the tool does not report it (LiteRT's tools).

    Raises:
      ParseError: The figures are not of that delegate.
    """
    unknown = [flag for flag in result.unconsumed if _concerns(flag, delegate)]
    if unknown:
        raise ParseError(f"this version of the tool does not know {' '.join(unknown)}")
    took_nodes = [delegate_name(one.delegate) for one in result.replacements if one.nodes]
    if delegate == "none":
        applied = [one.name for one in result.delegates if one.outcome in ("whole", "partial")]
        applied += took_nodes + ["xnnpack"] * result.default_xnnpack
        if applied or result.tool is not Tool.CLASSIC:
            raise ParseError(f"expected no delegate, but {(applied or ['xnnpack'])[0]} ran")
        return Delegate("none", outcome="whole", kernels=0)
    others = [name for name in took_nodes if name not in ("xnnpack", delegate)]
    if others:
        raise ParseError(f"expected the delegate {delegate}, but {others[0]} took nodes")
    if result.tool is not Tool.CLASSIC:
        return _check_litert(result, delegate, full_required=full_required)
    reported = next((one for one in result.delegates if one.name == delegate), None)
    if reported is None:
        raise ParseError(f"expected the delegate {delegate}, but the tool does not report it")
    if reported.outcome in ("declined", "unavailable"):
        how = "took no node of the model" if reported.outcome == "declined" else "is not available"
        raise ParseError(f"the delegate {delegate} {how}: the figures are the CPU's")
    return reported


def _check_litert(result: ToolResult, delegate: str, *, full_required: bool) -> Delegate:
    taken = [one for one in result.replacements if delegate_name(one.delegate) == delegate]
    whole: bool | None = all(one.nodes == one.of for one in taken) if taken else None
    if tuple(map(str.lower, result.accelerators)) == (
        ("cpu",) if delegate == "xnnpack" else (delegate,)
    ):
        whole = result.fully_accelerated
    elif full_required:
        whole = True
    elif not taken and not (delegate == "xnnpack" and result.default_xnnpack):
        raise ParseError(f"expected the delegate {delegate}, but the tool does not report it")
    by_cpu = any(delegate_name(one.delegate) == "xnnpack" for one in result.replacements)
    if delegate != "xnnpack" and (by_cpu or not whole):
        raise ParseError(f"the delegate {delegate} left nodes to the CPU")
    outcome: Outcome | None = None if whole is None else "whole" if whole else "partial"
    one_kernel = whole and len(taken) == 1 and taken[0].partitions == 1
    return Delegate(delegate, outcome=outcome, kernels=1 if one_kernel else None)


def _concerns(flag: str, delegate: str) -> bool:
    words = {"none": ("xnnpack",), "xnnpack": ("xnnpack", "use_cpu")}.get(
        delegate, (delegate, "use_cpu", "require_full_delegation")
    )
    return any(word in flag.partition("=")[0] for word in words)


def delegate_name(runtime_name: str) -> str:
    """Returns the name in our flags of a delegate that the runtime names."""
    lower = runtime_name.lower()
    if re.search(r"gpu|opencl|opengl|vulkan|metal|litert_cl", lower):
        return "gpu"
    known = ("xnnpack", "nnapi", "hexagon", "coreml")
    return next((name for name in known if name in lower), runtime_name)
