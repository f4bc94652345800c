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
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import app, flags

from keras_models import cli
from keras_models.progress import Progress

if TYPE_CHECKING:
    from android_bench.results import Row
    from android_bench.targets import Target

COSTLIEST = 10  # operators of each file that are shown; the rows hold all

_MODELS = flags.DEFINE_multi_string(
    "models", [], "The .tflite files: paths or patterns, separated by blanks or commas."
)
_SWEEP = flags.DEFINE_string("sweep", None, "TOML file of networks to convert and measure.")
flags.DEFINE_multi_string("set", [], "section.key=value, a setting over the file of --sweep.")
_TARGET = flags.DEFINE_multi_string("target", ["host"], "Where to measure; may be repeated.")
_RUNTIME = flags.DEFINE_enum(
    "runtime", "litert", ["litert", "tflite-runtime"], "The runtime on the host."
)
_THREADS = flags.DEFINE_integer("threads", 1, "Threads of the runtime.", lower_bound=1)
_DELEGATE = flags.DEFINE_enum(
    "delegate", None, ["xnnpack", "gpu", "nnapi", "none"], "Delegate on devices."
)
_CORES = flags.DEFINE_string("cores", None, "Cores on devices: big (default), little, or 4-7.")
_BINARY = flags.DEFINE_string("benchmark_binary", None, "The benchmark tool for devices.")
_PROFILE = flags.DEFINE_boolean("profile", False, "Also the cost of each operator.")
_WARMUP = flags.DEFINE_integer("warmup", 5, "Untimed runs after the first.", lower_bound=0)
_RUNS = flags.DEFINE_integer("runs", 10, "Timed runs of a model in a round.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 20, "Rounds over all models.", lower_bound=1)
_MAX_SECONDS = flags.DEFINE_float(
    "max_seconds", None, "Begin no new round after that time of measuring.", lower_bound=0
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the random inputs.", lower_bound=0)
_OUT = flags.DEFINE_string("out", "results/android_bench.jsonl", "Rows are appended here.")
_CACHE = flags.DEFINE_string("cache", "build/sweep", "Folder of what --sweep converts.")
_PICTURES = flags.DEFINE_string("pictures", None, "Folder for pictures of --sweep's results.")
_BASELINE = flags.DEFINE_string("baseline", None, "Rows of an earlier run, to compare with.")
_MAX_REGRESSION = flags.DEFINE_string(
    "max_regression", "5%", "How much slower than --baseline a model may be."
)
_JSON = flags.DEFINE_boolean("json", False, "Print the rows as a JSON list, not as a table.")


def main(argv: list[str]) -> int:
    """Sets up, or measures files or a sweep; then compares.

    Args:
      argv: The words that are not flags; absl leaves all paths after `--models A` in it.
    """
    if argv[1:2] == ["setup"] and not _MODELS.value:
        return _set_up(argv[2:])
    words = [*_MODELS.value, *argv[1:]]
    if bool(words) == (_SWEEP.value is not None):
        raise app.UsageError("expected either --models with .tflite files or --sweep with one file")
    if flags.FLAGS["set"].value and _SWEEP.value is None:
        raise app.UsageError("--set belongs to --sweep: it changes that file's settings")
    from android_bench import compare, markdown, results  # late: --help waits for none of them

    limit = compare.parse_limit(_MAX_REGRESSION.value)
    baseline = None if _BASELINE.value is None else results.read(Path(_BASELINE.value))
    results.check_writable(Path(_OUT.value))
    rows, failed = _sweep() if _SWEEP.value else _measure(words)
    if _JSON.value:
        import dataclasses
        import json

        print(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
    if baseline is None:
        return cli.FAILED if failed else cli.DONE
    found = compare.compare(baseline, rows, limit=limit)
    print(markdown.comparison_table(found), end="", file=sys.stderr if _JSON.value else sys.stdout)
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


def _measure(words: Sequence[str]) -> tuple[list["Row"], bool]:
    """Measures files on each target; returns the rows and whether a model failed."""
    from android_bench import markdown, measure, model_file, results, side_by_side
    from android_bench.sweep import Measure, plan_for

    asked = Measure(
        rounds=_ROUNDS.value,
        runs=_RUNS.value,
        warmup=_WARMUP.value,
        seed=_SEED.value,
        max_seconds=_MAX_SECONDS.value,
    )
    rows: list[Row] = []
    failed = False
    with _targets() as targets:
        models = model_file.read_all(words)

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
                    results.print_table(new, file=sys.stdout)
                    print(markdown.profile_tables(new, costliest=COSTLIEST), end="")
            rows.extend(new)

        side_by_side.run(targets, work, done=done)
    return rows, failed


def _sweep() -> tuple[list["Row"], bool]:
    """Converts and measures a sweep; prints its tables, draws its pictures."""
    from android_bench import markdown, plots, sweep

    asked = sweep.load(_SWEEP.value, flags.FLAGS["set"].value)
    with _targets() as targets:
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
        )
    notes = sweep.notes(asked)
    if done.rows and not _JSON.value:
        if asked.claim:
            print(markdown.claims_table(asked.claim, done.rows, done.models, notes), end="")
        else:
            print(markdown.sweep_table(done.rows, notes), end="")
        print(markdown.profile_tables(done.rows), end="")
    if done.rows and _PICTURES.value is not None:
        for path in plots.draw(done.rows, Path(_PICTURES.value)):
            print(f"android_bench: drew {path}", file=sys.stderr)
    return list(done.rows), bool(done.failures)


@contextlib.contextmanager
def _targets() -> Iterator[dict[str, "Target"]]:
    from android_bench.targets import Options, open_target

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
    from android_bench.targets import DEFAULT_DELEGATE

    return _DELEGATE.value or DEFAULT_DELEGATE


def _close(target: "Target") -> None:
    from android_bench.targets import TargetError

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
