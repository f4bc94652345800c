"""Measures the accuracy of .tflite files and of trained weights over a set of labelled pictures.

How pictures become the inputs of a .tflite file is in the report.json beside it, else in its TFLite
metadata, else --mean and --std say it. The weights of a training (.safetensors) run in Keras. All
models see the same pictures, and each is compared with the first: read the differences, whose
intervals are far narrower than those of the accuracies, because a picture is easy or hard for all
models alike.

Prints a table, or JSON; --out also writes both to files, with a picture of each model's confusions.

The columns: top-1 and its 95 % confidence interval; loss, the mean cross-entropy; difference, in
points of top-1 to the first model, and its 95 % interval; agreement with first, the pictures that
have the first model's best class: with a float network first, the agreement of float and int8.

Exit status: 0 success, 1 failure, 2 usage error.

Examples:
  python -m convert.accuracy --models weights.safetensors build/net*/model.tflite --data data/test
  python -m convert.accuracy --models a.tflite --mean 127.5 --std 127.5 --data labels.csv
"""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from absl import app

from convert.accuracy.preprocessing_flags import PreprocessingFlags
from shufflelite import cli, flags
from shufflelite.config import Bounded, setting
from shufflelite.progress import Progress

if TYPE_CHECKING:
    from convert.accuracy.models import EvaluatedModel


@dataclass(frozen=True)
class AccuracyFlags(Bounded):
    """The flags."""

    TOPIC = "data"

    models: tuple[str, ...] = setting(
        (),
        topic="models",
        repeats=True,
        value_name="FILE",
        help="The files: paths or patterns, separated by blanks or commas.",
    )
    data: str | None = setting(
        None,
        value_name="PICTURES",
        help="Labelled pictures: a folder with one folder per class, a csv (file, label), an .npz "
        "file, tfds:NAME/SPLIT or synthetic:COUNT.",
    )
    labels: str | None = setting(
        None, value_name="FILE", help="Class names, one per line, instead of those of the models."
    )
    preprocessing: PreprocessingFlags = dataclasses.field(default_factory=PreprocessingFlags)
    threads: int | None = setting(
        None,
        topic="measurement",
        least=1,
        help="Pictures processed in parallel. Default: all cores.",
    )
    in_memory_gb: float = setting(
        4.0,
        topic="measurement",
        least=0,
        help="Decoded pictures beyond this size are read again when needed.",
    )
    seed: int = setting(0, least=0, help="Seed of synthetic pictures.")
    out: str | None = setting(
        None,
        topic="output",
        value_name="FOLDER",
        help="Also write accuracy.json, accuracy.md and pictures here.",
    )
    json: bool = setting(False, topic="output", help="Print JSON, not a table.")


SETTINGS = (AccuracyFlags,)


def main(argv: list[str]) -> int:
    """Measures, prints, writes.

    Args:
      argv: The arguments that are not flags: all paths after `--models A`.
    """
    command = flags.read(AccuracyFlags)
    words = [*command.models, *argv[1:]]
    if not words:
        raise app.UsageError("expected --models with .tflite or .safetensors files")
    if command.data is None:
        raise app.UsageError("expected --data with labelled pictures")
    preprocessing = command.preprocessing.fields
    from convert.accuracy import models, outputs, report, run  # slow: not for --help

    evaluated = models.read_all(words, preprocessing=preprocessing, labels=command.labels)
    if command.out is not None:
        outputs.check(Path(command.out))
    threads = command.threads or run.default_threads(evaluated)
    progress = Progress("accuracy")
    _prepare_keras(evaluated, threads)
    measured = run.run(
        evaluated,
        command.data,
        threads=threads,
        in_memory_gb=command.in_memory_gb,
        seed=command.seed,
        progress=progress,
    )
    if command.json:
        print(report.to_json(measured), end="")
    else:
        report.print_table(measured, file=sys.stdout)
    if command.out is not None:
        for path in outputs.write(Path(command.out), measured):
            progress.tell(f"wrote {path}")
    return cli.DONE


def _prepare_keras(evaluated: Sequence["EvaluatedModel"], threads: int) -> None:
    """Makes TensorFlow compute each batch on one thread: the same bits however many batches."""
    if any(model.runtime == "Keras" for model in evaluated):
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        tf.config.experimental.enable_op_determinism()


if __name__ == "__main__":
    cli.run(main, name="accuracy", settings=SETTINGS)
