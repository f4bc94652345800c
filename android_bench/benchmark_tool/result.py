"""What a run of a benchmark tool told, and whether that may be believed."""

import dataclasses
import enum
import math
import re
from dataclasses import dataclass
from typing import Literal

from android_bench.measurement import TargetError


class ParseError(TargetError):
    """Output that is cut off, damaged or contradicts itself, or that tells of a failure."""


class Tool(enum.Enum):
    """The program that spoke; the value is its name in messages."""

    CLASSIC = "benchmark_model (TFLite)"
    COMPILED_MODEL = "benchmark_model (LiteRT CompiledModel)"
    LITERT_BENCHMARK = "litert-benchmark"


@dataclass(frozen=True)
class Delegate:
    """What became of a delegate that was asked for."""

    name: str  # "xnnpack", "gpu", "nnapi", "hexagon", ...
    asked: bool  # the tool lists its flag; False: only its outcome is told
    outcome: Literal["whole", "partial", "declined", "unavailable"] | None  # None: not told
    kernels: int | None  # partitions of the graph that it runs


@dataclass(frozen=True)
class Replacement:
    """The runtime's own line on a delegate taking nodes of a subgraph."""

    delegate: str  # the runtime's name for it, as "TfLiteXNNPackDelegate"
    nodes: int
    of: int | None  # None: an old runtime does not tell
    partitions: int  # with those that stay with the interpreter


@dataclass(frozen=True)
class Result:
    """One run of a tool; None: not told.  Footprints are in MB of 2**20 bytes."""

    tool: Tool | None  # None: read from a result file, which does not tell
    graph: str | None  # the model's path, as the tool was given it

    runs: int  # timed inferences
    avg_ms: float
    min_ms: float
    max_ms: float
    std_ms: float
    median_ms: float | None  # the percentiles came with TF 2.20
    p5_ms: float | None
    p95_ms: float | None

    init_ms: float | None
    first_ms: float | None  # the first inference, which is the first of the warm-up
    warmup_runs: int | None
    warmup_ms: float | None  # average

    init_memory_mb: float | None = None  # growth of the footprint while loading
    memory_mb: float | None = None  # growth over the whole run
    peak_memory_mb: float | None = None  # of the whole process
    model_size_mb: float | None = None  # of 10**6 bytes

    delegates: tuple[Delegate, ...] = ()
    replacements: tuple[Replacement, ...] = ()
    default_xnnpack: bool = False  # the runtime made an XNNPACK delegate nobody asked for
    accelerators: tuple[str, ...] = ()  # litert-benchmark: those it was allowed, as "CPU"
    fully_accelerated: bool | None = None  # litert-benchmark
    unconsumed: tuple[str, ...] = ()  # flags that this version of the tool does not know
    dropped_profile_events: bool = False  # the profile lacks operators
    errors: tuple[str, ...] = ()  # lines of severity ERROR that did not end the run


_FIGURES = [
    *("runs", "avg_ms", "min_ms", "max_ms", "std_ms", "median_ms", "p5_ms", "p95_ms"),
    *("init_ms", "first_ms", "warmup_runs", "warmup_ms"),
    *("init_memory_mb", "memory_mb", "peak_memory_mb", "model_size_mb"),
]


def check_delegate(result: Result, delegate: str, *, full_required: bool = False) -> Delegate:
    """The delegate's part in a run; raises ParseError unless the figures are that delegate's.

    Args:
      result: The run.
      delegate: "xnnpack", "gpu", "nnapi" or "none", as given to `flags`.
      full_required: The flags forbade the CPU, so that a run that succeeded proves itself where
        the tool does not tell (LiteRT's tools).
    """
    unknown = [flag for flag in result.unconsumed if _concerns(flag, delegate)]
    if unknown:
        raise ParseError(f"this version of the tool does not know {' '.join(unknown)}")
    if delegate == "none":
        return _check_none(result)
    others = [name for name in _runtime_names(result) if kind(name) not in ("xnnpack", delegate)]
    if others:
        raise ParseError(f"expected the delegate {delegate}, but {others[0]} took nodes")
    if result.tool is not Tool.CLASSIC:
        return _check_litert(result, delegate, full_required=full_required)
    found = next((one for one in result.delegates if one.name == delegate), None)
    if found is None or found.outcome is None:
        raise ParseError(f"expected the delegate {delegate}, but nothing says it was applied")
    if found.outcome in ("declined", "unavailable"):
        how = "took no node of the model" if found.outcome == "declined" else "is not to be had"
        raise ParseError(f"the delegate {delegate} {how}: these are the CPU's figures")
    return found


def agree(result: Result, file: Result) -> Result:
    """The printed result, completed by the result file of the same run.

    Raises:
      ParseError: They differ by more than the rounding of what is printed.
    """
    filled = {}
    for name in _FIGURES:
        ours, theirs = getattr(result, name), getattr(file, name)
        if ours is None:
            filled[name] = theirs
        elif theirs is not None:
            # Text has six digits, and footprints of the CompiledModel tool two decimals.
            slack = 0.0051 if result.tool is Tool.COMPILED_MODEL and "memory" in name else 0.0
            if not math.isclose(ours, theirs, rel_tol=6e-6, abs_tol=slack):
                raise ParseError(
                    f"the output says {name} = {ours:g}, the result file {theirs:g}:"
                    " they are not of one run, or one of them is damaged"
                )
    return dataclasses.replace(result, **filled)


def _check_none(result: Result) -> Delegate:
    applied = [one.name for one in result.delegates if one.outcome in ("whole", "partial")]
    applied += _runtime_names(result)
    if result.default_xnnpack:
        applied.append("xnnpack")
    if applied or result.tool is not Tool.CLASSIC:
        raise ParseError(f"expected no delegate, but {applied[0] if applied else 'xnnpack'} ran")
    return Delegate("none", asked=True, outcome="whole", kernels=0)


def _check_litert(result: Result, delegate: str, *, full_required: bool) -> Delegate:
    taken = [one for one in result.replacements if kind(one.delegate) == delegate]
    cpu = [one for one in result.replacements if kind(one.delegate) == "xnnpack"]
    if delegate != "xnnpack" and cpu:
        raise ParseError(f"the delegate {delegate} left {cpu[0].nodes} nodes to the CPU")
    allowed = tuple(name.lower() for name in result.accelerators)
    by_file = allowed == (("cpu",) if delegate == "xnnpack" else (delegate,))
    by_cpu = delegate == "xnnpack" and result.default_xnnpack  # the only delegate of the CPU there
    whole = all(one.nodes == one.of for one in taken) if taken else None
    if by_file:
        whole = result.fully_accelerated
    elif full_required:
        whole = True
    elif not (taken or by_cpu):
        raise ParseError(f"expected the delegate {delegate}, but nothing says it was applied")
    if delegate != "xnnpack" and not whole:
        raise ParseError(f"the delegate {delegate} left nodes to the CPU")
    outcome: Literal["whole", "partial"] | None = None
    if whole is not None:
        outcome = "whole" if whole else "partial"
    kernels = 1 if whole and len(taken) == 1 and taken[0].partitions == 1 else None
    return Delegate(delegate, asked=True, outcome=outcome, kernels=kernels)


def _concerns(flag: str, delegate: str) -> bool:
    words = {"none": ("xnnpack",), "xnnpack": ("xnnpack", "use_cpu")}.get(
        delegate, (delegate, "use_cpu", "require_full_delegation")
    )
    return any(word in flag.partition("=")[0] for word in words)


def _runtime_names(result: Result) -> list[str]:
    return [one.delegate for one in result.replacements if one.nodes]


def kind(runtime_name: str) -> str:
    """Our name of a delegate that the runtime names."""
    lower = runtime_name.lower()
    if re.search(r"gpu|opencl|opengl|vulkan|metal|litert_cl", lower):
        return "gpu"
    for kind in ("xnnpack", "nnapi", "hexagon", "coreml"):
        if kind in lower:
            return kind
    return runtime_name
