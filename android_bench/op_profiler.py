"""What each operator of a file costs, where the runtime does not tell: each runs alone.

The runtimes' Python interface has no profile; LiteRT's C interface has one, of whole microseconds,
which is all that a small operator takes, and by XNNPACK's names.  So the operators are cut out of
the file.  To each file of its own belongs the start of an inference, which the whole has but once.
It is found by a law, and taken off: an operator and its successor in one file start once, in two
files twice.
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

PAIRS = 9  # that tell the start, spread over the file


@dataclass(frozen=True)
class Alone:
    """One inference of a file: milliseconds on this machine, instructions on an emulated core."""

    cost: float
    delegated: bool  # all of it


@dataclass(frozen=True)
class OperatorCost:
    """An operator in a file; `cost` as in Alone, without the start of an inference."""

    index: int  # in the order in which they run
    type: str
    tensor: str  # name of its first output
    cost: float
    delegated: bool


class Bench(Protocol):
    """The targets `host` and `emulated`, and the latter's sessions."""

    def alone(self, files: Sequence[Path]) -> list[Alone]:
        """What each file costs, all measured in one process; raises TargetError."""


def profile(data: bytes, bench: Bench) -> list[OperatorCost]:
    """The cost of each operator of a .tflite file; those of one kind are measured once.

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
    wanted = [[index] for index in firsts.values()]
    wanted += [[one.index, next_.index] for one, next_ in pairs]
    with tempfile.TemporaryDirectory(prefix="operators-") as folder:
        files = [Path(folder) / f"{number}.tflite" for number in range(len(wanted))]
        for file, operators in zip(files, wanted, strict=True):
            file.write_bytes(extract_ops.extract(data, operators))
        found = bench.alone(files)
    alone = dict(zip(firsts, found[: len(firsts)], strict=True))
    starts = [
        alone[one.kind].cost + alone[next_.kind].cost - both.cost
        for (one, next_), both in zip(pairs, found[len(firsts) :], strict=True)
    ]
    start = max(0.0, statistics.median(starts)) if starts else 0.0
    return [
        OperatorCost(
            part.index,
            part.type,
            part.tensor,
            max(0.0, alone[part.kind].cost - start),  # one that does nothing is mere noise
            alone[part.kind].delegated,
        )
        for part in parts
    ]


def profile_or_note(path: Path, bench: Bench, *, note: str) -> tuple[list[OperatorCost], list[str]]:
    """The profile of a file with the note that belongs to it, or a note why there is none."""
    try:
        return profile(path.read_bytes(), bench), [note]
    except (TargetError, ValueError) as error:
        return [], [f"no profile of {path}: {error}"]
