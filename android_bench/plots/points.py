"""Networks as points: a colour for each family, a line over its widths."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from android_bench import results
from android_bench.plots.names import family_name, option_name
from android_bench.results import Row
from shufflelite.plot_style import COLOURS

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (8, 3)))


@dataclass(frozen=True)
class Point:
    """One network; `line` joins networks that differ only in width."""

    family: str
    line: str  # the family and its options except the width: groups, squeeze-and-excite, ...
    width: float
    resolution: int
    multiply_adds: float  # millions
    cost: float  # milliseconds, or millions of instructions
    top1: float | None  # percent


Position = Callable[[Point], tuple[float, float]]  # x and y of a point in a picture


@dataclass(frozen=True)
class Looks:
    """Colours by family, dashes by line, markers by resolution."""

    colours: Mapping[str, str]
    dashes: Mapping[str, Any]
    markers: Mapping[int, str]


def points_of(rows: Sequence[Row]) -> list[Point]:
    """The points of one target's rows; files that `convert` did not write have none."""
    points = []
    for row in rows:
        if row.network is None:
            continue
        options = {key: v for key, v in row.network.options.items() if key != "width"}
        family = family_name(row.network.name)
        others = (
            f"g={v}" if key == "groups" else option_name(key, v) for key, v in options.items()
        )
        points.append(
            Point(
                family=family,
                line=" ".join([family, *others]),
                width=row.network.width,
                resolution=row.network.resolution,
                multiply_adds=row.network.multiply_adds / 1e6,
                cost=_cost(row, rows),
                top1=row.network.published_top1 or row.network.top1,
            )
        )
    return points


def draw_lines(axes: Axes, points: Sequence[Point], looks: Looks, position: Position) -> None:
    """Draws the points, and the lines that join the widths of one network."""
    last = max(point.resolution for point in points)
    for line, resolution in dict.fromkeys((point.line, point.resolution) for point in points):
        same = [p for p in points if (p.line, p.resolution) == (line, resolution)]
        same.sort(key=lambda point: point.width)
        xs, ys = zip(*map(position, same), strict=True)
        colour = looks.colours[same[0].family]
        width = 1.4 if resolution == last else 0.7
        axes.plot(xs, ys, linestyle=looks.dashes[line], linewidth=width, zorder=2, color=colour)
        axes.plot(
            xs,
            ys,
            color=colour,
            linestyle="",
            marker=looks.markers[resolution],
            markersize=5.5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            zorder=3,
        )


def looks_of(points: Sequence[Point]) -> Looks:
    """Looks that distinguish the families, lines and resolutions of the points."""
    families = list(dict.fromkeys(point.family for point in points))
    dashes: dict[str, Any] = {}
    for family in families:
        lines = dict.fromkeys(point.line for point in points if point.family == family)
        dashes |= {line: DASHES[i % len(DASHES)] for i, line in enumerate(lines)}
    resolutions = sorted({point.resolution for point in points}, reverse=True)
    return Looks(
        colours={family: COLOURS[i % len(COLOURS)] for i, family in enumerate(families)},
        dashes=dashes,
        markers={size: MARKERS[i % len(MARKERS)] for i, size in enumerate(resolutions)},
    )


def add_legend(
    figure: Figure, points: Sequence[Point], looks: Looks, *, extra: Sequence[Line2D] = ()
) -> None:
    """Adds a legend of the lines and markers below the axes, with `extra` in between."""
    lines = dict.fromkeys((point.line, looks.colours[point.family]) for point in points)
    handles = [
        Line2D([], [], color=colour, linestyle=looks.dashes[line], linewidth=2, label=line)
        for line, colour in lines
    ]
    handles += extra
    handles += [
        Line2D([], [], color="#555555", linestyle="", marker=marker, label=f"{size} x {size}")
        for size, marker in looks.markers.items()
        if any(point.resolution == size for point in points)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, handlelength=3)


def make_logarithmic(axis: Any) -> None:
    """Makes an axis logarithmic, with ticks at 1, 2 and 5."""
    axis.axes.set_xscale("log") if axis.axis_name == "x" else axis.axes.set_yscale("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _cost(row: Row, rows: Sequence[Row]) -> float:
    if row.instructions is not None:
        return results.total_instructions(row) / 1e6
    return results.latency_ms(row, rows)
