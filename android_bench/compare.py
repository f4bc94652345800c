"""Compares measurements with earlier ones in the same environment, to find what became slower."""

import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from android_bench import results
from android_bench.results import Environment, Row
from shufflelite.errors import FlagError, InputError

NAMED = 5  # models and environments in a message
Metric = Literal["instructions", "ratio", "ms"]


@dataclass(frozen=True)
class CostChange:
    """One model then and now, in the same environment.

    Attributes:
      target: as --target named it.
      model: its name in the rows.
      metric: what was compared, see `compare`.
      before: the cost in the baseline: instructions, milliseconds, or the ratio.
      after: the cost now.
      growth: after / before - 1.
      beyond_noise: whether the two spreads do not overlap; always true for counts.
    """

    target: str
    model: str
    metric: Metric
    before: float
    after: float
    growth: float
    beyond_noise: bool


@dataclass(frozen=True)
class Comparison:
    """All models of the baseline and of now."""

    limit: float
    changes: Sequence[CostChange]
    differences: Sequence[str]  # between the environments, which may explain the changes
    missing: Sequence[str]  # in the baseline, but not measured now in the same environment
    new: Sequence[str]  # measured now, but not in the baseline in that environment

    @property
    def slower(self) -> list[CostChange]:
        """The models that miss the gate: slower by more than the limit and beyond the noise."""
        allowed = 1 + self.limit
        return [c for c in self.changes if c.after > c.before * allowed and c.beyond_noise]


def parse_limit(text: str) -> float:
    """Reads "5%" as 0.05; raises FlagError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*%\s*", text)
    if match is None:
        raise FlagError(f"Expected --max_regression as a percentage such as 5%, got {text!r}.")
    return float(match[1]) / 100


def check_environments(baseline: Sequence[Row], environments: Collection[Environment]) -> None:
    """Raises InputError if no row is of any of the environments: nothing could be compared."""
    if not baseline:
        raise InputError("expected rows of an earlier run, got none; measure once to have some")
    known = dict.fromkeys(map(results.environment, baseline))
    if not known.keys() & set(environments):
        raise InputError(
            "expected rows of the same device, cores, runtime, threads and delegate as"
            f" {_listed(environments)}, got those of {_listed(known)}"
        )


def check_models(baseline: Sequence[Row], models: Collection[tuple[Environment, str]]) -> None:
    """Raises InputError if no row is of any of the models, by its name, in its environment."""
    check_environments(baseline, [environment for environment, _ in models])
    if not {(results.environment(row), row.model) for row in baseline} & set(models):
        raise InputError(
            f"expected a row of {_listed(name for _, name in models)}, by which name models are"
            f" compared, got those of {_listed(row.model for row in baseline)}"
        )


def compare(baseline: Sequence[Row], new: Sequence[Row], *, limit: float) -> Comparison:
    """Compares the last row of each model, by name, in the environments that both sides have.

    Instructions are compared as they are.  Times vary, so a difference of two medians beyond
    `limit` counts only if their spreads, p5 to p95, do not overlap.  Ratios are compared if both
    are to the same file, since the machine's state cancels out; otherwise, and for the reference
    itself, milliseconds.

    Raises:
      InputError: the sides share no model in any environment, see `check_models`.
    """
    then, now = _last(baseline), _last(new)
    pairs = [(then[key], now[key]) for key in now if key in then]
    environments = {results.environment(row) for row in new}
    if not pairs:
        check_models(baseline, now.keys())
    return Comparison(
        limit=limit,
        changes=[_change(*pair) for pair in pairs],
        differences=_differences([(old, new) for (old, _), (new, _) in pairs]),
        missing=[
            f"{row.model} on {row.target}"
            for key, (row, _) in then.items()
            if key not in now and key[0] in environments
        ],
        new=[f"{row.model} on {row.target}" for key, (row, _) in now.items() if key not in then],
    )


_Key = tuple[Environment, str]
_Entry = tuple[Row, Row | None]  # a row, and the one that its ratio is to


def _last(rows: Sequence[Row]) -> dict[_Key, _Entry]:
    pairs = zip(rows, results.references(rows), strict=True)
    return {(results.environment(row), row.model): (row, reference) for row, reference in pairs}


def _change(then: _Entry, now: _Entry) -> CostChange:
    (old, old_reference), (new, new_reference) = then, now
    metric: Metric = "ms"
    if old.instructions is not None and new.instructions is not None:
        metric = "instructions"
    elif (
        old_reference is not None
        and new_reference is not None
        and old_reference.sha256 == new_reference.sha256
        and old.model != old.ratio_to
        and new.model != new.ratio_to
    ):
        metric = "ratio"
    low, before, high = _spread(old, metric)
    new_low, after, new_high = _spread(new, metric)
    beyond_noise = metric == "instructions" or new_low > high or new_high < low
    growth = after / before - 1 if before else math.inf
    return CostChange(new.target, new.model, metric, before, after, growth, beyond_noise)


def _spread(row: Row, metric: Metric) -> tuple[float, float, float]:
    """The low end, the middle and the high end of the metric."""
    if metric == "instructions":
        count = float(results.total_instructions(row))
        return count, count, count
    if metric == "ratio":
        return row.ratio_p5, row.ratio, row.ratio_p95
    assert row.median_ms is not None
    return row.p5_ms or row.median_ms, row.median_ms, row.p95_ms or row.median_ms


def _differences(pairs: Sequence[tuple[Row, Row]]) -> list[str]:
    differences = [
        f"{new.target}: {name.replace('_', ' ')} was {getattr(old, name)}, is {getattr(new, name)}"
        for old, new in pairs
        for name in ("runtime_version", "cpu", "governor", "delegate")
        if getattr(old, name) != getattr(new, name)
    ]
    return list(dict.fromkeys(differences))


def _listed(items: Iterable[object]) -> str:
    texts = list(dict.fromkeys(map(str, items)))
    more = f" and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    return ", ".join(texts[:NAMED]) + more
