"""Trains a network on pictures, and resumes an interrupted run.

Writes into the folder `out` of the settings: weights.safetensors (of the last epoch; the file for
convert --weights), best.safetensors (of the epoch with the best test accuracy), log.csv (a row per
epoch) and checkpoint.safetensors (where the same command resumes after an interruption).

Examples:
  python -m keras_models.train --config configs/shufflenet_v2_cifar10.toml
  python -m keras_models.train --config FILE --set training.epochs=2 --set out=/tmp/try
"""

import json
import os
import sys
from dataclasses import asdict, dataclass

from absl import app

from keras_models import registry
from keras_models.train.settings import TrainingSettings
from shufflelite import cli, config, flags, scratch
from shufflelite.config import setting
from shufflelite.progress import Progress


@dataclass(frozen=True)
class TrainFlags:
    """Flags; the settings of a training are those of its file."""

    TOPIC = "general"

    config: str | None = setting(None, value_name="FILE", help="TOML file of settings.")
    set: tuple[str, ...] = setting(
        (),
        repeats=True,
        value_name="SECTION.KEY=VALUE",
        help="A setting that replaces that of --config; may be repeated.",
    )
    json: bool = setting(False, topic="output", help="Print the result as JSON.")


SETTINGS = (TrainFlags,)


def main(argv: list[str]) -> int:
    """Reads flags, trains, prints the result."""
    if len(argv) > 1:
        raise app.UsageError(f"expected flags only, got {argv[1]!r}")
    command = flags.read(TrainFlags)
    if command.config is None:
        raise app.UsageError("expected --config FILE")
    settings = config.load(command.config, TrainingSettings, command.set)
    registry.check(settings.network.name, settings.network.options)
    from keras_models.accuracy import has_top5
    from keras_models.train.distribution import WorkerLostError
    from keras_models.train.run import run  # imports TensorFlow

    progress = Progress("train")
    try:
        result = run(settings, progress)
    except WorkerLostError:
        progress.warn("a worker is lost: starts again, and goes on when all are back")
        os.dup2(sys.stderr.fileno(), 2)
        scratch.remove()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    if command.json:
        print(json.dumps(asdict(result), indent=2, default=str))
        return cli.DONE
    facts: list[tuple[str, object]] = [("weights", result.weights)]
    if result.accuracy:
        low, high = result.accuracy.interval
        top1 = f"{result.accuracy.top1:.2f} % (95 % interval {low:.2f} to {high:.2f})"
        facts.append(("top-1", top1))
        if has_top5(result.classes):
            facts.append(("top-5", f"{result.accuracy.top5:.2f} %"))
        facts.append(("best top-1", f"{result.best_top1:.2f} %"))
    cli.print_facts(facts)
    return cli.DONE


if __name__ == "__main__":
    cli.run(main, name="train", settings=SETTINGS)
