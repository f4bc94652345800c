"""Places labels beside their points without covering anything.

A greedy search over fixed positions: the same points always yield the same picture.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from shufflelite.display import printable
from shufflelite.plot_style import PIXELS_PER_POINT

Label = tuple[float, float, str, str]  # x and y of its point, text and colour


def place_labels(
    figure: Figure, axes: Axes, labels: Sequence[Label], *, series: Sequence[Sequence[Label]] = ()
) -> None:
    """Writes each label beside its point, or omits it if it would cover others.

    Labels are placed in their order, but first of all one of each series: the first with a free
    position.  A label may cross a line if nothing else is free.
    """
    figure.canvas.draw()  # computes the layout, on which positions depend
    figure.set_layout_engine("none")  # freezes it
    pixels = [axes.transData.transform(line.get_xydata()) for line in axes.get_lines()]
    half = 3.2 * PIXELS_PER_POINT
    taken = [Bbox([point - half, point + half]) for path in pixels for point in path]
    crossed = np.concatenate([_between(path) for path in pixels])

    def write(label: Label) -> bool:
        x, y, text, colour = label
        dark = tuple(0.7 * channel for channel in to_rgb(colour))  # yellows would be hard to read
        look: dict[str, Any] = {"fontsize": 8, "ha": "center", "va": "center", "zorder": 4}
        written = axes.text(x, y, printable(text), color=dark, **look)
        written.set_path_effects([withStroke(linewidth=2, foreground="white")])
        box = _free_position(written.get_window_extent(), axes.get_window_extent(), taken, crossed)
        if box is None:
            written.remove()
            return False
        middle = axes.transData.inverted().transform(box.get_points().mean(axis=0))
        written.set_position((middle[0], middle[1]))
        taken.append(box.padded(1.5 * PIXELS_PER_POINT))
        return True

    firsts = {next(filter(write, one), None) for one in series}
    for label in labels:
        if label not in firsts:
            write(label)


def _free_position(label: Bbox, axes: Bbox, taken: Sequence[Bbox], crossed: Any) -> Bbox | None:
    """The position beside the label's centre that crosses lines least; None if none is free."""
    best: tuple[float, Bbox] | None = None
    for distance in (1.0, 1.5, 2.2):
        for angle in range(0, 360, 30):
            across = label.width / 2 + 4.5 * PIXELS_PER_POINT * distance
            up = label.height / 2 + 3.5 * PIXELS_PER_POINT * distance
            radians = math.radians(angle)
            box = label.translated(across * math.cos(radians), up * math.sin(radians))
            low, high = box.get_points()
            within = (low >= axes.min).all() and (high <= axes.max).all()
            if within and not any(box.overlaps(other) for other in taken):
                covered = ((crossed > low) & (crossed < high)).all(axis=1).sum()
                cost = float(covered) + 6 * distance
                if best is None or cost < best[0]:
                    best = cost, box
    return best and best[1]


def _between(path: Any) -> Any:
    """Points on the lines that join those of `path`, a few pixels apart."""
    points = [path[:1]]
    for start, end in itertools.pairwise(path):
        steps = max(2, int(np.hypot(*(end - start)) / 4))
        points.append(start + (end - start) * np.linspace(0, 1, steps)[:, np.newaxis])
    return np.concatenate(points)
