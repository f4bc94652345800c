"""Classifies pictures: prints the best class of each picture, and its score.

The score is the class's probability in percent: the file's own, or the softmax of its logits.
Preprocessing and class names come from report.json and labels.txt beside a .tflite file, else from
its TFLite metadata, else from flags; the weights of a training (.safetensors) hold both.

Example:
  python -m convert.classify build/shufflenet_v2_x0.5_cifar_32_int8/model.tflite examples/*.png
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import app

from convert.accuracy.preprocessing_flags import PreprocessingFlags
from keras_models.accuracy import probabilities
from keras_models.images import decode, lists
from shufflelite import cli, flags
from shufflelite.config import setting
from shufflelite.errors import InputError
from shufflelite.progress import Progress

if TYPE_CHECKING:
    from convert.accuracy.models import EvaluatedModel


@dataclass(frozen=True)
class ClassifyFlags:
    """The flags."""

    TOPIC = "output"

    json: bool = setting(False, help="Print JSON, not a table.")
    labels: str | None = setting(
        None,
        topic="data",
        value_name="FILE",
        help="Class names, one per line, instead of those of the model.",
    )
    preprocessing: PreprocessingFlags = dataclasses.field(default_factory=PreprocessingFlags)


SETTINGS = (ClassifyFlags,)
MODELS = (".tflite", ".lite", ".safetensors")
_PROGRESS = Progress("classify")


@dataclass(frozen=True)
class Answer:
    """The best class of a picture, and its probability in percent."""

    picture: str
    label: str
    score: float


def main(argv: list[str]) -> int:
    """Reads the model and the pictures, classifies each, prints the answers."""
    if len(argv) < 3:
        raise app.UsageError("expected a .tflite file, and pictures or folders of them")
    command = flags.read(ClassifyFlags)
    preprocessing = command.preprocessing.fields
    files = find(argv[2:])
    from convert.accuracy import models  # slow: not for --help

    (model,) = models.read_all(argv[1:2], preprocessing=preprocessing, labels=command.labels)
    answers = classify(model, files)
    if command.json:
        print(json.dumps([vars(answer) for answer in answers], indent=2))
    else:
        rows = [(answer.picture, answer.label, f"{answer.score:.1f} %") for answer in answers]
        cli.print_table(("picture", "class", "score"), rows, left=2, file=sys.stdout)
    return cli.DONE


def find(words: Sequence[str]) -> list[Path]:
    """The files, and the pictures in the folders.

    Raises:
      InputError: a file is a model, or a folder holds no pictures.
    """
    files: list[Path] = []
    for word in words:
        if word.lower().endswith(MODELS):
            raise InputError(
                f"Expected pictures after the first model, got {word}, a second one: classify with "
                "one model at a time, or compare them with python -m convert.accuracy."
            )
        path = Path(word)
        files += lists.find(path, warn=_PROGRESS.warn).files if path.is_dir() else [path]
    return files


def classify(model: "EvaluatedModel", files: Sequence[Path]) -> list[Answer]:
    """Classifies pictures; a class without a name is called by its number."""
    side, names = model.resolution, model.class_names or tuple(map(str, range(model.classes)))
    pixels = [
        decode.load_picture(f, resolution=side, preprocessing=model.preprocessing) for f in files
    ]
    answers = []
    for file, logits in zip(files, model.make()(np.stack(pixels)), strict=True):
        # A file's own scores come as their logarithms; rounded ones do not add up to 1.
        scores = np.exp(logits) if model.gives_scores else probabilities(logits)
        best = int(logits.argmax())
        answers.append(Answer(str(file), names[best], 100 * float(scores[best])))
    return answers


if __name__ == "__main__":
    cli.run(main, name="classify", settings=SETTINGS)
