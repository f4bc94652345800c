"""What all pictures share: size, look, title, and how a figure becomes bytes."""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from android_bench import results
from android_bench.results import Row

WIDTH_IN, DPI = 8.3, 200
PIXELS_PER_POINT = DPI / 72
# Okabe and Ito's, which the colour-blind tell apart: jfly.uni-koeln.de/color
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
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
RUNTIMES = {"litert": "LiteRT"}


@contextmanager
def new_figure(height_in: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one pair of axes, in our look whatever the user's is."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's matplotlibrc says
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, figure.add_subplot()


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def add_title(axes: Axes, what: str, rows: Sequence[Row], note: str = "") -> None:
    """Writes what the picture shows, and below it how the rows were measured and a note."""
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


def cost_title(rows: Sequence[Row]) -> str:
    """What the rows measured, for a title."""
    return "Instructions" if rows[0].instructions is not None else "Latency"


def cost_name(rows: Sequence[Row]) -> str:
    """What the rows measured and its unit, for an axis."""
    if rows[0].instructions is not None:
        return "instructions of an inference, millions"
    return "latency, ms"
