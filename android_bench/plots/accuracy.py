"""Accuracy over cost, with the Pareto front."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.lines import Line2D

from android_bench.plots.labels import place_labels
from android_bench.plots.names import add_title, cost_label, cost_title, width_name
from android_bench.plots.points import (
    add_legend,
    cost_of,
    draw_lines,
    looks_of,
    make_logarithmic,
    points_of,
    top1_of,
)
from android_bench.results import Row
from shufflelite.plot_style import png, styled


def accuracy_against_cost(rows: Sequence[Row]) -> bytes | None:
    """Published top-1 over cost, with the Pareto front: networks that none beats in both."""
    points = points_of(rows)
    known = [point for point in points if point.top1 is not None]
    if len(known) < 2:
        return None
    looks = looks_of(points)
    last = max(point.resolution for point in known)
    front = [known[i] for i in pareto([(point.cost, top1_of(point)) for point in known])]
    with styled(4.9) as figure:
        axes = figure.add_subplot()
        path = [(front[0].cost, top1_of(front[0]))]
        for point in front[1:]:  # up to its cost, the previous one is the best
            path += [(point.cost, path[-1][1]), (point.cost, top1_of(point))]
        look: dict[str, Any] = {"color": "#C8C8C8", "linewidth": 4, "label": "Pareto front"}
        axes.plot(*zip(*path, strict=True), zorder=1, **look)
        draw_lines(axes, known, looks, x=cost_of, y=top1_of)
        make_logarithmic(axes.xaxis)
        axes.set_xlabel(cost_label(rows))
        axes.set_ylabel("top-1 on ImageNet as published, %")
        add_legend(figure, known, looks, extra=[Line2D([], [], **look)])
        unknown = {point.family for point in points} - {point.family for point in known}
        without = f" None published: {', '.join(sorted(unknown))}." if unknown else ""
        title = f"Accuracy against {cost_title(rows).lower()}"
        add_title(axes, title, rows, f"Labels: widths.{without}")
        first = [*front, *(p for p in known if p not in front and p.resolution == last)]
        labels = [
            (point.cost, top1_of(point), width_name(point.width), looks.colours[point.family])
            for point in first
        ]
        place_labels(figure, axes, labels)
        return png(figure)


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """The indices of the points (cost, gain) that no other dominates, in order of cost."""
    best, front = -math.inf, []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[index][1] > best:
            best = points[index][1]
            front.append(index)
    return front
