"""Networks as points: cost over multiply-adds, and accuracy over cost with the Pareto front."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.lines import Line2D

from android_bench.plots.labels import Label, place_labels
from android_bench.plots.names import add_title, cost_label, cost_title, width_name
from android_bench.plots.points import (
    Looks,
    Point,
    Position,
    add_legend,
    draw_lines,
    looks_of,
    make_logarithmic,
    points_of,
)
from android_bench.results import Row
from shufflelite.plot_style import png, styled


def cost_against_multiply_adds(rows: Sequence[Row]) -> bytes | None:
    """Cost over multiply-adds, both logarithmic."""
    points = points_of(rows)
    if not points:
        return None
    looks = looks_of(points)
    last = max(point.resolution for point in points)
    with styled(4.9) as figure:
        axes = figure.add_subplot()
        draw_lines(axes, points, looks, _multiply_adds_and_cost)
        make_logarithmic(axes.xaxis)
        make_logarithmic(axes.yaxis)
        axes.set_xlabel("multiply-adds, millions")
        axes.set_ylabel(cost_label(rows))
        add_legend(figure, points, looks)
        add_title(axes, f"{cost_title(rows)} against multiply-adds", rows, "Labels: widths.")
        labels = {point: _label(point, looks, _multiply_adds_and_cost) for point in points}
        series: dict[tuple[str, int], list[Label]] = {}
        for point in sorted(points, key=lambda point: -point.width):
            series.setdefault((point.line, point.resolution), []).append(labels[point])
        shown = [label for point, label in labels.items() if point.resolution == last]
        place_labels(figure, axes, shown, series=list(series.values()))
        return png(figure)


def accuracy_against_cost(rows: Sequence[Row]) -> bytes | None:
    """Published top-1 over cost, with the Pareto front: networks that none beats in both."""
    points = points_of(rows)
    known = [point for point in points if point.top1 is not None]
    if len(known) < 2:
        return None
    looks = looks_of(points)
    last = max(point.resolution for point in known)
    front = [known[i] for i in pareto([*map(_cost_and_top1, known)])]
    with styled(4.9) as figure:
        axes = figure.add_subplot()
        path = [_cost_and_top1(front[0])]
        for point in front[1:]:  # up to its cost, the previous one is the best
            path += [(point.cost, path[-1][1]), _cost_and_top1(point)]
        look: dict[str, Any] = {"color": "#C8C8C8", "linewidth": 4, "label": "Pareto front"}
        axes.plot(*zip(*path, strict=True), zorder=1, **look)
        draw_lines(axes, known, looks, _cost_and_top1)
        make_logarithmic(axes.xaxis)
        axes.set_xlabel(cost_label(rows))
        axes.set_ylabel("top-1 on ImageNet as published, %")
        add_legend(figure, known, looks, extra=[Line2D([], [], **look)])
        unknown = {point.family for point in points} - {point.family for point in known}
        without = f" None published: {', '.join(sorted(unknown))}." if unknown else ""
        title = f"Accuracy against {cost_title(rows).lower()}"
        add_title(axes, title, rows, f"Labels: widths.{without}")
        first = [*front, *(p for p in known if p not in front and p.resolution == last)]
        place_labels(figure, axes, [_label(point, looks, _cost_and_top1) for point in first])
        return png(figure)


def _multiply_adds_and_cost(point: Point) -> tuple[float, float]:
    return point.multiply_adds, point.cost


def _cost_and_top1(point: Point) -> tuple[float, float]:
    assert point.top1 is not None
    return point.cost, point.top1


def _label(point: Point, looks: Looks, position: Position) -> Label:
    return *position(point), width_name(point.width), looks.colours[point.family]


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """The indices of the points (cost, gain) that no other dominates, in order of cost."""
    best, front = -math.inf, []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[index][1] > best:
            best = points[index][1]
            front.append(index)
    return front
