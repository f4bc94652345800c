"""The parts of each network's cost, as bars."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.patches import Patch

from android_bench import results
from android_bench.plots.names import add_title, bar_name
from android_bench.results import Row
from shufflelite.plot_style import COLOURS, png, styled

YELLOW = "#F0E442"  # of the same palette, but too pale for a line on white
PARTS = len(COLOURS) + 1  # of a bar, without the remainder
REST = "all others"


def instructions_by_class(rows: Sequence[Row]) -> bytes | None:
    """A bar for each network, divided by class of instruction."""
    counted = [row for row in rows if row.instructions is not None]
    parts = [
        {name.replace("_", " "): count / 1e6 for name, count in (row.instructions or {}).items()}
        for row in counted
    ]
    return _bars(counted, parts, title="Instructions by class", unit="M instructions an inference")


def operator_profile(rows: Sequence[Row]) -> bytes | None:
    """A bar for each network, divided by operator type."""
    profiled = [row for row in rows if row.profile]
    counted = any(row.instructions is not None for row in profiled)
    quantity, unit, size = ("Instructions", "M instructions", 1e6) if counted else ("Time", "ms", 1)
    parts = [
        {name: cost / size for name, (_, cost) in results.costs_by_type(row).items()}
        for row in profiled
    ]
    return _bars(
        profiled, parts, title=f"{quantity} by type of operator", unit=f"{unit} an inference"
    )


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
    with styled(1.6 + 0.24 * len(rows)) as figure:
        axes = figure.add_subplot()
        left = np.zeros(len(rows))
        positions = np.arange(len(rows))[::-1]
        handles = []
        for index, (name, values) in enumerate(columns.items()):
            look: dict[str, Any] = {
                "facecolor": "#999999" if name == REST else (*COLOURS, YELLOW)[index],
                "edgecolor": "white",
                "linewidth": 0.2,
            }
            axes.barh(positions, values, left=left, height=0.74, **look)
            handles.append(Patch(label=name, **look))
            left += values
        for position, total in zip(positions, left, strict=True):
            axes.annotate(
                f"{total:.3g}",
                (total, position),
                (3, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        axes.set_yticks(positions, [bar_name(row) for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlim(0, max(left) * 1.07)
        axes.set_xlabel(unit)
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
        add_title(axes, title, rows)
        return png(figure)
