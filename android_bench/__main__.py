"""Measures TFLite files on this machine, on phones, ARM boards and emulated ARM cores.

The models take turns, round by round, so that noise reaches them alike: read the ratios to the
first model. Give a file twice to see how far two equal models differ on your machine.

Prints a table and appends one JSON line for each model, with all there is to know, to --out.
The columns: first, the first inference after loading (init); M instr, millions of instructions
on an emulated core, which do not predict latency; ratio, with its spread over the rounds; peak,
the growth of the process's peak memory since just before loading; ops, operators of the file;
partitions, of the delegate; CPU ops, operators that no delegate took.

With --profile also what each operator costs, by type and the costliest of all: as the device's
tool reports it; on the host and on emulated cores, each operator is extracted and run alone.

Targets: host; adb or adb:SERIAL (a phone, with the benchmark tool), adb-apk[:SERIAL] (inside the
benchmark app); ssh:USER@HOST (an ARM board); emulated:a53, a55, a76 or i8mm. Several phones and
boards are measured at the same time, then this machine's cores one by one.

Leaves with 0 when done, 1 when a model or the command failed, 2 for wrong flags, and 3 when
something is slower than --baseline allows.

Examples:
  python -m android_bench --models build/*/model.tflite --target host --threads 1
  python -m android_bench setup emulated
  python -m android_bench --models build/*/model.tflite --target emulated:a53
  python -m android_bench --sweep configs/shufflenet_vs_mobilenet.toml --target host
"""

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import app, flags

from android_bench.errors import FlagError
from shufflelite import cli
from shufflelite.errors import InputError
from shufflelite.progress import Progress

if TYPE_CHECKING:
    from android_bench.measurement import Options, Target
    from android_bench.results import Environment, Row
    from android_bench.sweep import MeasureSettings

COSTLIEST = 10  # operators of each file that are shown; the rows hold all
_PROGRESS = Progress("android_bench")


class _Number(flags.ArgumentParser):
    """Reads an int or a float, and says in our words what it is not."""

    def __init__(self, kind: Callable[[str], float]) -> None:
        self.kind = kind

    def parse(self, argument: str) -> float:
        """The number."""
        try:
            return self.kind(argument)
        except ValueError:
            expected = "a whole number" if self.kind is int else "a number"
            raise ValueError(f"expected {expected}") from None


_MODELS = flags.DEFINE_multi_string(
    "models", [], "The .tflite files: paths or patterns, separated by blanks or commas."
)
_SWEEP = flags.DEFINE_string("sweep", None, "TOML file of networks to convert and measure.")
_SET = flags.DEFINE_multi_string(
    "set", [], "section.key=value, a setting over the file of --sweep."
)
_TARGET = flags.DEFINE_multi_string("target", ["host"], "Where to measure; may be repeated.")
_RUNTIME = flags.DEFINE_enum(
    "runtime", "litert", ["litert", "tflite-runtime"], "The runtime on the host."
)
_THREADS = flags.DEFINE(_Number(int), "threads", 1, "Threads of the runtime.")
_DELEGATE = flags.DEFINE_enum(
    "delegate",
    None,
    ["xnnpack", "gpu", "nnapi", "none"],
    "Delegate on devices; on the host xnnpack, the default, or none.",
)
_CORES = flags.DEFINE_string("cores", None, "Cores on devices: big (default), little, or 4-7.")
_BINARY = flags.DEFINE_string("benchmark_binary", None, "The benchmark tool for devices.")
_PROFILE = flags.DEFINE_boolean("profile", False, "Also the cost of each operator.")
_MEASURE = {  # fields of sweep.MeasureSettings, whose defaults hold; over those of --sweep's file
    name: flags.DEFINE(_Number(kind), name, None, help)
    for name, kind, help in (
        ("warmup", int, "Untimed runs after the first; default 5."),
        ("runs", int, "Timed runs of a model in a round; default 10."),
        (
            "rounds",
            int,
            "Rounds over all models; default 20. Emulated cores count in two whatever is said"
            " here, since counts repeat: see --sweep's counted_rounds.",
        ),
        ("max_seconds", float, "Begin no new round after that time of measuring."),
        ("seed", int, "Seed of the random inputs; default 0."),
    )
}
_OUT = flags.DEFINE_string("out", "results/android_bench.jsonl", "Rows are appended here.")
_CACHE = flags.DEFINE_string("cache", "build/sweep", "Folder of what --sweep converts.")
_PICTURES = flags.DEFINE_string("pictures", None, "Folder for pictures of --sweep's results.")
_BASELINE = flags.DEFINE_string("baseline", None, "Rows of an earlier run, to compare with.")
_MAX_REGRESSION = flags.DEFINE_string(
    "max_regression", "5%", "How much slower than --baseline a model may be."
)
_JSON = flags.DEFINE_boolean("json", False, "Print the rows as a JSON list, not as a table.")
_BELONGS = {  # to a flag without which it has no effect
    "set": "sweep",
    "cache": "sweep",
    "pictures": "sweep",
    "max_regression": "baseline",
}


def main(argv: list[str]) -> int:
    """Sets up, or measures files or a sweep; then compares.

    Args:
      argv: The words that are not flags; absl leaves all paths after `--models A` in it.
    """
    if argv[1:2] == ["setup"] and not _MODELS.value:
        return _set_up(argv[2:])
    words = [*_MODELS.value, *argv[1:]]
    _check_flags(words)
    try:
        return _run(words)
    except FlagError as error:
        raise app.UsageError(str(error)) from error


def _check_flags(words: Sequence[str]) -> None:
    given = {name: flags.FLAGS[name].value for name in flags.FLAGS if flags.FLAGS[name].present}
    for name, value in {**given, "models": words}.items():
        if value == "" or (isinstance(value, list) and "" in value):
            raise app.UsageError(f"--{name}: got an empty word; leave it out, or give a value")
    if bool(words) == (_SWEEP.value is not None):
        raise app.UsageError("expected either --models with .tflite files or --sweep with one file")
    for name, other in _BELONGS.items():
        if name in given and other not in given:
            raise app.UsageError(f"--{name} belongs to --{other}, without which it has no effect")


def _run(words: Sequence[str]) -> int:
    from android_bench import compare, results, tables  # late: --help waits for none of them

    limit = compare.parse_limit(_MAX_REGRESSION.value)
    baseline = None if _BASELINE.value is None else results.read(Path(_BASELINE.value))
    results.rows_before(Path(_OUT.value))
    rows, failed = _sweep(baseline) if _SWEEP.value else _measure(words, baseline)
    if _JSON.value:
        import dataclasses
        import json

        print(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
    if baseline is None or not rows:
        return cli.FAILED if failed else cli.DONE
    with _about_baseline():
        comparison = compare.compare(baseline, rows, limit=limit)
    file = sys.stderr if _JSON.value else sys.stdout
    print(tables.comparison_table(comparison), end="", file=file)
    for change in comparison.slower:
        _PROGRESS.tell(
            f"slower: {change.model} on {change.target}: {change.growth:+.1%} {change.metric},"
            f" limit {limit:.1%}"
        )
    if failed:
        return cli.FAILED
    return cli.GATE_MISSED if comparison.slower else cli.DONE


def _set_up(words: Sequence[str]) -> int:
    if words != ["emulated"]:
        raise app.UsageError(f"expected setup emulated, got setup {' '.join(words)}".rstrip())
    from android_bench.emulated import setup

    folder = setup.setup(_PROGRESS.tell)
    print(folder)
    return cli.DONE


def _measure(words: Sequence[str], baseline: Sequence["Row"] | None) -> tuple[list["Row"], bool]:
    """Measures files on each target; returns the rows and whether a model failed."""
    from android_bench import measure, model_file, results, scheduler, tables
    from android_bench.sweep import MeasureSettings, plan_for

    settings, options = _over(MeasureSettings()), _options()
    rows: list[Row] = []
    failed = False
    with _targets(options) as targets:
        models = model_file.read_all(words)
        environments = _environments(targets, options)
        _check_baseline(baseline, environments, [model.name for model in models])

        def work(name: str) -> measure.InterleavedRun:
            plan = plan_for(settings, target=name)
            return measure.run(targets[name], models, plan=plan, progress=_PROGRESS, title=name)

        def done(name: str, run: measure.InterleavedRun) -> None:
            nonlocal failed
            for model, reason in run.failures.items():
                where = f" on {name}" if len(targets) > 1 else ""
                _PROGRESS.tell(f"{model}{where}: {reason}")
            failed = failed or bool(run.failures)
            new = results.record(
                run,
                plan=plan_for(settings, target=name),
                target=name,
                options=options,
                command=_command(),
                out=Path(_OUT.value),
            )
            if new:
                _PROGRESS.tell(f"rows added to {_OUT.value}: {len(new)}")
                if not _JSON.value:
                    tables.print_run(new, file=sys.stdout)
                    print(tables.profile_tables(new, costliest=COSTLIEST), end="")
            rows.extend(new)

        scheduler.run(targets, work, done=done)
    return rows, failed


def _sweep(baseline: Sequence["Row"] | None) -> tuple[list["Row"], bool]:
    """Converts and measures a sweep; prints its tables, draws its pictures."""
    import dataclasses

    from android_bench import plots, sweep, tables
    from shufflelite import atomic

    settings = sweep.load(_SWEEP.value, _SET.value)
    settings = dataclasses.replace(settings, measure=_over(settings.measure))
    for flag in (_CACHE, _PICTURES):
        if flag.value is not None:
            atomic.check_folder(Path(flag.value), flag=f"--{flag.name}")
    options = _options()
    with _targets(options) as targets:
        environments = _environments(targets, options)
        _check_baseline(baseline, environments)
        result = sweep.run(
            settings,
            targets=targets,
            options=options,
            command=_command(),
            cache=Path(_CACHE.value),
            out=Path(_OUT.value),
            progress=_PROGRESS,
            ready=lambda names: _check_baseline(baseline, environments, names),
        )
    notes = sweep.notes(settings)
    if result.rows and not _JSON.value:
        if settings.claim:
            print(tables.claims_table(settings.claim, result.rows, result.models, notes), end="")
        else:
            print(tables.sweep_table(result.rows, notes), end="")
        print(tables.profile_tables(result.rows), end="")
    if result.rows and _PICTURES.value is not None:
        for path in plots.draw(result.rows, Path(_PICTURES.value)):
            _PROGRESS.tell(f"drew {path}")
    return list(result.rows), bool(result.failures)


def _over(settings: "MeasureSettings") -> "MeasureSettings":
    """The settings with the flags over them."""
    import dataclasses

    given = {name: flag.value for name, flag in _MEASURE.items() if flag.value is not None}
    try:
        return dataclasses.replace(settings, **given)
    except InputError as error:
        raise FlagError(str(error)) from error


def _environments(targets: Mapping[str, "Target"], options: "Options") -> list["Environment"]:
    """Those of the rows to come; not of a target that is gone, whose models report that."""
    from android_bench import results
    from android_bench.measurement import TargetError

    environments = []
    for name, target in targets.items():
        with contextlib.suppress(TargetError):
            environments.append(results.expected_environment(name, target.machine(), options))
    return environments


def _check_baseline(
    baseline: Sequence["Row"] | None,
    environments: Sequence["Environment"],
    models: Sequence[str] | None = None,
) -> None:
    """Refuses a baseline that nothing could be compared with, before anything is measured."""
    from android_bench import compare

    if baseline is None or not environments or models == []:  # nothing will be measured
        return
    with _about_baseline():
        if models is None:
            compare.check_environments(baseline, environments)
        else:
            compare.check_models(baseline, [(e, model) for e in environments for model in models])


@contextlib.contextmanager
def _about_baseline() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"--baseline={_BASELINE.value}: {error}") from error


def _options() -> "Options":
    from android_bench.measurement import Options

    return Options(
        runtime=_RUNTIME.value,
        threads=_THREADS.value,
        profile=_PROFILE.value,
        cores=_CORES.value,
        benchmark_binary=_BINARY.value,
        delegate=_DELEGATE.value,
    )


@contextlib.contextmanager
def _targets(options: "Options") -> Iterator[dict[str, "Target"]]:
    from android_bench.targets import open_target

    with contextlib.ExitStack() as stack:
        opened = {}
        for spec in dict.fromkeys(_TARGET.value):
            opened[spec] = open_target(spec, options=options)
            stack.callback(_close, opened[spec])
        yield opened


def _close(target: "Target") -> None:
    from android_bench.measurement import TargetError

    try:
        target.close()
    except TargetError as error:  # names what stayed on the device
        _PROGRESS.tell(str(error))


def _command() -> str:
    return shlex.join(["python", "-m", "android_bench", *sys.argv[1:]])


if __name__ == "__main__":
    cli.run(main, name="android_bench")
