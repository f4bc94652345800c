"""Measures TFLite files on this machine, on phones, ARM boards and emulated ARM cores.

The models take turns, round by round, so that noise affects all of them equally: read the ratios
to the first model. List a file twice to see by how much equal models differ on your machine.

Prints a table and appends one JSON line for each model, with all facts, to --out.
The columns: first, the first inference after loading (init); M instr, millions of instructions
on an emulated core, which do not predict latency; ratio, with its spread over the rounds; peak,
the growth of the process's peak memory since just before loading; ops, operators of the file;
partitions, of the delegate; CPU ops, operators that no delegate took.

--profile adds the cost of each operator, by type and for the most expensive ones. Devices report
it through their tool; on the host and on emulated cores each operator is extracted and runs alone.

Targets: host; adb or adb:SERIAL (a phone, with the benchmark tool), adb-apk[:SERIAL] (inside the
benchmark app); ssh:USER@HOST (an ARM board); emulated:a53, a55, a76 or i8mm. Several phones and
boards are measured at the same time, then this machine's cores one by one.

Exit status: 0 success, 1 a model or the command failed, 2 usage error, 3 slower than --baseline
allows.

Examples:
  python -m android_bench --models build/*/model.tflite --target host --threads 1
  python -m android_bench setup emulated
  python -m android_bench --models build/*/model.tflite --target emulated:a53
  python -m android_bench --sweep configs/shufflenet_vs_mobilenet.toml --target host
"""

import contextlib
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import app

from android_bench.measurement import Options, Plan
from shufflelite import cli, flags
from shufflelite.config import Keys, setting
from shufflelite.errors import InputError
from shufflelite.progress import Progress

if TYPE_CHECKING:
    from android_bench.measurement import Target
    from android_bench.results import Environment, Row

COSTLIEST = 10  # operators of each file that are shown; the rows hold all
_PROGRESS = Progress("android_bench")


@dataclass(frozen=True)
class BenchFlags:
    """The flags."""

    TOPIC = "sweep"

    models: tuple[str, ...] = setting(
        (),
        topic="models",
        repeats=True,
        value_name="FILE",
        help="The .tflite files: paths or patterns, separated by blanks or commas.",
    )
    sweep: str | None = setting(
        None, value_name="FILE", help="TOML file of networks to convert and measure."
    )
    set: tuple[str, ...] = setting(
        (),
        repeats=True,
        value_name="SECTION.KEY=VALUE",
        help="A setting that replaces that of --sweep; may be repeated.",
    )
    cache: str = setting(
        "build/sweep", value_name="FOLDER", help="Folder of the files that --sweep converts."
    )
    pictures: str | None = setting(
        None, value_name="FOLDER", help="Draw the results of --sweep here."
    )
    target: tuple[str, ...] = setting(
        ("host",),
        topic="target",
        repeats=True,
        value_name="TARGET",
        help="Where to measure; may be repeated.",
    )
    options: Options = field(default_factory=Options)
    measure: Plan = field(default_factory=Plan)
    baseline: str | None = setting(
        None, topic="comparison", value_name="FILE", help="Rows of an earlier run, to compare with."
    )
    max_regression: str = setting(
        "5%",
        topic="comparison",
        value_name="PERCENT",
        help="How much slower than --baseline a model may be.",
    )
    out: str = setting(
        "results/android_bench.jsonl",
        topic="output",
        value_name="FILE",
        help="Rows are appended here.",
    )
    json: bool = setting(
        False, topic="output", help="Print the rows as a JSON list, not as a table."
    )


SETTINGS = (BenchFlags,)
_BELONGS = {  # to a flag without which it has no effect
    "set": "sweep",
    "cache": "sweep",
    "pictures": "sweep",
    "max_regression": "baseline",
}


def main(argv: list[str]) -> int:
    """Sets up, or measures files or a sweep; then compares.

    Args:
      argv: The arguments that are not flags: all paths after `--models A`.
    """
    command = flags.read(BenchFlags)
    if argv[1:2] == ["setup"] and not command.models:
        return _set_up(argv[2:])
    files = [*command.models, *argv[1:]]
    check_flags(command, files)
    return _run(command, files)


def check_flags(command: BenchFlags, files: Sequence[str]) -> None:
    """Raises UsageError for flags that are empty or contradict each other."""
    passed = {flag: value for flag, (_, value) in flags.given(BenchFlags).items()}
    for flag, value in {**passed, "models": files}.items():
        if value == "" or (isinstance(value, (list, tuple)) and "" in value):
            raise app.UsageError(f"--{flag}: got an empty word; leave it out, or give a value")
    if bool(files) == (command.sweep is not None):
        raise app.UsageError("expected either --models with .tflite files or --sweep with one file")
    for flag, other in _BELONGS.items():
        if flag in passed and other not in passed:
            raise app.UsageError(f"--{flag} belongs to --{other}, without which it has no effect")


def _run(command: BenchFlags, files: Sequence[str]) -> int:
    from android_bench import compare, results, tables  # slow: not for --help

    limit = compare.parse_limit(command.max_regression)
    baseline = None if command.baseline is None else results.read(Path(command.baseline))
    results.rows_before(Path(command.out))
    rows, failed = (
        _sweep(command, baseline) if command.sweep else _measure(command, files, baseline)
    )
    if command.json:
        import dataclasses
        import json

        print(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
    if baseline is None or not rows:
        return cli.FAILED if failed else cli.DONE
    with _about_baseline(command):
        comparison = compare.compare(baseline, rows, limit=limit)
    file = sys.stderr if command.json else sys.stdout
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


def _measure(
    command: BenchFlags, files: Sequence[str], baseline: Sequence["Row"] | None
) -> tuple[list["Row"], bool]:
    """Measures files on each target; returns the rows and whether a model failed."""
    from android_bench import measure, model_file, results, scheduler, tables
    from android_bench.sweep import MeasureSettings, plan_for

    settings, options = MeasureSettings(**vars(command.measure)), command.options
    rows: list[Row] = []
    failed = False
    with _targets(command) as targets:
        models = model_file.read_all(files)
        for note in (note for m in models for note in m.notes(options.requested_delegate)):
            _PROGRESS.warn(note)
        environments = _environments(targets, options)
        _check_baseline(command, baseline, environments, [model.name for model in models])

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
                command=_command_line(),
                out=Path(command.out),
            )
            if new:
                _PROGRESS.tell(f"rows added to {command.out}: {len(new)}")
                if not command.json:
                    tables.print_run(new, file=sys.stdout)
                    print(tables.profile_tables(new, costliest=COSTLIEST), end="")
            rows.extend(new)

        scheduler.run(targets, work, done=done)
    return rows, failed


def _sweep(command: BenchFlags, baseline: Sequence["Row"] | None) -> tuple[list["Row"], bool]:
    """Converts and measures a sweep; prints its tables, draws its pictures."""
    from android_bench import plots, sweep, tables
    from shufflelite import atomic

    assert command.sweep is not None
    settings = sweep.load(command.sweep, command.set, measure_flags())
    for flag, folder in (("cache", command.cache), ("pictures", command.pictures)):
        if folder is not None:
            atomic.check_folder(Path(folder), flag=f"--{flag}")
    options = command.options
    with _targets(command) as targets:
        environments = _environments(targets, options)
        _check_baseline(command, baseline, environments)
        result = sweep.run(
            settings,
            targets=targets,
            options=options,
            command=_command_line(),
            cache=Path(command.cache),
            out=Path(command.out),
            progress=_PROGRESS,
            ready=lambda names: _check_baseline(command, baseline, environments, names),
        )
    notes = sweep.notes(settings)
    if result.rows and not command.json:
        if settings.claim:
            print(tables.claims_table(settings.claim, result.rows, result.models, notes), end="")
        else:
            print(tables.sweep_table(result.rows, notes), end="")
        print(tables.profile_tables(result.rows), end="")
    if result.rows and command.pictures is not None:
        for path in plots.draw(result.rows, Path(command.pictures)):
            _PROGRESS.tell(f"drew {path}")
    return list(result.rows), bool(result.failures)


def measure_flags() -> dict[str, tuple[Keys, Any]]:
    """The flags of `Plan` that were passed: they replace those of a sweep's [measure]."""
    return {flag: (("measure", *keys), value) for flag, (keys, value) in flags.given(Plan).items()}


def _environments(targets: Mapping[str, "Target"], options: Options) -> list["Environment"]:
    """Those of the rows to come; not of a target that is gone, whose models report that."""
    from android_bench import results
    from android_bench.measurement import TargetError

    environments = []
    for name, target in targets.items():
        with contextlib.suppress(TargetError):
            environments.append(results.expected_environment(name, target.machine(), options))
    return environments


def _check_baseline(
    command: BenchFlags,
    baseline: Sequence["Row"] | None,
    environments: Sequence["Environment"],
    models: Sequence[str] | None = None,
) -> None:
    """Refuses a baseline that nothing could be compared with, before anything is measured."""
    from android_bench import compare

    if baseline is None or not environments or models == []:  # nothing will be measured
        return
    with _about_baseline(command):
        if models is None:
            compare.check_environments(baseline, environments)
        else:
            compare.check_models(baseline, [(e, model) for e in environments for model in models])


@contextlib.contextmanager
def _about_baseline(command: BenchFlags) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"--baseline={command.baseline}: {error}") from error


@contextlib.contextmanager
def _targets(command: BenchFlags) -> Iterator[dict[str, "Target"]]:
    from android_bench.targets import open_target

    with contextlib.ExitStack() as stack:
        opened = {}
        for spec in dict.fromkeys(command.target):
            opened[spec] = open_target(spec, options=command.options)
            stack.callback(_close, opened[spec])
        yield opened


def _close(target: "Target") -> None:
    from android_bench.measurement import TargetError

    try:
        target.close()
    except TargetError as error:  # names what stayed on the device
        _PROGRESS.tell(str(error))


def _command_line() -> str:
    return shlex.join(["python", "-m", "android_bench", *sys.argv[1:]])


if __name__ == "__main__":
    cli.run(main, name="android_bench", settings=SETTINGS)
