"""Converts and measures many networks, described by one settings file; see configs/.

The models of a grid are measured in batches, since all models of a batch are in memory at once.
Each batch starts with the same reference model, so that ratios to it hold across batches.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from android_bench import build_cache, measure, model_file, results, scheduler
from android_bench.build_cache import NetworkSpec, Option
from android_bench.measurement import DEFAULT_DELEGATE, Machine, Options, Plan, Target, TargetError
from android_bench.model_file import ModelFile
from android_bench.paper_claims import Claim
from android_bench.results import Row
from shufflelite import atomic, config
from shufflelite.config import setting
from shufflelite.errors import InputError
from shufflelite.progress import Progress


@dataclass(frozen=True)
class Grid:
    """Networks of one family: the Cartesian product of all values that are lists."""

    model: str
    resolution: int | tuple[int, ...] | None = None  # None: the resolution of the paper
    options: Mapping[str, Option | tuple[Option, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in (("resolution", self.resolution), *self.options.items()):
            if value == ():
                raise InputError(f"expected {name!r} to be a value or a list of some, got [].")


@dataclass(frozen=True)
class MeasureSettings(Plan):
    """A plan for all targets and models; `max_seconds` are for each batch."""

    # On emulated cores, whose counts repeat to parts per million.
    counted_rounds: int = setting(2, least=1)
    batch: int = setting(8, least=2)  # models in memory at once, including the reference
    heat: int | None = setting(None, least=2)  # former name of `batch`

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heat is not None:
            object.__setattr__(self, "batch", self.heat)


@dataclass(frozen=True)
class SweepSettings:
    """A settings file.  Ratios are to the first of its networks."""

    grid: tuple[Grid, ...] = ()
    convert: Mapping[str, Option] = field(default_factory=dict)  # flags of that command
    measure: MeasureSettings = field(default_factory=MeasureSettings)
    claim: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class SweepResult:
    """The results of a sweep.

    `rows` holds one for each target and network, measured now or reused; `models` their names.
    """

    rows: Sequence[Row]
    models: Mapping[NetworkSpec, str]
    failures: Mapping[str, str]


def load(
    path: str | Path,
    overrides: Sequence[str] = (),
    flags: Mapping[str, tuple[config.Keys, Any]] = MappingProxyType({}),
) -> SweepSettings:
    """Reads and checks the settings of a sweep, before anything is converted; see `config.load`.

    Raises:
      InputError: the file, or a network in it, is wrong.
    """
    settings = config.load(path, SweepSettings, overrides, flags=flags)
    try:
        build_cache.build_spec(settings.convert)
        if not networks(settings):
            raise InputError("expected [[grid]] or [[claim]] tables, got none.")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return settings


def networks(settings: SweepSettings) -> list[NetworkSpec]:
    """All networks of the grids and of the claims, each once."""
    specs = [spec for grid in settings.grid for spec in _product(grid)]
    for claim in settings.claim:
        specs += [claim.denominator.network, claim.numerator.network]
    return list(dict.fromkeys(specs))


def _product(grid: Grid) -> Iterable[NetworkSpec]:
    resolutions = grid.resolution if isinstance(grid.resolution, tuple) else (grid.resolution,)
    values = [v if isinstance(v, tuple) else (v,) for v in grid.options.values()]
    for resolution in resolutions:
        for combination in itertools.product(*values):
            options = dict(zip(grid.options, combination, strict=True))
            yield build_cache.network_spec(grid.model, options, resolution)


def batches(
    reference: ModelFile, others: Sequence[ModelFile], *, size: int
) -> list[list[ModelFile]]:
    """Divides models into batches of at most `size`, each with the reference first."""
    step = size - 1
    starts = range(0, len(others), step) if others else (0,)
    return [[reference, *others[start : start + step]] for start in starts]


def notes(settings: SweepSettings) -> list[str]:
    """Notes on the files of the sweep, for its tables."""
    spec = build_cache.build_spec(settings.convert)
    lines = [f"Converted to {spec.flags['precision']}."]
    if spec.flags["weights"] == "random":
        lines.append("The weights are random: costs are true, accuracies are those published.")
    if spec.makes_pictures:
        lines.append(f"The ranges of int8 are those of {build_cache.PICTURES} made pictures.")
    return lines


def run(
    settings: SweepSettings,
    *,
    targets: Mapping[str, Target],
    options: Options,
    command: str,
    cache: Path,
    out: Path,
    progress: Progress,
    ready: Callable[[Sequence[str]], None] = lambda names: None,
) -> SweepResult:
    """Converts all networks, then measures on each target what `out` lacks.

    Devices are measured in parallel.  A failure is reported as soon as its target is done, and does
    not affect other networks.  The rows of a batch are appended to `out` as soon as it is done, so
    that an interrupted sweep continues where it stopped.  `ready` is called with the names of all
    models before the first is measured.
    """
    before = results.rows_before(out)
    files, failures = _convert(settings, cache=cache, progress=progress)
    models = dict(zip(files, model_file.read_all(map(str, files.values())), strict=True))
    ready([model.name for model in models.values()])
    for note in (n for model in models.values() for n in model.notes(options.requested_delegate)):
        progress.warn(note)
    measured: dict[str, list[Row]] = {}

    def work(name: str) -> tuple[list[Row], dict[str, str]]:
        try:
            return _measure(
                list(models.values()),
                settings.measure,
                name=name,
                target=targets[name],
                options=options,
                before=before,
                record=functools.partial(results.record, command=command, out=out),
                progress=progress,
            )
        except TargetError as error:  # disconnected before anything was measured
            return [], {model.name: str(error) for model in models.values()}

    def done(name: str, result: tuple[list[Row], dict[str, str]]) -> None:
        measured[name], failed = result
        for model, reason in failed.items():
            progress.warn(f"{model} on {name}: {reason}")
            failures[f"{model} on {name}"] = reason

    if models:
        scheduler.run(targets, work, done=done)
    rows = [row for name in targets for row in measured.get(name, ())]
    return SweepResult(rows, {spec: model.name for spec, model in models.items()}, failures)


def _convert(
    settings: SweepSettings, *, cache: Path, progress: Progress
) -> tuple[dict[NetworkSpec, Path], dict[str, str]]:
    build_spec = build_cache.build_spec(settings.convert)
    files, failures = {}, {}
    specs = networks(settings)
    announced = False
    for number, network in enumerate(specs, start=1):
        try:
            path = build_cache.find(build_cache.entry(network, build_spec, cache=cache))
            if path is None:
                if not announced:
                    progress.tell(f"converting {network}, the first that {cache} does not hold")
                    announced = True
                title = f"convert {number} of {len(specs)}, {network}"
                with progress.stage(title), atomic.named(cache):
                    path = build_cache.build(network, build_spec, cache=cache)
            files[network] = path
        except (build_cache.BuildError, MemoryError) as error:
            reason = str(error) or "not enough memory to make its pictures"
            failures[str(network)] = reason
            progress.warn(f"{network}: {reason}")
    return files, failures


def _measure(
    models: Sequence[ModelFile],
    settings: MeasureSettings,
    *,
    name: str,
    target: Target,
    options: Options,
    before: Sequence[Row],
    record: Callable[..., list[Row]],
    progress: Progress,
) -> tuple[list[Row], dict[str, str]]:
    """The rows of all models on one target, and why some have none."""
    plan = plan_for(settings, target=name)
    reference, others = models[0], models[1:]
    machine = target.machine()
    candidates = reusable(before, models, target=name, machine=machine, plan=plan, options=options)
    version = _runtime_version(target, models, candidates) if candidates else None
    rows = {row.model: row for row in candidates if row.runtime_version == version}
    failures: dict[str, str] = {}
    missing = [model for model in others if model.name not in rows]
    if not missing and reference.name in rows:
        return [rows[model.name] for model in models], failures
    planned = batches(reference, missing, size=settings.batch)
    for number, batch in enumerate(planned, start=1):
        title = f"{name}, batch {number} of {len(planned)}"
        run = measure.run(target, batch, plan=plan, progress=progress, title=title)
        failures.update(run.failures)
        if reference.name in run.failures:
            reason = f"measured beside {reference.name}, which failed"
            failures.update({m.name: reason for m in batch if m.name not in run.failures})
            continue
        # Of the reference the first row is kept: its ratios hold in all batches.
        for row in record(run, plan=plan, target=name, options=options):
            rows.setdefault(row.model, row)
    for model in rows.keys() & failures.keys():
        del failures[model]
    return [rows[model.name] for model in models if model.name in rows], failures


def plan_for(settings: MeasureSettings, *, target: str) -> Plan:
    """The plan for that target: emulated cores count, which needs no repetition."""
    if target.partition(":")[0] != "emulated":
        return settings
    return dataclasses.replace(
        settings, rounds=settings.counted_rounds, runs=1, warmup=min(settings.warmup, 1)
    )


def reusable(
    before: Sequence[Row],
    models: Sequence[ModelFile],
    *,
    target: str,
    machine: Machine,
    plan: Plan,
    options: Options,
) -> list[Row]:
    """The rows that were measured as is requested now, whatever the version of the runtime.

    Their ratios are to the same file: the first of `models`.
    """
    files = {model.name: model.sha256 for model in models}
    requested = (
        *(target, options.runtime, options.threads, options.requested_delegate),
        *(machine.cpu, machine.fingerprint, machine.cores),
        *(plan.runs, plan.warmup, plan.seed),
    )
    reused = []
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
            and measured == requested
            and (row.rounds == plan.rounds or plan.max_seconds is not None)
            and (row.profile or not options.profile)
            and row.instruction_set in (None, machine.instruction_set)  # None: an old row
            and _reports_delegation(row)
        ):
            reused.append(row)
    return reused


def _reports_delegation(row: Row) -> bool:
    """False of former rows of devices, whose delegate was the requested one, not what ran."""
    reports = (row.delegate_partitions, row.undelegated_operators)
    return row.delegate != DEFAULT_DELEGATE or reports != (None, None)


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
