"""The results of an accuracy measurement: JSON for machines, tables for people."""

import collections
import dataclasses
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

import numpy as np

from convert.accuracy.models import EvaluatedModel
from keras_models import accuracy
from keras_models.accuracy import Accuracy, Difference, Interval, Predictions
from keras_models.images.decode import Preprocessing
from shufflelite import cli
from shufflelite.display import Markdown, markdown_link, markdown_page, printable_line
from shufflelite.versions import version

SCHEMA = 1  # version of accuracy.json; grows when a field changes its meaning
PACKAGES = ("shufflelite", "ai-edge-litert", "tensorflow", "tf_keras", "numpy")
PAIRS = 10  # of confused classes in the tables


@dataclass(frozen=True)
class ModelAccuracy:
    """A model and its figures."""

    name: str
    path: str
    sha256: str
    size_bytes: int
    runtime: str
    precision: str | None
    input_dtype: str
    output_dtype: str
    resolution: int
    preprocessing: Preprocessing
    pictures_sha256: str  # after the resizing of this model
    accuracy: Accuracy
    undecided: int  # pictures with a NaN among the logits
    difference: Difference | None  # from the first model
    confusion: tuple[tuple[int, int, int], ...]  # class, best class, pictures; zeros are left out


@dataclass(frozen=True)
class AccuracyReport:
    """All results of one measurement."""

    data: str
    pictures: int
    classes: int
    class_names: tuple[str, ...] | None
    forms: tuple[ModelAccuracy, ...]  # "forms" is the key in accuracy.json
    versions: dict[str, str]
    schema: int = SCHEMA


def make_report(
    models: Sequence[EvaluatedModel],
    predictions: Sequence[Predictions],
    sha256: Sequence[str],
    *,
    data: str,
    class_names: tuple[str, ...] | None,
) -> AccuracyReport:
    """Collects the predictions of all models for the pictures of `data`.

    Args:
      models: The others are compared with the first.
      predictions: The predictions of each.
      sha256: The hash of the pictures, as resized for each.
      data: Source of the pictures.
      class_names: The class names of all models, if they are known.
    """
    first = predictions[0]
    measured = tuple(
        ModelAccuracy(
            name=model.name,
            path=str(model.path),
            sha256=model.sha256,
            size_bytes=model.size_bytes,
            runtime=model.runtime,
            precision=model.precision,
            input_dtype=model.input_dtype,
            output_dtype=model.output_dtype,
            resolution=model.resolution,
            preprocessing=model.preprocessing,
            pictures_sha256=pictures_sha256,
            accuracy=predicted.accuracy,
            undecided=int(np.count_nonzero(predicted.best == accuracy.NONE)),
            difference=None if predicted is first else accuracy.compare(predicted, first),
            confusion=_sparse(predicted.confusion),
        )
        for model, predicted, pictures_sha256 in zip(models, predictions, sha256, strict=True)
    )
    return AccuracyReport(
        data=data,
        pictures=len(first),
        classes=first.classes,
        class_names=class_names,
        forms=measured,
        versions={name: v for name in PACKAGES if (v := version(name))},
    )


def to_json(report: AccuracyReport) -> str:
    """The whole report, with each list of numbers on one line."""
    fields = dataclasses.asdict(report)
    for model in fields["forms"]:
        if not math.isfinite(model["accuracy"]["loss"]):  # JSON has no NaN
            model["accuracy"]["loss"] = None
    text = json.dumps(fields, indent=2, sort_keys=True, allow_nan=False)
    numbers = re.compile(r"\[\n[-+.e\d,\s]+\]")
    return numbers.sub(lambda match: f"[{' '.join(match[0][1:-1].split())}]", text) + "\n"


def print_table(report: AccuracyReport, *, file: TextIO) -> None:
    """Prints a table for people."""
    headings, rows = _table(report)
    cli.print_table(headings, rows, left=headings.index("top-1 %"), file=file)
    print(printable_line(_foot(report)), file=file)


def to_markdown(report: AccuracyReport, *, pictures: Sequence[str]) -> str:
    """The tables, with `pictures`: the names of the files, one per model."""
    headings, rows = _table(report)
    counts = [{(of, best): n for of, best, n in confused(model)} for model in report.forms]
    total = sum(map(collections.Counter, counts), collections.Counter())
    confusions = [
        [
            class_name(report, of),
            class_name(report, taken_for),
            *(str(count.get((of, taken_for), 0)) for count in counts),
        ]
        for (of, taken_for), _ in total.most_common(PAIRS)
    ]
    names = [model.name for model in report.forms]
    parts = [
        Markdown("# Accuracy"),
        cli.markdown_table(headings, rows, left=headings.index("top-1 %")),
        _foot(report),
        Markdown("## Most confused"),
        f"Pictures of a class that are taken for another: the {len(confusions)} commonest pairs of "
        "all models together.",
        cli.markdown_table(["class", "taken for", *names], confusions, left=2),
        *(
            Markdown(f"!{markdown_link(f'Confusions of {name}', path)}")
            for name, path in zip(names, pictures, strict=True)
        ),
    ]
    return markdown_page(parts)


def confused(model: ModelAccuracy) -> list[tuple[int, int, int]]:
    """Class, the class that it is taken for, and pictures; the most frequent first."""
    wrong = (entry for entry in model.confusion if entry[0] != entry[1])
    return sorted(wrong, key=lambda entry: -entry[2])


def class_name(report: AccuracyReport, number: int) -> str:
    """The class's name, or its number."""
    return report.class_names[number] if report.class_names else str(number)


def figures(model: ModelAccuracy) -> str:
    """Top-1 and its interval, on one line."""
    return f"top-1 {model.accuracy.top1:.2f} % ({_interval(model.accuracy.interval)})"


def _table(report: AccuracyReport) -> tuple[list[str], list[list[str]]]:
    has_top5 = accuracy.has_top5(report.classes)
    columns: dict[str, Callable[[ModelAccuracy], str]] = {
        "model": lambda m: m.name,
        "runtime": lambda m: m.runtime,
        "precision": lambda m: m.precision or "-",
        "I/O dtype": lambda m: "/".join(dict.fromkeys((m.input_dtype, m.output_dtype))),
        "top-1 %": lambda m: f"{m.accuracy.top1:.2f} ({_interval(m.accuracy.interval)})",
        "top-5 %": lambda m: f"{m.accuracy.top5:.2f}" if has_top5 else "-",
        "loss": lambda m: f"{m.accuracy.loss:.4f}",
        "difference": lambda m: _points(m.difference) if m.difference else "-",
        "agreement with first %": lambda m: (
            f"{m.difference.agreement:.2f}" if m.difference else "-"
        ),
        "undecided": lambda m: str(m.undecided or "-"),
    }
    cells = {name: [value(model) for model in report.forms] for name, value in columns.items()}
    cells = {name: column for name, column in cells.items() if set(column) != {"-"}}
    return [*cells], [list(row) for row in zip(*cells.values(), strict=True)]


def _sparse(confusion: np.ndarray) -> tuple[tuple[int, int, int], ...]:
    entries = zip(*np.nonzero(confusion), confusion[confusion > 0], strict=True)
    return tuple((int(of), int(best), int(pictures)) for of, best, pictures in entries)


def _points(difference: Difference) -> str:
    low, high = difference.interval
    return f"{difference.points:+.2f} ({low:+.2f} to {high:+.2f})"


def _interval(interval: Interval) -> str:
    return f"{interval[0]:.2f} to {interval[1]:.2f}"


def _foot(report: AccuracyReport) -> str:
    first, *others = report.forms
    sentences = [
        f"{report.pictures} pictures of {report.classes} classes: {report.data}. In brackets: 95 % "
        "confidence."
    ]
    if others:
        sentences.append(
            f"Differences are points of top-1 to {first.name} on the same pictures (intervals: "
            "Newcombe 1998, of paired rates). Agreement with first: pictures that have the best "
            f"class of {first.name}."
        )
    if any(model.undecided for model in report.forms):
        sentences.append("Undecided: logits with NaN, which count as wrong.")
    return " ".join(sentences)
