"""Trains a network on pictures, and goes on where an interrupted run stopped.

Writes into the folder `out` of the settings: weights.safetensors (the last epoch's; what convert
--weights takes), best.safetensors (of the epoch with the best test accuracy), log.csv (a row for
each epoch) and checkpoint.safetensors (what a run that was interrupted, or killed, goes on from
when it is started again).

Examples:
  python -m keras_models.train --config configs/shufflenet_v2_cifar10.toml
  python -m keras_models.train --config FILE --set training.epochs=2 --set out=/tmp/try
"""

import json
import os
import sys
from dataclasses import asdict

from absl import app, flags

from keras_models.train.settings import Settings
from shufflelite import cli, config
from shufflelite.progress import Progress

_CONFIG = flags.DEFINE_string("config", None, "TOML file of settings.")
_SET = flags.DEFINE_multi_string("set", [], "section.key=value, a setting over --config.")
_JSON = flags.DEFINE_bool("json", False, "Print the result as JSON.")


def main(argv: list[str]) -> int:
    """Reads flags, trains, prints the result."""
    if len(argv) > 1:
        raise app.UsageError(f"expected flags only, got {argv[1]!r}")
    if _CONFIG.value is None:
        raise app.UsageError("expected --config FILE")
    settings = config.load(_CONFIG.value, Settings, _SET.value)
    from keras_models.train.distribution import WorkerLostError
    from keras_models.train.run import run  # brings in TensorFlow: not for --help and wrong flags

    progress = Progress("train")
    try:
        result = run(settings, progress)
    except WorkerLostError:
        progress.warn("a worker is lost: starts again, and goes on when all are back")
        os.dup2(sys.stderr.fileno(), 2)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    if _JSON.value:
        print(json.dumps(asdict(result), indent=2, default=str))
        return cli.DONE
    print(f"{'weights':10} {result.weights}")
    if result.accuracy:
        low, high = result.accuracy.interval
        print(f"{'top-1':10} {result.accuracy.top1:.2f} % (95 % interval {low:.2f} to {high:.2f})")
        print(f"{'top-5':10} {result.accuracy.top5:.2f} %")
        print(f"{'best top-1':10} {result.best_top1:.2f} %")
    return cli.DONE


if __name__ == "__main__":
    cli.run(main, name="train")
