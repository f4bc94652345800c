"""Measures how often forms of a network are right, over a whole set of labelled pictures.

A form is a .tflite file, which says in report.json beside it how pictures become its input, or the
weights of a training (.safetensors), which run in Keras. All are asked for the same pictures, and
each is compared with the first: read the differences, whose intervals are far narrower than those
of the accuracies, since a picture is easy or hard for all forms alike.

Prints a table, or JSON; --out also gets both as files, and a picture of each form's confusions.

The columns: top-1 and its 95 % confidence interval; loss, the mean cross-entropy; difference, in
points of top-1 to the first form, and its 95 % interval; agree, the pictures that get the same
best class from both.

Leaves with 0 when done, 1 when it could not be done, and 2 for wrong flags.

Examples:
  python -m convert.accuracy --models weights.safetensors build/*/model.tflite --data data/test
  python -m convert.accuracy --models a.tflite --mean 127.5 --std 127.5 --data labels.csv
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import app, flags

from keras_models.images.decode import CHANNEL_ORDERS, INTERPOLATIONS, Preprocessing
from shufflelite import cli
from shufflelite.progress import Progress

if TYPE_CHECKING:
    from convert.accuracy.models import Form

_MODELS = flags.DEFINE_multi_string(
    "models", [], "The files: paths or patterns, separated by blanks or commas."
)
_DATA = flags.DEFINE_string(
    "data",
    None,
    "Pictures: a folder that has a folder for each class, a csv (file, label), an .npz,"
    " tfds:NAME/SPLIT or synthetic:COUNT.",
)
_LABELS = flags.DEFINE_string(
    "labels", None, "File with a class name a line, in place of those that the files have."
)
_PREPROCESSING = {  # fields of data.Preprocessing
    "mean": flags.DEFINE_list("mean", None, "Of .tflite files without report.json: one or three."),
    "std": flags.DEFINE_list("std", None, "Likewise; both in pixel units, 0 to 255."),
    "channel_order": flags.DEFINE_enum("channel_order", None, CHANNEL_ORDERS, "Likewise."),
    "crop_fraction": flags.DEFINE_float("crop_fraction", None, "Likewise; default 0.875."),
    "interpolation": flags.DEFINE_enum(
        "interpolation", None, [*INTERPOLATIONS], "Likewise; default bilinear."
    ),
}
_THREADS = flags.DEFINE_integer(
    "threads", None, "Pictures at the same time; default: all cores.", lower_bound=1
)
_IN_MEMORY_GB = flags.DEFINE_float(
    "in_memory_gb", 4.0, "Decoded pictures beyond this are read when needed.", lower_bound=0.0
)
_SEED = flags.DEFINE_integer("seed", 0, "Of synthetic pictures.", lower_bound=0)
_OUT = flags.DEFINE_string("out", None, "Folder for accuracy.json, accuracy.md and pictures.")
_JSON = flags.DEFINE_bool("json", False, "Print JSON, not a table.")


def main(argv: list[str]) -> int:
    """Measures, prints, writes.

    Args:
      argv: The words that are not flags; absl leaves all paths after `--models A` in it.
    """
    words = [*_MODELS.value, *argv[1:]]
    if not words:
        raise app.UsageError("expected --models with .tflite or .safetensors files")
    if _DATA.value is None:
        raise app.UsageError("expected --data with labelled pictures")
    if math.isnan(_IN_MEMORY_GB.value):  # which is below no bound
        raise app.UsageError("--in_memory_gb: expected a number, got nan")
    preprocessing = _preprocessing()
    from convert.accuracy import models, outputs, report, run  # late: --help waits for none of them

    found = models.read_all(words, preprocessing=preprocessing, labels=_LABELS.value)
    if _OUT.value is not None:
        outputs.check(Path(_OUT.value))
    threads = _THREADS.value or run.default_threads(found)
    _prepare_keras(found, threads)
    measured = run.run(
        found,
        _DATA.value,
        threads=threads,
        in_memory_gb=_IN_MEMORY_GB.value,
        seed=_SEED.value,
        progress=Progress("accuracy"),
    )
    if _JSON.value:
        print(report.to_json(measured), end="")
    else:
        report.print_table(measured, file=sys.stdout)
    if _OUT.value is not None:
        for path in outputs.write(Path(_OUT.value), measured):
            print(f"accuracy: wrote {path}", file=sys.stderr)
    return cli.DONE


def _preprocessing() -> Preprocessing | None:
    given: dict[str, Any] = {
        name: flag.value for name, flag in _PREPROCESSING.items() if flag.value is not None
    }
    if not given:
        return None
    if missing := [name for name in ("mean", "std") if name not in given]:
        raise app.UsageError(f"expected --{missing[0]} too, got --{' and --'.join(given)}")
    for name in ("mean", "std"):
        given[name] = _three(name, given[name])
    return Preprocessing(**given)


def _three(name: str, words: Sequence[str]) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, words))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 3):
        got = ",".join(words)
        raise app.UsageError(f"--{name}: expected a number, or one for each channel, got {got!r}")
    return numbers * 3 if len(numbers) == 1 else numbers


def _prepare_keras(found: Sequence["Form"], threads: int) -> None:
    """Makes TensorFlow compute each batch on one thread: the same bits however many batches."""
    if any(form.runtime == "Keras" for form in found):
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        tf.config.experimental.enable_op_determinism()


if __name__ == "__main__":
    cli.run(main, name="accuracy")
