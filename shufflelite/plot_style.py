"""The style of all pictures: size, fonts, colours, titles, and how a figure becomes a PNG file."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from shufflelite.display import printable

WIDTH_IN, DPI = 8.3, 200  # 830 pixels wide in a README, drawn at twice the resolution
PIXELS_PER_POINT = DPI / 72
# Okabe and Ito's, which colour-blind people can distinguish: jfly.uni-koeln.de/color
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # part of matplotlib: the same on every machine
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
    "text.parse_math": False,  # a dollar in a name is no formula
}


@contextmanager
def styled(height_in: float) -> Iterator[Figure]:
    """Yields an empty figure in this style, independent of the user's matplotlibrc."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def add_title(axes: Axes, title: str, subtitle: str) -> None:
    """Writes a title and, below it, a smaller subtitle of any length."""
    lines = textwrap.wrap(printable(subtitle), 125)
    axes.set_title(printable(title), loc="left", pad=8 + 12 * len(lines))
    axes.annotate(
        "\n".join(lines),
        (0, 1),
        (0, 7),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=8,
        color="#444444",
    )


def png(figure: Figure) -> bytes:
    """The bytes of the figure as a PNG file; its texts are made printable."""
    for text in figure.findobj(Text):
        text.set_text(printable(text.get_text(), keep="\n"))
    file = BytesIO()
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()
