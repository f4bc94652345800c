"""Compares measurements with earlier ones in the same environment, to find what became slower.

Times are compared as ratios to a control: a file that is the same in both runs, and took turns with
the model in each round, so the machine's state cancels out.  The rounds of both runs are resampled
(bootstrap): a model is slower if its growth exceeds the limit in 99 of 100 resamplings.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from android_bench import results
from android_bench.results import Environment, Row
from shufflelite.errors import FlagError, InputError

CONFIDENCE = 0.99  # of `least` and of `most`, each
RESAMPLINGS = 1000
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
      least: `growth` that is exceeded with CONFIDENCE; for counts, `growth` itself.
      most: `growth` that is not reached with CONFIDENCE.
      same: whether file, runtime and delegate are the same: what grew is the machine's.
    """

    target: str
    model: str
    metric: Metric
    before: float
    after: float
    least: float
    most: float
    same: bool

    @property
    def growth(self) -> float:
        """The relative change of the cost."""
        return _growth(self.before, self.after)


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
        """The models that miss the gate."""
        return [change for change in self.changes if self.verdict(change) == "SLOWER"]

    def verdict(self, change: CostChange) -> str:
        """Describes a change in a few words; empty: it needs none."""
        if change.metric != "instructions" and change.same:
            return "same file and runtime"
        if change.least > self.limit:
            return "SLOWER"
        if change.growth > self.limit:
            return "uncertain"
        return "within the noise" if change.least <= 0 <= change.most else ""


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

    Instructions are compared as they are; without a control, so are milliseconds, which contain the
    load of the machine.

    Raises:
      InputError: the sides share no model in any environment, see `check_models`.
    """
    then, now = _last(baseline), _last(new)
    keys = [key for key in now if key in then]
    environments = {results.environment(row) for row in new}
    if not keys:
        check_models(baseline, now.keys())
    return Comparison(
        limit=limit,
        changes=[_change(then[key], now[key], _control(key, then, now)) for key in keys],
        differences=_differences([(then[key].row, now[key].row) for key in keys]),
        missing=[
            f"{row.model} on {row.target}"
            for key, (row, _) in then.items()
            if key not in now and key[0] in environments
        ],
        new=[f"{row.model} on {row.target}" for key, (row, _) in now.items() if key not in then],
    )


_Key = tuple[Environment, str]


class _Entry(NamedTuple):
    row: Row
    reference: Row | None  # that its ratio is to


def _last(rows: Sequence[Row]) -> dict[_Key, _Entry]:
    pairs = zip(rows, results.references(rows), strict=True)
    return {(results.environment(row), row.model): _Entry(row, other) for row, other in pairs}


def _control(
    key: _Key, then: Mapping[_Key, _Entry], now: Mapping[_Key, _Entry]
) -> tuple[Row, Row] | None:
    """Returns the rows, then and now, of a file that took turns with the model and is the same.

    Best the reference.  If the runtime has changed, nothing is left to compare the reference with.
    """
    old, new = then[key], now[key]
    if old.reference is None or new.reference is None:
        return None
    if (
        old.row is not old.reference
        and new.row is not new.reference
        and old.reference.sha256 == new.reference.sha256
    ):
        return old.reference, new.reference
    others = (
        (then[other].row, now[other].row)
        for other in now
        if other != key and other in then
        if then[other].reference is old.reference and now[other].reference is new.reference
    )
    return next((rows for rows in others if _is_same(*rows)), None)


def _is_same(old: Row, new: Row) -> bool:
    names = ("sha256", "runtime_version", "delegate", "delegate_partitions")
    return all(getattr(old, name) == getattr(new, name) for name in names)


def _change(then: _Entry, now: _Entry, control: tuple[Row, Row] | None) -> CostChange:
    old, new = then.row, now.row
    same = _is_same(old, new)
    if old.instructions is not None and new.instructions is not None:
        before, after = (float(results.total_instructions(row)) for row in (old, new))
        growth = _growth(before, after)
        return CostChange(
            new.target, new.model, "instructions", before, after, growth, growth, same
        )
    metric: Metric = "ms"
    rounds = _rounds_ms(old), _rounds_ms(new)
    if control is not None:
        ratios = _ratios(then, control[0]), _ratios(now, control[1])
        if ratios[0] and ratios[1]:
            metric, rounds = "ratio", ratios
    before, after = (float(np.median(values)) for values in rounds)
    least, most = _bounds(*rounds)
    return CostChange(new.target, new.model, metric, before, after, least, most, same)


def _rounds_ms(row: Row) -> Sequence[float]:
    # Rows before 2026-12 lack the rounds: three stand for them.
    assert row.median_ms is not None
    middle = row.median_ms
    return row.round_ms or (row.p5_ms or middle, middle, row.p95_ms or middle)


def _ratios(entry: _Entry, control: Row) -> Sequence[float]:
    row = entry.row
    same_rounds = row.round_ms and len(row.round_ms) == len(control.round_ms)
    if same_rounds and all(ms > 0 for ms in control.round_ms):
        return [own / other for own, other in zip(row.round_ms, control.round_ms, strict=True)]
    return (row.ratio_p5, row.ratio, row.ratio_p95) if control is entry.reference else ()


def _bounds(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """Returns the least and the most growth of the median, with CONFIDENCE each."""
    sound = all(1e-9 < value < 1e9 for value in (*before, *after))  # else a row was damaged
    if min(len(before), len(after)) < 2 or not sound:
        return -1.0, math.inf
    rng = np.random.default_rng(0)
    medians = [
        np.median(rng.choice(values, (RESAMPLINGS, len(values))), axis=1)
        for values in (before, after)
    ]
    least, most = np.quantile(medians[1] / medians[0], (1 - CONFIDENCE, CONFIDENCE)) - 1
    return float(least), float(most)


def _growth(before: float, after: float) -> float:
    return (after - before) / before if before else math.inf


def _differences(pairs: Sequence[tuple[Row, Row]]) -> list[str]:
    differences = [
        f"{new.target}: {name.replace('_', ' ')} was {getattr(old, name)}, is {getattr(new, name)}"
        for old, new in pairs
        for name in ("runtime_version", "cpu", "instruction_set", "governor", "delegate")
        if getattr(old, name) != getattr(new, name)
        if name != "instruction_set" or old.instruction_set  # old rows do not name it
    ]
    return list(dict.fromkeys(differences))


def _listed(items: Iterable[object]) -> str:
    texts = list(dict.fromkeys(map(str, items)))
    more = f" and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    return ", ".join(texts[:NAMED]) + more
