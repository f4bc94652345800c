"""Which delegate ran which part of a model, by each source that reports it."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from android_bench.measurement import DEFAULT_DELEGATE, UNKNOWN, OperatorTime, TargetError


class ParseError(TargetError):
    """Output that lacks a figure, contradicts itself or reports a failure; one short line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split())[:500])


@dataclass(frozen=True)
class Delegation:
    """What a source reports on the primary graph."""

    source: str  # for messages
    partitions: Mapping[str, int | None]  # by delegate; 0: it took none; None: it took some
    undelegated: Mapping[str, int] | None = None  # operators by type; None: not reported


def of_profile(rows: Iterable[OperatorTime], *, delegate: str) -> list[Delegation]:
    """What a profile of a run shows; empty if its names do not show who ran each operator."""
    counts: dict[bool | None, Counter[str]] = {True: Counter(), False: Counter(), None: Counter()}
    for row in rows:
        counts[row.delegated][row.type] += row.calls
    if counts[None] or not (counts[True] or counts[False]):
        return []
    # The rows of delegates do not name them, and XNNPACK may run what another one leaves.
    taken: dict[str, int | None] = {DEFAULT_DELEGATE: 0, delegate: 0}
    if counts[True]:
        taken = {DEFAULT_DELEGATE: None} if delegate in (DEFAULT_DELEGATE, "none") else {}
    return [Delegation("the profile", taken, dict(counts[False]))]


def combine(sources: Sequence[Delegation]) -> Delegation:
    """Returns what all sources together report.

    Raises:
      ParseError: Two of them contradict each other.
    """
    partitions: dict[str, int | None] = {}
    undelegated: Mapping[str, int] | None = None
    for source in sources:
        for name, number in source.partitions.items():
            known = partitions.get(name, number)
            if known != number and (0 in (known, number) or None not in (known, number)):
                _refuse(f"what {name} took of the model", sources)
            partitions[name] = number if known is None else known
        if undelegated is None:
            undelegated = source.undelegated
        # Sources may name a custom operator differently, and count its calls: any or none is sure.
        elif source.undelegated is not None and bool(source.undelegated) != bool(undelegated):
            _refuse("what no delegate took of the model", sources)
    return Delegation("the tool", partitions, undelegated)


def _refuse(what: str, sources: Sequence[Delegation]) -> None:
    reports = "; ".join(
        f"{one.source}: partitions {dict(one.partitions)}"
        + ("" if one.undelegated is None else f", undelegated {dict(one.undelegated)}")
        for one in sources
    )
    raise ParseError(f"the tool contradicts itself on {what} ({reports})")


def in_use(found: Delegation, requested: str | None, *, whole: bool = False) -> str:
    """Returns the delegate that the figures are of: "none" if it took no operator.

    Args:
      found: What all sources report.
      requested: The delegate, or None for XNNPACK where it takes anything.
      whole: Whether a part of the model on the CPU is an error.

    Raises:
      ParseError: The figures are not of the requested delegate.
    """
    took = [name for name, number in found.partitions.items() if number != 0]
    if requested == "none":
        if took:
            raise ParseError(f"expected no delegate, but {took[0]} took operators")
        return "none"
    name = requested or DEFAULT_DELEGATE
    others = [one for one in took if one not in (name, DEFAULT_DELEGATE)]
    if others:
        raise ParseError(f"expected the delegate {name}, but {others[0]} took operators")
    if name not in took and requested is None:
        return "none" if name in found.partitions else UNKNOWN
    if name not in found.partitions:
        raise ParseError(f"expected the delegate {name}, but the tool does not report it")
    if name not in took:
        raise ParseError(
            f"the delegate {name} took no operator of the model, or is not available there: the"
            " figures are the CPU's"
        )
    if whole and (found.undelegated != {} or len(took) > 1):
        raise ParseError(f"the delegate {name} left operators to the CPU")
    return name


def delegate_name(runtime_name: str) -> str:
    """Returns the name in our flags of a delegate that the runtime names."""
    lower = runtime_name.lower()
    if re.search(r"gpu|opencl|opengl|vulkan|metal|litert_cl", lower):
        return "gpu"
    known = ("xnnpack", "nnapi", "hexagon", "coreml")
    return next((name for name in known if name in lower), runtime_name)
