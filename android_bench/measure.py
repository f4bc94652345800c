"""Measures several models interleaved, so that the machine's noise affects all of them equally."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from android_bench.measurement import (
    Counted,
    Facts,
    Machine,
    Plan,
    Round,
    Session,
    Target,
    TargetError,
)
from android_bench.model_file import ModelFile
from shufflelite.progress import Progress


@dataclass(frozen=True)
class MeasuredModel:
    """The rounds of one model: of times, or of counted instructions."""

    model: ModelFile
    facts: Facts
    rounds: Sequence[Round] | Sequence[Counted]


@dataclass(frozen=True)
class InterleavedRun:
    """The models that were measured, in the order given, and why others failed."""

    measured: Sequence[MeasuredModel]
    failures: Mapping[str, str]
    before: Machine
    after: Machine


@dataclass(frozen=True)
class Latency:
    """Medians over the rounds of each round's figures; `min_ms` is the minimum of all."""

    median_ms: float
    p5_ms: float
    p95_ms: float
    min_ms: float


@dataclass(frozen=True)
class Ratio:
    """A model's cost over another's, within the same rounds."""

    ratio: float
    ratio_p5: float
    ratio_p95: float


def run(
    target: Target, models: Sequence[ModelFile], *, plan: Plan, progress: Progress, title: str
) -> InterleavedRun:
    """Loads every model, then measures them in turn, one at a time, round by round."""
    try:
        before = target.machine()
    except TargetError as error:  # disconnected before anything was measured
        unknown = Machine(cpu="", governor=None, load_average=None)
        failures = {model.name: str(error) for model in models}
        return InterleavedRun((), failures, unknown, unknown)
    failures = {}
    alive: dict[int, Session] = {}
    rounds: dict[int, list[Any]] = {index: [] for index in range(len(models))}
    facts: dict[int, Facts] = {}

    with contextlib.ExitStack() as stack:

        @contextlib.contextmanager
        def attempt(index: int) -> Iterator[None]:
            try:
                yield
            except TargetError as error:
                failures[models[index].name] = str(error)
                alive.pop(index, None)

        for index in progress.track(range(len(models)), f"{title}: loading models"):
            with attempt(index):
                alive[index] = target.load(models[index].path, warmup=plan.warmup, seed=plan.seed)
                stack.callback(alive[index].close)
        start = time.monotonic()
        planned = range(plan.rounds if alive else 0)
        for round_ in progress.track(planned, f"{title}: measuring rounds"):
            for index in order(len(models), round_=round_):
                if index in alive:
                    with attempt(index):
                        rounds[index].append(alive[index].measure(runs=plan.runs))
            if plan.max_seconds is not None and time.monotonic() - start >= plan.max_seconds:
                break
        for index in list(alive):
            with attempt(index):
                facts[index] = alive[index].finish()

    measured = [MeasuredModel(models[i], facts[i], rounds[i]) for i in sorted(facts)]
    try:
        after = target.machine()
    except TargetError:  # disconnected: what was measured stays
        after = before
    return InterleavedRun(measured, failures, before, after)


def order(count: int, *, round_: int) -> list[int]:
    """The order of a round: each starts with the next model, so that none is always first."""
    return [(round_ + step) % count for step in range(count)]


def latency(rounds: Sequence[Round]) -> Latency:
    """Summarizes the times of all rounds."""
    median, p5, p95 = (
        float(np.median([getattr(round_, name) for round_ in rounds]))
        for name in ("median_ms", "p5_ms", "p95_ms")
    )
    return Latency(median, p5, p95, min(round_.min_ms for round_ in rounds))


def medians_ms(rounds: Sequence[Round] | Sequence[Counted]) -> list[float]:
    """The median of each round; empty if the rounds are counts."""
    return [round_.median_ms for round_ in rounds if isinstance(round_, Round)]


def instructions(rounds: Sequence[Counted]) -> dict[str, int]:
    """The mean of each class over the rounds, which differ by parts per million."""
    classes = rounds[0].instructions
    return {name: round(np.mean([r.instructions[name] for r in rounds])) for name in classes}


def ratio(rounds: Sequence[Any], base: Sequence[Any]) -> Ratio:
    """Median and spread, over the rounds, of one cost over the other of the same round."""
    pairs = [_cost(own) / _cost(other) for own, other in zip(rounds, base, strict=False)]
    p5, median, p95 = np.percentile(pairs, (5, 50, 95))
    return Ratio(float(median), float(p5), float(p95))


def _cost(round_: Round | Counted) -> float:
    return sum(round_.instructions.values()) if isinstance(round_, Counted) else round_.median_ms
