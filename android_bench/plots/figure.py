"""What all pictures of rows share: axes, colours and the words of their titles."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from android_bench import results
from android_bench.results import Row
from shufflelite import plot_style

PIXELS_PER_POINT = plot_style.DPI / 72
# Okabe and Ito's, which the colour-blind tell apart: jfly.uni-koeln.de/color
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
RUNTIMES = {"litert": "LiteRT"}


@contextmanager
def new_figure(height_in: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one pair of axes."""
    with plot_style.styled(height_in) as made:
        yield made, made.add_subplot()


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
    plot_style.add_title(axes, what, f"{', '.join(told)}.  {note}")


def cost_title(rows: Sequence[Row]) -> str:
    """What the rows measured, for a title."""
    return "Instructions" if rows[0].instructions is not None else "Latency"


def cost_name(rows: Sequence[Row]) -> str:
    """What the rows measured and its unit, for an axis."""
    if rows[0].instructions is not None:
        return "instructions of an inference, millions"
    return "latency, ms"
