"""The words in pictures: names of networks and options, titles and axis labels."""

import re
from collections.abc import Sequence

from matplotlib.axes import Axes

from android_bench import results
from android_bench.results import Row
from shufflelite import plot_style
from shufflelite.display import printable

NAMES = {"augshufflenet": "AugShuffleNet", "alexnet": "AlexNet"}
RUNTIMES = {"litert": "LiteRT"}


def family_name(name: str) -> str:
    """The name of a family as in its paper."""
    name = NAMES.get(name, name)
    name = re.sub(r"^(\w+?)net_(v\d)", lambda m: f"{m[1].capitalize()}Net {m[2].upper()}", name)
    return name.replace("_", " ")


def option_name(name: str, value: object) -> str:
    """An option and its value, which is omitted if True."""
    return name.replace("_", " ") if value is True else f"{name}={value}"


def width_name(width: float) -> str:
    """A width with at least one decimal, as in the papers."""
    return f"{width:.1f}" if round(width, 1) == width else f"{width:g}"


def bar_name(row: Row) -> str:
    """A network with its options, in one line."""
    if row.network is None:
        return printable(row.model)
    options = row.network.options
    named = {key: v for key, v in options.items() if key not in ("width", "groups")}
    words = [
        family_name(row.network.name),
        *([width_name(row.network.width)] if "width" in options else []),
        *([f"g={options['groups']}"] if "groups" in options else []),
        *(option_name(key, v) for key, v in named.items()),
    ]
    return printable(" ".join(words) + f", {row.network.resolution}")


def add_title(axes: Axes, title: str, rows: Sequence[Row], note: str = "") -> None:
    """Writes the title and, below it, how the rows were measured and a note."""
    head = rows[0]
    dates = sorted(row.date_utc[:10] for row in rows)
    facts = [
        *sorted({row.network.precision for row in rows if row.network}),
        f"{head.target}: {results.device(head)}",
        f"{RUNTIMES.get(head.runtime, head.runtime)} {head.runtime_version or ''}".strip(),
        f"{head.threads} thread{'s' * (head.threads != 1)}",
        " to ".join(dict.fromkeys((dates[0], dates[-1]))),
    ]
    plot_style.add_title(axes, title, f"{', '.join(facts)}.  {note}")


def cost_title(rows: Sequence[Row]) -> str:
    """The measured quantity, for a title."""
    return "Instructions" if rows[0].instructions is not None else "Latency"


def cost_label(rows: Sequence[Row]) -> str:
    """The measured quantity and its unit, for an axis."""
    if rows[0].instructions is not None:
        return "instructions of an inference, millions"
    return "latency, ms"
