"""Pictures of rows, as the bytes of PNG files: the same rows give the same bytes.

They are 830 pixels wide as a README shows them, and drawn twice as fine.
"""

import itertools
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from android_bench import results
from android_bench.results import Row

WIDTH_IN, DPI = 8.3, 200
PIXELS_PER_POINT = DPI / 72
# Okabe and Ito's, which the colour-blind tell apart: jfly.uni-koeln.de/color
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
YELLOW = "#F0E442"  # theirs too, and no colour for a line on white
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (8, 3)))
PARTS = len(COLOURS) + 1  # of a bar, without the rest
REST = "all others"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 9,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}
NAMES = {"augshufflenet": "AugShuffleNet", "alexnet": "AlexNet"}
RUNTIMES = {"litert": "LiteRT"}


@dataclass(frozen=True)
class Point:
    """One network in a picture of points; `line` joins widths of what is equal otherwise."""

    family: str
    line: str  # the family, and what of it is no width: groups, squeeze-and-excite, ...
    width: float
    resolution: int
    multiply_adds: float  # millions
    cost: float  # milliseconds, or millions of instructions
    top1: float | None  # percent


@dataclass(frozen=True)
class Looks:
    """Colours by family, dashes by line, markers by resolution."""

    colours: Mapping[str, str]
    dashes: Mapping[str, Any]
    markers: Mapping[int, str]


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Writes every picture that the rows have data for, of each target its own."""
    written = []
    for target in dict.fromkeys(row.target for row in rows):
        same = [row for row in rows if row.target == target]
        for name, picture in PICTURES.items():
            data = picture(same)
            if data is not None:
                written.append(folder / f"{name}_{re.sub(r'[^A-Za-z0-9]+', '_', target)}.png")
                results.write(written[-1], data)
    return written


def cost_against_multiply_adds(rows: Sequence[Row]) -> bytes | None:
    """Both logarithmic; a colour for each family, a line over widths, a marker a resolution."""
    points = _points(rows)
    if not points:
        return None
    looks = _looks(points)
    last = max(point.resolution for point in points)
    with _figure(4.9) as (figure, axes):
        _lines(axes, points, looks, x=lambda point: point.multiply_adds, y=_cost_of)
        _logarithmic(axes.xaxis)
        _logarithmic(axes.yaxis)
        axes.set_xlabel("multiply-adds, millions")
        axes.set_ylabel(_cost_name(rows))
        _legend(figure, points, looks)
        _title(axes, f"{_cost_title(rows)} against multiply-adds", rows, "Labels: widths.")
        labels = [
            (point.multiply_adds, point.cost, _width(point.width), looks.colours[point.family])
            for point in points
            if point.resolution == last
        ]
        _place_labels(figure, axes, labels)
        return _png(figure)


def accuracy_against_cost(rows: Sequence[Row]) -> bytes | None:
    """Published top-1 over cost, and the Pareto front: what nothing beats in both."""
    points = _points(rows)
    known = [point for point in points if point.top1 is not None]
    if len(known) < 2:
        return None
    looks = _looks(points)
    last = max(point.resolution for point in known)
    front = [known[i] for i in pareto([(point.cost, _top1_of(point)) for point in known])]
    with _figure(4.9) as (figure, axes):
        path = [(front[0].cost, _top1_of(front[0]))]
        for point in front[1:]:  # until it is affordable, the one before is the best
            path += [(point.cost, path[-1][1]), (point.cost, _top1_of(point))]
        look: dict[str, Any] = {"color": "#C8C8C8", "linewidth": 4, "label": "Pareto front"}
        axes.plot(*zip(*path, strict=True), zorder=1, **look)
        _lines(axes, known, looks, x=_cost_of, y=_top1_of)
        _logarithmic(axes.xaxis)
        axes.set_xlabel(_cost_name(rows))
        axes.set_ylabel("top-1 on ImageNet as published, %")
        _legend(figure, known, looks, extra=[Line2D([], [], **look)])
        unknown = {point.family for point in points} - {point.family for point in known}
        without = f" None published: {', '.join(sorted(unknown))}." if unknown else ""
        title = f"Accuracy against {_cost_title(rows).lower()}"
        _title(axes, title, rows, f"Labels: widths.{without}")
        first = [*front, *(p for p in known if p not in front and p.resolution == last)]
        labels = [
            (point.cost, _top1_of(point), _width(point.width), looks.colours[point.family])
            for point in first
        ]
        _place_labels(figure, axes, labels)
        return _png(figure)


def instructions_by_class(rows: Sequence[Row]) -> bytes | None:
    """A bar for each network, of the classes of its instructions."""
    counted = [row for row in rows if row.instructions is not None]
    parts = [
        {name.replace("_", " "): count / 1e6 for name, count in (row.instructions or {}).items()}
        for row in counted
    ]
    return _bars(counted, parts, title="Instructions by class", unit="M instructions an inference")


def operator_profile(rows: Sequence[Row]) -> bytes | None:
    """A bar for each network, of the types of its operators and their time."""
    profiled = [row for row in rows if row.profile]
    parts: list[dict[str, float]] = []
    for row in profiled:
        by_type: dict[str, float] = {}
        for operator in row.profile:
            by_type[operator["type"]] = by_type.get(operator["type"], 0.0) + operator["ms"]
        parts.append(by_type)
    return _bars(profiled, parts, title="Time by type of operator", unit="ms an inference")


PICTURES: Mapping[str, Callable[[Sequence[Row]], bytes | None]] = {
    "cost": cost_against_multiply_adds,
    "accuracy": accuracy_against_cost,
    "instructions": instructions_by_class,
    "profile": operator_profile,
}


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """The indices of points (cost, gain) that no other beats in one and equals in the other.

    By growing cost.
    """
    best, front = -math.inf, []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[index][1] > best:
            best = points[index][1]
            front.append(index)
    return front


def _points(rows: Sequence[Row]) -> list[Point]:
    """What the rows of one target tell of networks that `convert` made."""
    found = []
    for row in rows:
        if row.network is None:
            continue
        options = {key: v for key, v in row.network["options"].items() if key != "width"}
        family = _family(row.network["name"])
        others = (f"g={v}" if key == "groups" else _option(key, v) for key, v in options.items())
        found.append(
            Point(
                family=family,
                line=" ".join([family, *others]),
                width=row.network["options"].get("width", 1.0),
                resolution=row.network["resolution"],
                multiply_adds=row.network["multiply_adds"] / 1e6,
                cost=_cost(row, rows),
                top1=row.network["published_top1"] or row.network["top1"],
            )
        )
    return found


def _cost(row: Row, rows: Sequence[Row]) -> float:
    """Millions of instructions, or milliseconds with the drift between heats taken out."""
    if row.instructions is not None:
        return sum(row.instructions.values()) / 1e6
    reference = next((r for r in rows if r.model == row.ratio_to), row)
    assert reference.median_ms is not None
    return reference.median_ms * row.ratio / reference.ratio


def _cost_of(point: Point) -> float:
    return point.cost


def _top1_of(point: Point) -> float:
    assert point.top1 is not None
    return point.top1


def _family(name: str) -> str:
    name = NAMES.get(name, name)
    name = re.sub(r"^(\w+?)net_(v\d)", lambda m: f"{m[1].capitalize()}Net {m[2].upper()}", name)
    return name.replace("_", " ")


def _option(name: str, value: object) -> str:
    return name.replace("_", " ") if value is True else f"{name}={value}"


def _width(width: float) -> str:
    return f"{width:.1f}" if round(width, 1) == width else f"{width:g}"  # as papers write them


def _lines(
    axes: Axes,
    points: Sequence[Point],
    looks: Looks,
    *,
    x: Callable[[Point], float],
    y: Callable[[Point], float],
) -> None:
    last = max(point.resolution for point in points)
    for line, resolution in dict.fromkeys((point.line, point.resolution) for point in points):
        same = [p for p in points if (p.line, p.resolution) == (line, resolution)]
        same.sort(key=lambda point: point.width)
        colour = looks.colours[same[0].family]
        places = [x(point) for point in same], [y(point) for point in same]
        axes.plot(
            *places,
            color=colour,
            linestyle=looks.dashes[line],
            linewidth=1.4 if resolution == last else 0.7,
            zorder=2,
        )
        axes.plot(
            *places,
            color=colour,
            linestyle="",
            marker=looks.markers[resolution],
            markersize=5.5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            zorder=3,
        )


def _looks(points: Sequence[Point]) -> Looks:
    families = list(dict.fromkeys(point.family for point in points))
    dashes: dict[str, Any] = {}
    for family in families:
        lines = dict.fromkeys(point.line for point in points if point.family == family)
        dashes |= {line: DASHES[i % len(DASHES)] for i, line in enumerate(lines)}
    resolutions = sorted({point.resolution for point in points}, reverse=True)
    return Looks(
        colours={family: COLOURS[i % len(COLOURS)] for i, family in enumerate(families)},
        dashes=dashes,
        markers={side: MARKERS[i % len(MARKERS)] for i, side in enumerate(resolutions)},
    )


def _legend(
    figure: Figure, points: Sequence[Point], looks: Looks, *, extra: Sequence[Line2D] = ()
) -> None:
    lines = dict.fromkeys((point.line, looks.colours[point.family]) for point in points)
    handles = [
        Line2D([], [], color=colour, linestyle=looks.dashes[line], linewidth=2, label=line)
        for line, colour in lines
    ]
    handles += extra
    handles += [
        Line2D([], [], color="#555555", linestyle="", marker=marker, label=f"{side} x {side}")
        for side, marker in looks.markers.items()
        if any(point.resolution == side for point in points)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, handlelength=3)


def _logarithmic(axis: Any) -> None:
    axis.axes.set_xscale("log") if axis.axis_name == "x" else axis.axes.set_yscale("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _place_labels(
    figure: Figure, axes: Axes, labels: Sequence[tuple[float, float, str, str]]
) -> None:
    """Writes each label (x, y, text, colour) beside its point, or not where it would cover others.

    Earlier ones come first.  A label may cross a line where nothing else is free.
    """
    figure.canvas.draw()  # the layout, on which places depend
    figure.set_layout_engine("none")  # it stays as it is now
    pixels = [_pixels(axes, line.get_xydata()) for line in axes.get_lines()]
    half = 3.2 * PIXELS_PER_POINT
    taken = [Bbox([point - half, point + half]) for path in pixels for point in path]
    crossed = np.concatenate([_between(path) for path in pixels])
    for x, y, text, colour in labels:
        dark = tuple(0.7 * part for part in to_rgb(colour))  # or yellows are hard to read
        look: dict[str, Any] = {"fontsize": 8, "ha": "center", "va": "center", "zorder": 4}
        written = axes.text(x, y, text, color=dark, **look)
        written.set_path_effects([withStroke(linewidth=2, foreground="white")])
        box = _free_place(written.get_window_extent(), axes.get_window_extent(), taken, crossed)
        if box is None:
            written.remove()
        else:
            middle = axes.transData.inverted().transform(_corners(box).mean(axis=0))
            written.set_position((middle[0], middle[1]))
            taken.append(box.padded(1.5 * PIXELS_PER_POINT))


def _free_place(label: Bbox, inside: Bbox, taken: Sequence[Bbox], crossed: Any) -> Bbox | None:
    """Where `label`, centred on its point, covers least of the lines; None: it has no place."""
    best: tuple[float, Bbox] | None = None
    for distance in (1.0, 1.5, 2.2):
        for angle in range(0, 360, 30):
            across = label.width / 2 + 4.5 * PIXELS_PER_POINT * distance
            up = label.height / 2 + 3.5 * PIXELS_PER_POINT * distance
            turned = math.radians(angle)
            box = label.translated(across * math.cos(turned), up * math.sin(turned))
            low, high = _corners(box)
            within = (low >= _corners(inside)[0]).all() and (high <= _corners(inside)[1]).all()
            if within and not any(box.overlaps(other) for other in taken):
                covered = ((crossed > low) & (crossed < high)).all(axis=1).sum()
                cost = float(covered) + 6 * distance
                if best is None or cost < best[0]:
                    best = cost, box
    return best and best[1]


def _corners(box: Bbox) -> Any:
    return np.array(box.extents).reshape(2, 2)


def _pixels(axes: Axes, data: Any) -> Any:
    return axes.transData.transform(np.asarray(data, float))


def _between(path: Any) -> Any:
    """Points on the lines that join those of `path`, a few pixels apart."""
    points = [path[:1]]
    for start, end in itertools.pairwise(path):
        steps = max(2, int(np.hypot(*(end - start)) / 4))
        points.append(start + (end - start) * np.linspace(0, 1, steps)[:, np.newaxis])
    return np.concatenate(points)


def _bars(
    rows: Sequence[Row], parts: Sequence[Mapping[str, float]], *, title: str, unit: str
) -> bytes | None:
    if not rows:
        return None
    totals: dict[str, float] = {}
    for bar in parts:
        for name, value in bar.items():
            totals[name] = totals.get(name, 0.0) + value
    kept = sorted(totals, key=lambda name: (-totals[name], name))
    if len(kept) > PARTS:
        kept = kept[:PARTS]
    others = [sum(value for name, value in bar.items() if name not in kept) for bar in parts]
    columns = {name: [bar.get(name, 0.0) for bar in parts] for name in kept}
    if any(others):
        columns[REST] = others
    with _figure(1.6 + 0.24 * len(rows)) as (figure, axes):
        left = np.zeros(len(rows))
        places = np.arange(len(rows))[::-1]
        handles = []
        for index, (name, values) in enumerate(columns.items()):
            look: dict[str, Any] = {
                "facecolor": "#999999" if name == REST else (*COLOURS, YELLOW)[index],
                "edgecolor": "white",
                "linewidth": 0.2,
            }
            axes.barh(places, values, left=left, height=0.74, **look)
            handles.append(Patch(label=name, **look))
            left += values
        for place, total in zip(places, left, strict=True):
            axes.annotate(
                f"{total:.3g}",
                (total, place),
                (3, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        axes.set_yticks(places, [_bar_name(row) for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlim(0, max(left) * 1.07)
        axes.set_xlabel(unit)
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
        _title(axes, title, rows)
        return _png(figure)


def _bar_name(row: Row) -> str:
    if row.network is None:
        return row.model
    options = row.network["options"]
    named = {key: v for key, v in options.items() if key not in ("width", "groups")}
    parts = [
        _family(row.network["name"]),
        *([_width(options["width"])] if "width" in options else []),
        *([f"g={options['groups']}"] if "groups" in options else []),
        *(_option(key, v) for key, v in named.items()),
    ]
    return " ".join(parts) + f", {row.network['resolution']}"


def _cost_title(rows: Sequence[Row]) -> str:
    return "Instructions" if rows[0].instructions is not None else "Latency"


def _cost_name(rows: Sequence[Row]) -> str:
    if rows[0].instructions is not None:
        return "instructions of an inference, millions"
    return "latency, ms"


def _title(axes: Axes, what: str, rows: Sequence[Row], note: str = "") -> None:
    head = rows[0]
    precisions = sorted({row.network["precision"] for row in rows if row.network})
    dates = sorted(row.date_utc[:10] for row in rows)
    told = [
        *precisions,
        f"{head.target}: {results.device(head)}",
        f"{RUNTIMES.get(head.runtime, head.runtime)} {head.runtime_version or ''}".strip(),
        f"{head.threads} thread{'s' * (head.threads != 1)}",
        " to ".join(dict.fromkeys((dates[0], dates[-1]))),
    ]
    lines = textwrap.wrap(f"{', '.join(told)}.  {note}", 125)
    axes.set_title(what, loc="left", pad=8 + 12 * len(lines))
    axes.annotate(
        "\n".join(lines),
        (0, 1),
        (0, 7),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=8,
        color="#444444",
    )


@contextmanager
def _figure(height_in: float) -> Iterator[tuple[Figure, Axes]]:
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's matplotlibrc says
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, figure.add_subplot()


def _png(figure: Figure) -> bytes:
    file = BytesIO()
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()
