"""Measures TFLite files on a target, interleaved in one run, and compares them.

The models take turns, round by round, so that noise reaches them alike: read the ratios to the
first model. Give a file twice to see how far two equal models differ on your machine.

Prints a table and appends one JSON line for each model, with all there is to know, to --out.
The columns: first, the first inference after loading (init); ratio, with its spread over the
rounds; peak, the growth of the process's peak memory since just before loading; ops, operators
of the file; parts, delegate partitions; out, operators that no delegate took.

Example:
  python -m android_bench --models build/*/model.tflite --target host --threads 1
"""

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

from absl import app, flags

from keras_models import cli

_MODELS = flags.DEFINE_multi_string(
    "models", [], "The .tflite files: paths or patterns, separated by blanks or commas."
)
_TARGET = flags.DEFINE_string("target", "host", "Where to measure: host.")
_RUNTIME = flags.DEFINE_enum(
    "runtime", "litert", ["litert", "tflite-runtime"], "The runtime on the host."
)
_THREADS = flags.DEFINE_integer("threads", 1, "Threads of the runtime.", lower_bound=1)
_WARMUP = flags.DEFINE_integer("warmup", 5, "Untimed runs after the first.", lower_bound=0)
_RUNS = flags.DEFINE_integer("runs", 10, "Timed runs of a model in a round.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 20, "Rounds over all models.", lower_bound=1)
_MAX_SECONDS = flags.DEFINE_float(
    "max_seconds", None, "Begin no new round after that time of measuring.", lower_bound=0
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the random inputs.", lower_bound=0)
_OUT = flags.DEFINE_string("out", "results/android_bench.jsonl", "Rows are appended here.")
_JSON = flags.DEFINE_boolean("json", False, "Print the rows as a JSON list, not as a table.")


def main(argv: list[str]) -> int:
    """Checks everything, measures, then writes.

    Args:
      argv: The words that are not flags; absl leaves all paths after `--models A` in it.
    """
    words = [*_MODELS.value, *argv[1:]]
    if not words:
        raise app.UsageError("expected --models with one .tflite file or more, got none")
    import dataclasses  # all late: --help waits for none of them
    import json

    from android_bench import measure, model_file, results
    from android_bench.targets import Options, open_target

    options = Options(runtime=_RUNTIME.value, threads=_THREADS.value)
    target = open_target(_TARGET.value, options=options)
    models = model_file.read_all(words)
    out = Path(_OUT.value)
    results.check_writable(out)
    plan = measure.Plan(
        rounds=_ROUNDS.value,
        runs=_RUNS.value,
        warmup=_WARMUP.value,
        seed=_SEED.value,
        max_seconds=_MAX_SECONDS.value,
    )
    done = measure.run(target, models, plan=plan, track=_track)
    for name, reason in done.failures.items():
        print(f"android_bench: {name}: {reason}", file=sys.stderr)
    rows = results.rows(
        done,
        plan=plan,
        target=_TARGET.value,
        runtime=_RUNTIME.value,
        threads=_THREADS.value,
        command=shlex.join(["python", "-m", "android_bench", *sys.argv[1:]]),
    )
    if rows:
        results.append(out, rows)
        print(f"android_bench: rows added to {out}: {len(rows)}", file=sys.stderr)
    if _JSON.value:
        print(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
    elif rows:
        results.print_table(rows, file=sys.stdout)
    return cli.FAILED if done.failures else cli.DONE


def _track(steps: range, label: str) -> Iterable[int]:
    if not sys.stderr.isatty():
        print(f"android_bench: {label}: {len(steps)}", file=sys.stderr)
        return steps
    from rich.console import Console
    from rich.progress import track

    # Redrawn between the steps only: a thread that redraws would disturb what is measured.
    return track(steps, label, console=Console(stderr=True), auto_refresh=False, transient=True)


if __name__ == "__main__":
    cli.run(main, name="android_bench")
