"""Reads a line of statistics, which every tool and version prints, and holds it to their laws."""

import math
import re
from dataclasses import dataclass

from android_bench.benchmark_tool.result import ParseError
from android_bench.benchmark_tool.sample_checks import check_sample

INTEGER = r"([0-9]{1,15})"
NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,12})?(?:e[+-][0-9]{2})?)"
PERCENTILES = rf" p5={INTEGER} median={INTEGER} p95={INTEGER}"
STATISTICS = re.compile(
    rf"count={INTEGER}(?:"
    rf" curr={INTEGER}(\(all same\))?|"
    rf" first={INTEGER} curr={INTEGER} min={INTEGER} max={INTEGER} avg={NUMBER} std={INTEGER}"
    rf")?(?:{PERCENTILES})?"
)


@dataclass(frozen=True)
class Statistics:
    """A stat line, in us."""

    count: int
    first: int
    curr: int
    low: int
    high: int
    avg: float
    rounding: float  # of `avg`
    std: int
    percentiles: tuple[int, int, int] | None


def statistics(line: str) -> Statistics:
    """Reads a stat line and holds it to the laws of statistics."""
    found = STATISTICS.fullmatch(line)
    if not found:
        raise ParseError(f"expected a line of statistics, got {line[:120]!r}")
    count, same, all_same, *rest = found.groups()
    numbers = [int(text) for text in (*rest[:4], rest[5]) if text is not None]
    percentiles = None if rest[6] is None else (int(rest[6]), int(rest[7]), int(rest[8]))
    size = int(count)
    if size == 0 and same is None and not numbers:
        return Statistics(0, 0, 0, 0, 0, 0.0, 0.0, 0, None)
    broken = ParseError(f"a line of statistics contradicts itself: {line[:120]!r}")
    if size == 0 or (same is None and not numbers):
        raise broken
    if same is not None:
        value = int(same)
        if bool(all_same) != (size > 1) or percentiles not in (None, (value, value, value)):
            raise broken
        return Statistics(size, value, value, value, value, value, 0.0, 0, (value, value, value))
    first, curr, low, high, std = numbers
    avg = float(rest[4])
    known = Statistics(size, first, curr, low, high, avg, rounding(avg), std, percentiles)
    if size == 1 or low == high or (size == 2 and {first, curr} != {low, high}):
        raise broken
    check_sample(
        count=size,
        low=low,
        high=high,
        avg=avg,
        rounding=known.rounding,
        deviation=(std, std + 1),
        percentiles=percentiles,
        others=(first, curr),
    )
    if abs(avg * size - round(avg * size)) > known.rounding * size + 1e-6:
        raise ParseError(f"avg={avg:g} is not that of {size} whole numbers")
    return known


def rounding(value: float) -> float:
    """Half a unit of the last of the six digits that C++ prints."""
    return 0.5 * 10.0 ** (math.floor(math.log10(value)) - 5) if value > 0 else 0.0
