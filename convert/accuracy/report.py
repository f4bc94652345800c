"""What a measurement found out, for machines (JSON) and for people."""

import collections
import dataclasses
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

import numpy as np

from convert.accuracy.models import Form
from keras_models import accuracy
from keras_models.accuracy import Accuracy, Answers, Difference, Interval
from keras_models.images.decode import Preprocessing
from shufflelite import cli
from shufflelite.versions import version

SCHEMA = 1  # of accuracy.json; grows when a field changes its meaning
PACKAGES = ("shufflelite", "ai-edge-litert", "tensorflow", "tf_keras", "numpy")
PAIRS = 10  # of confused classes in the tables


@dataclass(frozen=True)
class Measured:
    """A form and its figures."""

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
    pictures_sha256: str  # as this form sees them
    accuracy: Accuracy
    undecided: int  # pictures whose logits are no numbers
    difference: Difference | None  # to the first form
    confusion: tuple[tuple[int, int, int], ...]  # class, best class, pictures; where there are any


@dataclass(frozen=True)
class Report:
    """Everything about one measurement."""

    data: str
    pictures: int
    classes: int
    class_names: tuple[str, ...] | None
    forms: tuple[Measured, ...]
    versions: dict[str, str]
    schema: int = SCHEMA


def make_report(
    forms: Sequence[Form],
    answers: Sequence[Answers],
    sha256: Sequence[str],
    *,
    data: str,
    class_names: tuple[str, ...] | None,
) -> Report:
    """Puts together what the forms answered to the pictures of `data`.

    Args:
      forms: The first is the one that others are compared with.
      answers: Theirs.
      sha256: Of the pictures, as each saw them.
      data: Where they are from.
      class_names: Of all forms, where they are known.
    """
    measured = tuple(
        Measured(
            name=form.name,
            path=str(form.path),
            sha256=form.sha256,
            size_bytes=form.size_bytes,
            runtime=form.runtime,
            precision=form.precision,
            input_dtype=form.input_dtype,
            output_dtype=form.output_dtype,
            resolution=form.resolution,
            preprocessing=form.preprocessing,
            pictures_sha256=seen,
            accuracy=said.accuracy,
            undecided=int(np.count_nonzero(said.best == accuracy.NONE)),
            difference=None if said is answers[0] else accuracy.compare(said, answers[0]),
            confusion=_sparse(said.confusion),
        )
        for form, said, seen in zip(forms, answers, sha256, strict=True)
    )
    return Report(
        data=data,
        pictures=len(answers[0]),
        classes=answers[0].classes,
        class_names=class_names,
        forms=measured,
        versions={name: v for name in PACKAGES if (v := version(name))},
    )


def to_json(report: Report) -> str:
    """The whole report; the same report gives the same text, with each list of numbers a line."""
    plain = dataclasses.asdict(report)
    for form in plain["forms"]:
        if not math.isfinite(form["accuracy"]["loss"]):  # which JSON cannot say
            form["accuracy"]["loss"] = None
    text = json.dumps(plain, indent=2, sort_keys=True, allow_nan=False)
    numbers = re.compile(r"\[\n[-+.e\d,\s]+\]")
    return numbers.sub(lambda found: f"[{' '.join(found[0][1:-1].split())}]", text) + "\n"


def print_table(report: Report, *, file: TextIO) -> None:
    """A table for people."""
    headings, rows = _table(report)
    cli.print_table(headings, rows, left=headings.index("top-1 %"), file=file)
    print(_foot(report), file=file)


def to_markdown(report: Report, *, pictures: Sequence[str]) -> str:
    """The tables, and `pictures`: names of the files, one a form."""
    headings, rows = _table(report)
    counts = [{(of, best): n for of, best, n in confused(form)} for form in report.forms]
    total = sum(map(collections.Counter, counts), collections.Counter())
    confusions = [
        [
            class_name(report, of),
            class_name(report, taken_for),
            *(str(count.get((of, taken_for), 0)) for count in counts),
        ]
        for (of, taken_for), _ in total.most_common(PAIRS)
    ]
    names = [form.name for form in report.forms]
    parts = [
        "# Accuracy",
        cli.markdown_table(headings, rows, left=headings.index("top-1 %")),
        _foot(report),
        "## Most confused",
        f"Pictures of a class that are taken for another: the {len(confusions)} commonest pairs of "
        "all forms together.",
        cli.markdown_table(["class", "taken for", *names], confusions, left=2),
        *(f"![Confusions of {name}]({path})" for name, path in zip(names, pictures, strict=True)),
    ]
    return "\n\n".join(parts) + "\n"


def confused(form: Measured) -> list[tuple[int, int, int]]:
    """Class, the other that it is taken for, and pictures; the commonest first."""
    wrong = (entry for entry in form.confusion if entry[0] != entry[1])
    return sorted(wrong, key=lambda entry: -entry[2])


def class_name(report: Report, number: int) -> str:
    """The class's name, or its number."""
    return report.class_names[number] if report.class_names else str(number)


def figures(form: Measured) -> str:
    """Top-1 with its interval, in a line."""
    return f"top-1 {form.accuracy.top1:.2f} % ({_interval(form.accuracy.interval)})"


def _table(report: Report) -> tuple[list[str], list[list[str]]]:
    columns: dict[str, Callable[[Measured], str]] = {
        "form": lambda form: form.name,
        "runtime": lambda form: form.runtime,
        "precision": lambda form: form.precision or "-",
        "I/O dtype": lambda form: "/".join(dict.fromkeys((form.input_dtype, form.output_dtype))),
        "top-1 %": lambda form: f"{form.accuracy.top1:.2f} ({_interval(form.accuracy.interval)})",
        "top-5 %": lambda form: f"{form.accuracy.top5:.2f}",
        "loss": lambda form: f"{form.accuracy.loss:.4f}",
        "difference": lambda form: _points(form.difference) if form.difference else "-",
        "agree %": lambda form: f"{form.difference.agreement:.2f}" if form.difference else "-",
        "undecided": lambda form: str(form.undecided or "-"),
    }
    cells = {name: [of(form) for form in report.forms] for name, of in columns.items()}
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


def _foot(report: Report) -> str:
    first, *others = report.forms
    told = [
        f"{report.pictures} pictures of {report.classes} classes: {report.data}. In brackets: 95 % "
        "confidence."
    ]
    if others:
        told.append(
            f"Differences are points of top-1 to {first.name} on the same pictures (intervals: "
            "Newcombe 1998, of paired rates); agree: the same best class."
        )
    if any(form.undecided for form in report.forms):
        told.append("Undecided: logits that are no numbers, which count as wrong.")
    return " ".join(told)
