"""Confusion matrices as pictures: labelled cells, or dots if there are many classes."""

from collections import Counter
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from convert.accuracy.report import AccuracyReport, ModelAccuracy, class_name, confused, figures
from shufflelite import plot_style
from shufflelite.display import printable

RIGHT, WRONG = "#0072B2", "#D55E00"
PALE = 0.1  # least share of a class that is drawn in full colour
CELLS = 30  # most classes that are drawn as cells with names
NAME = 22  # most letters of a class name
LINES = 26  # confused pairs that are listed beside the dots


def picture(report: AccuracyReport, model: ModelAccuracy) -> bytes:
    """The confusion matrix of a model as a PNG file."""
    return (_cells if report.classes <= CELLS else _dots)(report, model)


def _cells(report: AccuracyReport, model: ModelAccuracy) -> bytes:
    classes = report.classes
    counts = np.zeros((classes, classes))
    for of, best, pictures in model.confusion:
        counts[of, best] = pictures
    of_class = counts.sum(axis=1, keepdims=True)
    rates = counts / np.maximum(of_class, 1)
    right = np.eye(classes, dtype=bool)
    depth = np.where(right, rates, rates / max(rates[~right].max(), PALE))
    colours = np.where(right[..., None], to_rgb(RIGHT), to_rgb(WRONG))
    with plot_style.styled(1.9 + max(3.2, 0.42 * min(classes, 12))) as drawn:
        axes = drawn.add_subplot()
        axes.imshow(1 - (1 - colours) * 0.85 * depth[..., None], aspect="auto")
        size = min(9.0, 160 / classes)
        percents = np.round(100 * rates)
        for row, column in np.argwhere(percents):
            axes.text(
                column,
                row,
                f"{percents[row, column]:.0f}",
                ha="center",
                va="center",
                fontsize=size,
                color="white" if depth[row, column] > 0.55 else "black",
            )
        names = [_short(class_name(report, number)) for number in range(classes)]
        look: dict[str, Any] = {"fontsize": min(9.0, 220 / classes)}
        slanted: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(classes), names, **look, **slanted)
        axes.set_yticks(range(classes), names, **look)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("best class")
        axes.set_ylabel("class of the picture")
        _add_title(axes, report, model, "In percent of a class's pictures.")
        return plot_style.png(drawn)


def _dots(report: AccuracyReport, model: ModelAccuracy) -> bytes:
    pairs = confused(model)
    most = max([10, *(pictures for _, _, pictures in pairs)])
    smallest = 8 if len(pairs) < 500 else 0  # so that few dots are visible too
    with plot_style.styled(5.4) as drawn:
        drawn.set_layout_engine("none")  # it would make room for the longest text
        axes = drawn.add_axes((0.08, 0.09, 0.42, 0.76))
        beside = drawn.add_axes((0.53, 0.09, 0.46, 0.76))
        axes.plot([0, report.classes], [0, report.classes], color=RIGHT, linewidth=0.6)
        axes.scatter(
            [taken_for for _, taken_for, _ in pairs],
            [of for of, _, _ in pairs],
            s=[max(smallest, 20 * pictures / most) for _, _, pictures in pairs],
            color=WRONG,
            alpha=0.6,
            linewidths=0,
        )
        axes.set_xlim(0, report.classes)
        axes.set_ylim(report.classes, 0)
        axes.set_xlabel("best class")
        axes.set_ylabel("class of the picture")
        note = "Dots: areas are pictures. Line: where they are right."
        _add_title(axes, report, model, note)
        beside.axis("off")
        beside.set_title("Most confused: class, taken for, pictures", loc="left", fontsize=8)
        of_class: Counter[int] = Counter()
        for of, _, pictures in model.confusion:
            of_class[of] += pictures
        for line, (of, taken_for, pictures) in enumerate(pairs[:LINES]):
            height = 1 - (line + 0.5) / LINES
            names = (_short(class_name(report, number)) for number in (of, taken_for))
            for left, name in zip((0, 0.43), names, strict=True):
                beside.text(left, height, name, va="center", fontsize=7.5)
            share = f"{pictures} of {of_class[of]}"
            beside.text(1, height, share, va="center", ha="right", fontsize=7.5)
        return plot_style.png(drawn)


def _add_title(axes: Axes, report: AccuracyReport, model: ModelAccuracy, note: str) -> None:
    subtitle = f"{figures(model)}, {report.pictures} pictures of {report.data}. {note}"
    plot_style.add_title(axes, f"Confusions of {model.name}", subtitle)


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= NAME else name[: NAME - 1] + "…"
