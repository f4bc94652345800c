"""Classifies pictures with a bundle's file, and prints the best class of each and its score.

The score is the class's probability in percent: the softmax of the logits.  What the file needs to
see a picture, and the names of its classes, are read from report.json and labels.txt beside it.

Example:
  python -m convert.classify build/shufflenet_v2_x0.5_cifar_32_int8/model.tflite examples/*.png
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from keras_models import cli, data, experiment
from keras_models.data import Preprocessing
from keras_models.errors import InputError

_JSON = flags.DEFINE_bool("json", False, "Print JSON, not a table.")


@dataclass(frozen=True)
class Bundle:
    """A file, and what its pictures and logits are."""

    file: bytes
    side: int  # of its input, in pixels
    preprocessing: Preprocessing
    class_names: tuple[str, ...]  # their numbers, where they have no names


@dataclass(frozen=True)
class Answer:
    """The best class of a picture, and its probability in percent."""

    picture: str
    label: str
    score: float


def main(argv: list[str]) -> int:
    """Reads the bundle and the pictures, runs the file on each, prints the answers."""
    if len(argv) < 3:
        raise app.UsageError("expected a bundle's .tflite file, and pictures or folders of them")
    bundle, files = read(Path(argv[1])), find(argv[2:])
    pixels = [
        data.load_picture(f, size=bundle.side, preprocessing=bundle.preprocessing) for f in files
    ]
    answers = classify(bundle, files, np.stack(pixels))
    if _JSON.value:
        print(json.dumps([vars(answer) for answer in answers], indent=2))
    else:
        rows = [(answer.picture, answer.label, f"{answer.score:.1f} %") for answer in answers]
        cli.print_table(("picture", "class", "score"), rows, left=2, file=sys.stdout)
    return cli.DONE


def read(path: Path) -> Bundle:
    """Reads a bundle by its .tflite file.

    Raises:
      InputError: no file there, or nothing that `convert` wrote beside it.
    """
    beside, labels = path.with_name("report.json"), path.with_name("labels.txt")
    if not path.is_file():
        raise InputError(f"Expected the .tflite file of a bundle, got {path}, which is no file.")
    try:
        report: dict[str, Any] = json.loads(beside.read_text(encoding="utf-8"))
        audit = report["audit"]
        preprocessing = experiment.build(report["preprocessing"], Preprocessing)
        side, classes = audit["input"]["shape"][1], audit["output"]["shape"][-1]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"Expected the report.json that convert wrote beside {path}, and that can be read: "
            f"{error!r}; keep the files of a bundle together."
        ) from error
    names = [str(number) for number in range(classes)]
    if labels.is_file():
        names = labels.read_text(encoding="utf-8").splitlines()
    if len(names) != classes:
        raise InputError(f"Expected {classes} class names in {labels}, got {len(names)}.")
    return Bundle(path.read_bytes(), side, preprocessing, tuple(names))


def find(words: Sequence[str]) -> list[Path]:
    """Files as they are, and the pictures of folders."""
    found: list[Path] = []
    for word in words:
        found += data.find_pictures(word).files if Path(word).is_dir() else [Path(word)]
    return found


def classify(bundle: Bundle, files: Sequence[Path], pixels: np.ndarray) -> list[Answer]:
    """Runs the file on uint8 RGB `pixels`, (n, side, side, 3)."""
    from convert import litert  # late: --help and wrong words do not wait for it

    answers = []
    try:
        results = litert.classifier_of(bundle.file, bundle.preprocessing)(pixels)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"Expected a whole .tflite file, got one that fails: {error}") from error
    for file, logits in zip(files, results, strict=True):
        exponents = np.exp(logits - logits.max())
        best = int(logits.argmax())
        score = 100 * float(exponents[best] / exponents.sum())
        answers.append(Answer(str(file), bundle.class_names[best], score))
    return answers


if __name__ == "__main__":
    cli.run(main, name="classify")
