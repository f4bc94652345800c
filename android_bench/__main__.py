"""Measures TFLite files on this machine, on phones, ARM boards and emulated ARM cores.

The models take turns, round by round, so that noise reaches them alike: read the ratios to the
first model. Give a file twice to see how far two equal models differ on your machine.

Prints a table and appends one JSON line for each model, with all there is to know, to --out.
The columns: first, the first inference after loading (init); M instr, millions of instructions
on an emulated core, which are no time; ratio, with its spread over the rounds; peak, the growth
of the process's peak memory since just before loading; ops, operators of the file; parts,
delegate partitions; out, operators that no delegate took.

With --profile also what each operator costs, by type and the costliest of all: as the device's
tool tells it; on the host and on emulated cores, each operator is cut out of the file and run.

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
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import app, flags

from android_bench.errors import FlagError
from shufflelite import cli
from shufflelite.errors import InputError
from shufflelite.progress import Progress

if TYPE_CHECKING:
    from android_bench.measurement import Target
    from android_bench.results import Place, Row
    from android_bench.sweep import MeasureSettings

COSTLIEST = 10  # operators of each file that are shown; the rows hold all


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
        found = compare.compare(baseline, rows, limit=limit)
    print(tables.comparison_table(found), end="", file=sys.stderr if _JSON.value else sys.stdout)
    for change in found.slower:
        print(
            f"android_bench: slower: {change.model} on {change.target}: {change.growth:+.1%} "
            f"{change.measure}, limit {limit:.1%}",
            file=sys.stderr,
        )
    if failed:
        return cli.FAILED
    return cli.DONE if found.passed else cli.GATE_MISSED


def _set_up(words: Sequence[str]) -> int:
    if words != ["emulated"]:
        raise app.UsageError(f"expected setup emulated, got setup {' '.join(words)}".rstrip())
    from android_bench.emulated import setup

    folder = setup.setup(lambda line: print(f"android_bench: {line}", file=sys.stderr))
    print(folder)
    return cli.DONE


def _measure(words: Sequence[str], baseline: Sequence["Row"] | None) -> tuple[list["Row"], bool]:
    """Measures files on each target; returns the rows and whether a model failed."""
    from android_bench import measure, model_file, results, run_table, scheduler, tables
    from android_bench.sweep import MeasureSettings, plan_for

    asked = _over(MeasureSettings())
    rows: list[Row] = []
    failed = False
    with _targets() as targets:
        models = model_file.read_all(words)
        _check_baseline(baseline, _places(targets), [model.name for model in models])

        def work(name: str) -> measure.Run:
            plan, track = plan_for(asked, target=name), measure.labelled(_track, name)
            return measure.run(targets[name], models, plan=plan, track=track)

        def done(name: str, run: measure.Run) -> None:
            nonlocal failed
            for model, reason in run.failures.items():
                where = f" on {name}" if len(targets) > 1 else ""
                print(f"android_bench: {model}{where}: {reason}", file=sys.stderr)
            failed = failed or bool(run.failures)
            new = results.rows(
                run,
                plan=plan_for(asked, target=name),
                target=name,
                runtime=_RUNTIME.value,
                threads=_THREADS.value,
                delegate=_delegate(),
                command=_command(),
            )
            if new:
                results.append(Path(_OUT.value), new)
                print(f"android_bench: rows added to {_OUT.value}: {len(new)}", file=sys.stderr)
                if not _JSON.value:
                    run_table.print_table(new, file=sys.stdout)
                    print(tables.profile_tables(new, costliest=COSTLIEST), end="")
            rows.extend(new)

        scheduler.run(targets, work, done=done)
    return rows, failed


def _sweep(baseline: Sequence["Row"] | None) -> tuple[list["Row"], bool]:
    """Converts and measures a sweep; prints its tables, draws its pictures."""
    import dataclasses

    from android_bench import plots, sweep, tables
    from shufflelite import atomic

    asked = sweep.load(_SWEEP.value, _SET.value)
    asked = dataclasses.replace(asked, measure=_over(asked.measure))
    for flag in (_CACHE, _PICTURES):
        if flag.value is not None:
            atomic.check_folder(Path(flag.value), flag=f"--{flag.name}")
    with _targets() as targets:
        places = _places(targets)
        _check_baseline(baseline, places)
        done = sweep.run(
            asked,
            places=[sweep.Place(name, target, _delegate()) for name, target in targets.items()],
            cache=Path(_CACHE.value),
            out=Path(_OUT.value),
            runtime=_RUNTIME.value,
            threads=_THREADS.value,
            profile=_PROFILE.value,
            command=_command(),
            progress=Progress("android_bench"),
            track=_track,
            ready=lambda names: _check_baseline(baseline, places, names),
        )
    notes = sweep.notes(asked)
    if done.rows and not _JSON.value:
        if asked.claim:
            print(tables.claims_table(asked.claim, done.rows, done.models, notes), end="")
        else:
            print(tables.sweep_table(done.rows, notes), end="")
        print(tables.profile_tables(done.rows), end="")
    if done.rows and _PICTURES.value is not None:
        for path in plots.draw(done.rows, Path(_PICTURES.value)):
            print(f"android_bench: drew {path}", file=sys.stderr)
    return list(done.rows), bool(done.failures)


def _over(asked: "MeasureSettings") -> "MeasureSettings":
    """What is asked for, with the flags over it."""
    import dataclasses

    given = {name: flag.value for name, flag in _MEASURE.items() if flag.value is not None}
    try:
        return dataclasses.replace(asked, **given)
    except InputError as error:
        raise FlagError(str(error)) from error


def _places(targets: Mapping[str, "Target"]) -> list["Place"]:
    """Those that rows will have; without targets that are gone, of which their models will tell."""
    from android_bench import results
    from android_bench.measurement import TargetError

    found = []
    for name, target in targets.items():
        with contextlib.suppress(TargetError):
            found.append(
                results.place_at(
                    name,
                    target.machine(),
                    runtime=_RUNTIME.value,
                    threads=_THREADS.value,
                    delegate=_delegate(),
                )
            )
    return found


def _check_baseline(
    baseline: Sequence["Row"] | None, places: Sequence["Place"], models: Sequence[str] | None = None
) -> None:
    """Refuses a baseline that nothing could be compared with, before anything is measured."""
    from android_bench import compare

    if baseline is None or not places or models == []:  # nothing will be measured
        return
    with _about_baseline():
        if models is None:
            compare.check_places(baseline, places)
        else:
            compare.check(baseline, [(place, model) for place in places for model in models])


@contextlib.contextmanager
def _about_baseline() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"--baseline={_BASELINE.value}: {error}") from error


@contextlib.contextmanager
def _targets() -> Iterator[dict[str, "Target"]]:
    from android_bench.measurement import Options
    from android_bench.targets import open_target

    options = Options(
        runtime=_RUNTIME.value,
        threads=_THREADS.value,
        profile=_PROFILE.value,
        cores=_CORES.value,
        benchmark_binary=_BINARY.value,
        delegate=_DELEGATE.value,
    )
    with contextlib.ExitStack() as stack:
        opened = {}
        for spec in dict.fromkeys(_TARGET.value):
            opened[spec] = open_target(spec, options=options)
            stack.callback(_close, opened[spec])
        yield opened


def _delegate() -> str:
    from android_bench.measurement import DEFAULT_DELEGATE

    return _DELEGATE.value or DEFAULT_DELEGATE


def _close(target: "Target") -> None:
    from android_bench.measurement import TargetError

    try:
        target.close()
    except TargetError as error:  # names what stayed on the device
        print(f"android_bench: {error}", file=sys.stderr)


def _command() -> str:
    return shlex.join(["python", "-m", "android_bench", *sys.argv[1:]])


def _track(steps: range, label: str) -> Iterable[int]:
    if not sys.stderr.isatty() or threading.current_thread() is not threading.main_thread():
        print(f"android_bench: {label}: {len(steps)}", file=sys.stderr)
        return steps
    from rich.console import Console
    from rich.progress import track

    # Redrawn between the steps only: a thread that redraws would disturb what is measured.
    return track(steps, label, console=Console(stderr=True), auto_refresh=False, transient=True)


if __name__ == "__main__":
    cli.run(main, name="android_bench")
