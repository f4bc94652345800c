"""Compares measurements with earlier ones of the same place: what got slower."""

import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from android_bench import results
from android_bench.errors import FlagError
from android_bench.results import Place, Row
from shufflelite.errors import InputError

NAMED = 5  # models and places in a message
Measure = Literal["instructions", "ratio", "ms"]


@dataclass(frozen=True)
class Change:
    """One model then and now, on the same place.

    Attributes:
      target: where, as --target named it.
      model: its name in the rows.
      measure: what was compared, see `compare`.
      before: the cost in the baseline: instructions, milliseconds, or the ratio.
      after: the cost now.
      growth: after / before - 1.
      apart: whether the spreads of both do not overlap; counts have none.
    """

    target: str
    model: str
    measure: Measure
    before: float
    after: float
    growth: float
    apart: bool


@dataclass(frozen=True)
class Comparison:
    """All models of both sides; `slower` are those that a gate is missed for."""

    limit: float
    changes: Sequence[Change]
    differences: Sequence[str]  # between the places then and now, which the changes may be due to
    missing: Sequence[str]  # in the baseline, on a place that was measured now, and not now
    new: Sequence[str]  # measured now, and not in the baseline on that place

    @property
    def slower(self) -> list[Change]:
        """What costs more than the limit allows, by more than the noise of either side."""
        allowed = 1 + self.limit
        return [c for c in self.changes if c.after > c.before * allowed and c.apart]

    @property
    def passed(self) -> bool:
        """Whether nothing got slower."""
        return not self.slower


def parse_limit(text: str) -> float:
    """Reads "5%" as 0.05; raises FlagError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*%\s*", text)
    if match is None:
        raise FlagError(f"Expected --max_regression as a percentage such as 5%, got {text!r}.")
    return float(match[1]) / 100


def check_places(baseline: Sequence[Row], places: Collection[Place]) -> None:
    """Raises InputError where no row is of a place: nothing there could ever get slower."""
    if not baseline:
        raise InputError("expected rows of an earlier run, got none; measure once to have some")
    then = dict.fromkeys(map(results.place, baseline))
    if not then.keys() & set(places):
        raise InputError(
            "expected rows of the same place, cores, runtime, threads and delegate as"
            f" {_all(places)}, got those of {_all(then)}"
        )


def check(baseline: Sequence[Row], wanted: Collection[tuple[Place, str]]) -> None:
    """Raises InputError where no row is of a model, by its name, at a place it is wanted at."""
    check_places(baseline, [place for place, _ in wanted])
    if not {(results.place(row), row.model) for row in baseline} & set(wanted):
        raise InputError(
            f"expected a row of {_all(name for _, name in wanted)}, by which name models are"
            f" compared, got those of {_all(row.model for row in baseline)}"
        )


def compare(baseline: Sequence[Row], new: Sequence[Row], *, limit: float) -> Comparison:
    """Compares the last row of each model, name by name, on places that both sides have.

    Instructions are compared as they are.  Times vary, so two medians further apart than `limit`
    count only where the spreads of both, p5 to p95, do not overlap.  Ratios are compared where both
    are to the same file, since the machine's state is out of them; the reference itself, and all
    where its file has changed, by milliseconds.

    Raises:
      InputError: the sides share no model on any place, see `check`.
    """
    then, now = _last(baseline), _last(new)
    changes = [_change(then[key], now[key]) for key in now if key in then]
    places = {results.place(row) for row in new}
    if not changes:
        check(baseline, now.keys())
    return Comparison(
        limit=limit,
        changes=changes,
        differences=_differences([(then[key][0], now[key][0]) for key in now if key in then]),
        missing=[
            f"{row.model} on {row.target}"
            for key, (row, _) in then.items()
            if key not in now and results.place(row) in places
        ],
        new=[f"{row.model} on {row.target}" for key, (row, _) in now.items() if key not in then],
    )


_Key = tuple[Place, str]
_Entry = tuple[Row, Row | None]  # a row, and the one that its ratio is to


def _last(rows: Sequence[Row]) -> dict[_Key, _Entry]:
    pairs = zip(rows, results.references(rows), strict=True)
    return {(results.place(row), row.model): (row, reference) for row, reference in pairs}


def _change(then: _Entry, now: _Entry) -> Change:
    (old, old_reference), (new, new_reference) = then, now
    measure: Measure = "ms"
    if old.instructions is not None and new.instructions is not None:
        measure = "instructions"
    elif (
        old_reference is not None
        and new_reference is not None
        and old_reference.sha256 == new_reference.sha256
        and old.model != old.ratio_to
        and new.model != new.ratio_to
    ):
        measure = "ratio"
    low, before, high = _span(old, measure)
    new_low, after, new_high = _span(new, measure)
    apart = measure == "instructions" or new_low > high or new_high < low
    growth = after / before - 1 if before else math.inf
    return Change(new.target, new.model, measure, before, after, growth, apart)


def _span(row: Row, measure: Measure) -> tuple[float, float, float]:
    """The low end, the middle and the high end of what was measured."""
    if measure == "instructions":
        assert row.instructions is not None
        count = float(sum(row.instructions.values()))
        return count, count, count
    if measure == "ratio":
        return row.ratio_p5, row.ratio, row.ratio_p95
    assert row.median_ms is not None
    low, high = (end or row.median_ms for end in (row.p5_ms, row.p95_ms))
    return low, row.median_ms, high


def _differences(pairs: Sequence[tuple[Row, Row]]) -> list[str]:
    told = [
        f"{new.target}: {name.replace('_', ' ')} was {getattr(old, name)}, is {getattr(new, name)}"
        for old, new in pairs
        for name in ("runtime_version", "cpu", "governor", "delegate")
        if getattr(old, name) != getattr(new, name)
    ]
    return list(dict.fromkeys(told))


def _all(things: Iterable[object]) -> str:
    told = list(dict.fromkeys(map(str, things)))
    return ", ".join(told[:NAMED]) + (f" and {len(told) - NAMED} more" * (len(told) > NAMED))
