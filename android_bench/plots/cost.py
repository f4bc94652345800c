"""Cost over multiply-adds: how well the theoretical count predicts the measured cost."""

from collections.abc import Sequence

from android_bench.plots.labels import Label, place_labels
from android_bench.plots.names import add_title, cost_label, cost_title, width_name
from android_bench.plots.points import (
    add_legend,
    cost_of,
    draw_lines,
    looks_of,
    make_logarithmic,
    points_of,
)
from android_bench.results import Row
from shufflelite.plot_style import png, styled


def cost_against_multiply_adds(rows: Sequence[Row]) -> bytes | None:
    """Both logarithmic; a colour for each family, a line over widths, a marker a resolution."""
    points = points_of(rows)
    if not points:
        return None
    looks = looks_of(points)
    last = max(point.resolution for point in points)
    with styled(4.9) as figure:
        axes = figure.add_subplot()
        draw_lines(axes, points, looks, x=lambda point: point.multiply_adds, y=cost_of)
        make_logarithmic(axes.xaxis)
        make_logarithmic(axes.yaxis)
        axes.set_xlabel("multiply-adds, millions")
        axes.set_ylabel(cost_label(rows))
        add_legend(figure, points, looks)
        add_title(axes, f"{cost_title(rows)} against multiply-adds", rows, "Labels: widths.")
        labels = {
            point: (
                *(point.multiply_adds, point.cost),
                *(width_name(point.width), looks.colours[point.family]),
            )
            for point in points
        }
        series: dict[tuple[str, int], list[Label]] = {}
        for point in sorted(points, key=lambda point: -point.width):
            series.setdefault((point.line, point.resolution), []).append(labels[point])
        shown = [label for point, label in labels.items() if point.resolution == last]
        place_labels(figure, axes, shown, series=list(series.values()))
        return png(figure)
