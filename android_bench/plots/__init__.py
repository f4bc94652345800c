"""Pictures of rows, as the bytes of PNG files: the same rows yield the same bytes."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from android_bench.plots.bars import instructions_by_class, operator_profile
from android_bench.plots.scatter import accuracy_against_cost, cost_against_multiply_adds
from android_bench.results import Row
from shufflelite import atomic

PICTURES: Mapping[str, Callable[[Sequence[Row]], bytes | None]] = {
    "cost": cost_against_multiply_adds,
    "accuracy": accuracy_against_cost,
    "instructions": instructions_by_class,
    "profile": operator_profile,
}


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Writes, for each target, every picture that its rows have data for."""
    written = []
    for target in dict.fromkeys(row.target for row in rows):
        same = [row for row in rows if row.target == target]
        for name, picture in PICTURES.items():
            data = picture(same)
            if data is not None:
                written.append(folder / f"{name}_{re.sub(r'[^A-Za-z0-9]+', '_', target)}.png")
                atomic.write(written[-1], data)
    return written
