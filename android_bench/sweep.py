"""Many networks, converted and measured by one file of settings; see configs/.

The models of a grid are measured in heats of a few, since all of one heat are in memory at once.
Each heat begins with the same reference model, so that ratios to it hold across heats.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from android_bench import build_cache, measure, model_file, results, scheduler
from android_bench.build_cache import Option, Wanted
from android_bench.measurement import DEFAULT_DELEGATE, Machine, Target, TargetError
from android_bench.model_file import ModelFile
from android_bench.paper_claims import Claim
from android_bench.results import Row
from shufflelite import atomic, config
from shufflelite.errors import InputError
from shufflelite.progress import Progress


@dataclass(frozen=True)
class Grid:
    """Networks of one family: the Cartesian product of all that is given as a list."""

    model: str
    resolution: int | tuple[int, ...] | None = None  # None: that of the paper
    options: Mapping[str, Option | tuple[Option, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in (("resolution", self.resolution), *self.options.items()):
            if value == ():
                raise InputError(f"expected {name!r} to be a value or a list of some, got [].")


@dataclass(frozen=True)
class MeasureSettings:
    """How much to measure; see measure.Plan."""

    rounds: int = 20
    runs: int = 10
    warmup: int = 5
    seed: int = 0
    max_seconds: float | None = None  # of each heat
    counted_rounds: int = 2  # on emulated cores, whose counts repeat to parts per million
    heat: int = 8  # models in memory at once, the reference included

    def __post_init__(self) -> None:
        for name, least in (("rounds", 1), ("runs", 1), ("counted_rounds", 1), ("heat", 2)):
            if getattr(self, name) < least:
                raise InputError(f"expected {name!r} >= {least}, got {getattr(self, name)}.")
        for name in ("warmup", "seed"):
            if getattr(self, name) < 0:
                raise InputError(f"expected {name!r} >= 0, got {getattr(self, name)}.")
        if self.max_seconds is not None and not 0 <= self.max_seconds < math.inf:
            raise InputError(
                f"expected 'max_seconds' to be 0 or more seconds, got {self.max_seconds:g}."
            )


@dataclass(frozen=True)
class SweepSettings:
    """A file of settings.  The first network of all is the one that ratios are to."""

    grid: tuple[Grid, ...] = ()
    convert: Mapping[str, Option] = field(default_factory=dict)  # flags of its command
    measure: MeasureSettings = field(default_factory=MeasureSettings)
    claim: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where to measure: a target, and the words that --target said it with."""

    name: str
    target: Target
    delegate: str = DEFAULT_DELEGATE


@dataclass(frozen=True)
class Done:
    """What a sweep yielded.

    `rows` holds one for each place and network, new or found; `models` the names in them.
    """

    rows: Sequence[Row]
    models: Mapping[Wanted, str]
    failures: Mapping[str, str]


def load(path: str | Path, overrides: Sequence[str] = ()) -> SweepSettings:
    """Reads and checks a sweep; nothing is converted, so mistakes are told at once.

    Raises:
      InputError: the file, or a network in it, is wrong.
    """
    sweep = config.load(path, SweepSettings, overrides)
    try:
        build_cache.recipe(sweep.convert)
        if not networks(sweep):
            raise InputError("expected [[grid]] or [[claim]] tables, got none.")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return sweep


def networks(sweep: SweepSettings) -> list[Wanted]:
    """All networks of the grids and of the claims, each once."""
    found = [network for grid in sweep.grid for network in _product(grid)]
    for claim in sweep.claim:
        found += [claim.denominator.wanted, claim.numerator.wanted]
    return list(dict.fromkeys(found))


def _product(grid: Grid) -> Iterable[Wanted]:
    resolutions = grid.resolution if isinstance(grid.resolution, tuple) else (grid.resolution,)
    values = [v if isinstance(v, tuple) else (v,) for v in grid.options.values()]
    for resolution in resolutions:
        for chosen in itertools.product(*values):
            options = dict(zip(grid.options, chosen, strict=True))
            yield build_cache.wanted(grid.model, options, resolution)


def heats(reference: ModelFile, others: Sequence[ModelFile], *, size: int) -> list[list[ModelFile]]:
    """Divides models into heats of `size` at most, each with the reference first."""
    step = size - 1
    starts = range(0, len(others), step) if others else (0,)
    return [[reference, *others[start : start + step]] for start in starts]


def notes(sweep: SweepSettings) -> list[str]:
    """What a reader of the sweep's figures must know of its files."""
    recipe = build_cache.recipe(sweep.convert)
    told = [f"Converted to {recipe.flags['precision']}."]
    if recipe.flags["weights"] == "random":
        told.append("The weights are random: costs are true, accuracies are those published.")
    if recipe.makes_pictures:
        told.append(f"The ranges of int8 are those of {build_cache.PICTURES} made pictures.")
    return told


def run(
    sweep: SweepSettings,
    *,
    places: Sequence[Place],
    cache: Path,
    out: Path,
    runtime: str,
    threads: int,
    profile: bool,
    command: str,
    progress: Progress,
    track: measure.Track,
    ready: Callable[[Sequence[str]], None] = lambda names: None,
) -> Done:
    """Converts all networks, then measures at each place what `out` does not hold.

    Devices are measured side by side.  Each failure is told as soon as its place is done, and costs
    no other network.  The rows of a heat are appended to `out` as soon as it is done, so that an
    interrupted sweep goes on where it stopped.  `ready` is called with the names of all models
    before the first is measured.
    """
    before = results.rows_before(out)
    files, failures = _convert(sweep, cache=cache, progress=progress)
    models = dict(zip(files, model_file.read_all(map(str, files.values())), strict=True))
    ready([model.name for model in models.values()])
    by_name = {place.name: place for place in places if models}
    found: dict[str, list[Row]] = {}

    def work(name: str) -> tuple[list[Row], dict[str, str]]:
        try:
            return _measure(
                list(models.values()),
                sweep.measure,
                place=by_name[name],
                before=before,
                out=out,
                runtime=runtime,
                threads=threads,
                profile=profile,
                command=command,
                track=track,
            )
        except TargetError as error:  # gone before anything was measured
            return [], {model.name: str(error) for model in models.values()}

    def done(name: str, measured: tuple[list[Row], dict[str, str]]) -> None:
        found[name], failed = measured
        for model, reason in failed.items():
            progress.warn(f"{model} on {name}: {reason}")
            failures[f"{model} on {name}"] = reason

    scheduler.run({name: place.target for name, place in by_name.items()}, work, done=done)
    rows = [row for name in by_name for row in found[name]]
    return Done(rows, {network: model.name for network, model in models.items()}, failures)


def _convert(
    sweep: SweepSettings, *, cache: Path, progress: Progress
) -> tuple[dict[Wanted, Path], dict[str, str]]:
    recipe = build_cache.recipe(sweep.convert)
    files, failures = {}, {}
    todo = networks(sweep)
    told = False
    for number, network in enumerate(todo, start=1):
        try:
            path = build_cache.find(build_cache.entry(network, recipe, cache=cache))
            if path is None:
                if not told:
                    progress.tell(f"converting {network}, the first that {cache} does not hold")
                    told = True
                title = f"convert {number} of {len(todo)}, {network}"
                with progress.stage(title), atomic.named(cache):
                    path = build_cache.build(network, recipe, cache=cache)
            files[network] = path
        except (build_cache.BuildError, MemoryError) as error:
            reason = str(error) or "not enough memory to make its pictures"
            failures[str(network)] = reason
            progress.warn(f"{network}: {reason}")
    return files, failures


def _measure(
    models: Sequence[ModelFile],
    asked: MeasureSettings,
    *,
    place: Place,
    before: Sequence[Row],
    out: Path,
    runtime: str,
    threads: int,
    profile: bool,
    command: str,
    track: measure.Track,
) -> tuple[list[Row], dict[str, str]]:
    """The rows of all models at one place, and why some have none."""
    plan = plan_for(asked, target=place.name)
    reference, others = models[0], models[1:]
    candidates = reusable(
        before,
        models,
        machine=place.target.machine(),
        plan=plan,
        target=place.name,
        runtime=runtime,
        threads=threads,
        delegate=place.delegate,
        profile=profile,
    )
    version = _runtime_version(place.target, models, candidates) if candidates else None
    rows = {row.model: row for row in candidates if row.runtime_version == version}
    failures: dict[str, str] = {}
    todo = [model for model in others if model.name not in rows]
    if not todo and reference.name in rows:
        return [rows[model.name] for model in models], failures
    planned = heats(reference, todo, size=asked.heat)
    for number, heat in enumerate(planned, start=1):
        title = f"{place.name}, heat {number} of {len(planned)}"
        labelled = measure.labelled(track, title)
        done = measure.run(place.target, heat, plan=plan, track=labelled)
        failures.update(done.failures)
        if reference.name in done.failures:
            lost = f"measured beside {reference.name}, which failed"
            failures.update({m.name: lost for m in heat if m.name not in done.failures})
            continue
        new = results.rows(
            done,
            plan=plan,
            target=place.name,
            runtime=runtime,
            threads=threads,
            delegate=place.delegate,
            command=command,
        )
        results.append(out, new)
        for row in new:  # of the reference, the first row: its ratios hold in all heats
            rows.setdefault(row.model, row)
    for name in rows.keys() & failures.keys():
        del failures[name]
    return [rows[model.name] for model in models if model.name in rows], failures


def plan_for(asked: MeasureSettings, *, target: str) -> measure.Plan:
    """The plan on that target: emulated cores count, which needs no repetition."""
    counts = target.partition(":")[0] == "emulated"
    return measure.Plan(
        rounds=asked.counted_rounds if counts else asked.rounds,
        runs=1 if counts else asked.runs,
        warmup=min(asked.warmup, 1) if counts else asked.warmup,
        seed=asked.seed,
        max_seconds=asked.max_seconds,
    )


def reusable(
    before: Sequence[Row],
    models: Sequence[ModelFile],
    *,
    machine: Machine,
    plan: measure.Plan,
    target: str,
    runtime: str,
    threads: int,
    delegate: str,
    profile: bool,
) -> list[Row]:
    """The rows that measured the same as is asked for now, whatever the runtime's version.

    Their ratios are to the same file, which is the first of `models`.
    """
    files = {model.name: model.sha256 for model in models}
    expected = (
        *(target, runtime, threads, delegate, machine.cpu, machine.fingerprint, machine.cores),
        *(plan.runs, plan.warmup, plan.seed),
    )
    found = []
    for row, reference in zip(before, results.references(before), strict=True):
        measured = (
            *(row.target, row.runtime, row.threads, row.delegate_asked),
            *(row.cpu, row.fingerprint, tuple(row.cores)),
            *(row.runs, row.warmup, row.seed),
        )
        same_reference = reference is not None and reference.sha256 == models[0].sha256
        if (
            files.get(row.model) == row.sha256
            and same_reference
            and row.ratio_to == models[0].name
            and measured == expected
            and (row.rounds == plan.rounds or plan.max_seconds is not None)
            and (row.profile or not profile)
        ):
            found.append(row)
    return found


def _runtime_version(
    target: Target, models: Sequence[ModelFile], candidates: Sequence[Row]
) -> str | None:
    """Asks the target itself, by a run of the smallest model that ran there before."""
    names = {row.model for row in candidates}
    model = min((m for m in models if m.name in names), key=lambda m: m.size_bytes)
    try:
        session = target.load(model.path, warmup=0, seed=0)
        try:
            session.measure(runs=1)
            return session.finish().runtime_version
        finally:
            session.close()
    except TargetError:
        return None
