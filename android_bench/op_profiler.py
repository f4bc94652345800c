"""The cost of each operator of a file: each runs isolated, in a file of its own.

The runtimes' Python interface has no profiler; that of LiteRT's C interface counts in whole
microseconds, which is all that a small operator takes, and has XNNPACK's names.  So each operator
is extracted into a file.  Its cost there includes the overhead of an inference, which the whole
file pays only once.  The overhead is estimated from pairs of neighbours and subtracted: a pair in
one file pays it once, in two files twice.
"""

import itertools
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from android_bench.measurement import TargetError
from tflite_file import extract_ops

PAIRS = 9  # of neighbours, spread over the file


@dataclass(frozen=True)
class IsolatedCost:
    """One inference of a file: milliseconds on this machine, instructions on an emulated core."""

    cost: float
    delegated: bool  # all of its operators


@dataclass(frozen=True)
class OperatorCost:
    """An operator in a file; `cost` as in IsolatedCost, without the overhead of an inference."""

    index: int  # in the order of execution
    type: str
    tensor: str  # name of its first output
    cost: float
    delegated: bool


class Bench(Protocol):
    """The targets `host` and `emulated`, and the latter's sessions."""

    def isolated_costs(self, files: Sequence[Path]) -> list[IsolatedCost]:
        """The cost of each file, all measured in one process; raises TargetError."""


def profile(data: bytes, bench: Bench) -> list[OperatorCost]:
    """The cost of each operator of a .tflite file; equal ones are measured once.

    Raises:
      TargetError: the runtime refuses an operator, or the process has died.
      ValueError: the file is damaged, or has several subgraphs.
    """
    parts = extract_ops.list_ops(data)
    firsts: dict[str, int] = {}
    for part in parts:
        firsts.setdefault(part.kind, part.index)
    pairs = list(itertools.pairwise(parts))
    pairs = pairs[:: max(1, len(pairs) // PAIRS)]
    extracts = [[index] for index in firsts.values()]
    extracts += [[one.index, next_.index] for one, next_ in pairs]
    with tempfile.TemporaryDirectory(prefix="operators-") as folder:
        files = [Path(folder) / f"{number}.tflite" for number in range(len(extracts))]
        for file, operators in zip(files, extracts, strict=True):
            file.write_bytes(extract_ops.extract(data, operators))
        costs = bench.isolated_costs(files)
    by_kind = dict(zip(firsts, costs[: len(firsts)], strict=True))
    overheads = [
        by_kind[one.kind].cost + by_kind[next_.kind].cost - both.cost
        for (one, next_), both in zip(pairs, costs[len(firsts) :], strict=True)
    ]
    overhead = max(0.0, statistics.median(overheads)) if overheads else 0.0
    return [
        OperatorCost(
            part.index,
            part.type,
            part.tensor,
            max(0.0, by_kind[part.kind].cost - overhead),  # a no-op yields only noise
            by_kind[part.kind].delegated,
        )
        for part in parts
    ]


def profile_or_note(path: Path, bench: Bench, *, note: str) -> tuple[list[OperatorCost], list[str]]:
    """The profile of a file and its note, or a note why there is no profile."""
    try:
        return profile(path.read_bytes(), bench), [note]
    except (TargetError, ValueError) as error:
        return [], [f"no profile of {path}: {error}"]
