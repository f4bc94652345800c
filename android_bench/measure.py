"""Measures several models interleaved, so that noise of the machine reaches them all alike."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from android_bench.model_file import ModelFile
from android_bench.targets import Facts, Machine, Session, Target, TargetError

Track = Callable[[range, str], Iterable[int]]  # shows how far a loop is


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    rounds: int = 20
    runs: int = 10  # timed inferences of each model in each round
    warmup: int = 5
    seed: int = 0
    max_seconds: float | None = None  # no new round after that


@dataclass(frozen=True)
class Measured:
    """One model's times."""

    model: ModelFile
    facts: Facts
    times_ns: np.ndarray  # (rounds, runs)


@dataclass(frozen=True)
class Sweep:
    """What a run yielded: the models measured in the order given, and why others were not."""

    measured: Sequence[Measured]
    failures: Mapping[str, str]
    before: Machine
    after: Machine


@dataclass(frozen=True)
class Latency:
    """Over all timed inferences of a model."""

    median_ms: float
    p5_ms: float
    p95_ms: float
    min_ms: float


@dataclass(frozen=True)
class Ratio:
    """A model's time over another's, within the same rounds."""

    ratio: float
    ratio_p5: float
    ratio_p95: float


def run(target: Target, models: Sequence[ModelFile], *, plan: Plan, track: Track) -> Sweep:
    """Loads every model, then measures them in turn, one at a time, round by round."""
    before = target.machine()
    failures: dict[str, str] = {}
    alive: dict[int, Session] = {}
    times: dict[int, list[list[int]]] = {index: [] for index in range(len(models))}
    facts: dict[int, Facts] = {}

    with contextlib.ExitStack() as stack:

        @contextlib.contextmanager
        def attempt(index: int) -> Iterator[None]:
            try:
                yield
            except TargetError as error:
                failures[models[index].name] = str(error)
                alive.pop(index, None)

        for index in track(range(len(models)), "loading models"):
            with attempt(index):
                alive[index] = target.load(models[index].path, warmup=plan.warmup, seed=plan.seed)
                stack.callback(alive[index].close)
        start = time.monotonic()
        for round_ in track(range(plan.rounds if alive else 0), "measuring rounds"):
            for index in order(len(models), round_=round_):
                if index in alive:
                    with attempt(index):
                        times[index].append(alive[index].measure(runs=plan.runs))
            if plan.max_seconds is not None and time.monotonic() - start >= plan.max_seconds:
                break
        for index in list(alive):
            with attempt(index):
                facts[index] = alive[index].finish()

    measured = [Measured(models[i], facts[i], np.array(times[i])) for i in sorted(facts)]
    return Sweep(measured, failures, before, target.machine())


def order(count: int, *, round_: int) -> list[int]:
    """The order of a round: each begins with the next model, so that none is always first."""
    return [(round_ + step) % count for step in range(count)]


def latency(times_ns: np.ndarray) -> Latency:
    """Percentiles over all inferences, rounds taken together."""
    p5, median, p95 = np.percentile(times_ns / 1e6, (5, 50, 95))
    return Latency(float(median), float(p5), float(p95), float(times_ns.min() / 1e6))


def ratio(times_ns: np.ndarray, base_ns: np.ndarray) -> Ratio:
    """Median and spread, over the rounds, of one median time over the other of the same round."""
    pairs = np.median(times_ns, axis=1) / np.median(base_ns, axis=1)
    p5, median, p95 = np.percentile(pairs, (5, 50, 95))
    return Ratio(float(median), float(p5), float(p95))
