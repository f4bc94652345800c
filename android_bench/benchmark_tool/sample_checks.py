"""What holds for the statistics of any sample: damage that breaks it is found."""

import math
from collections.abc import Sequence

from android_bench.benchmark_tool.result import ParseError


def check_sample(
    *,
    count: int,
    low: float,
    high: float,
    avg: float,
    rounding: float,
    deviation: tuple[float, float],
    percentiles: Sequence[float] | None,
    others: Sequence[float],
) -> None:
    """Raises ParseError unless a sample can have these statistics, all in one unit.

    Args:
      count: Size of the sample.
      low: Its least value.
      high: Its greatest value.
      avg: Its mean.
      rounding: By how much `avg` may be off, at most.
      deviation: The population's standard deviation lies between these.
      percentiles: The 5th, 50th and 95th, as the value at index count * p // 100.
      others: Further values of the sample.
    """
    if not all(low <= value <= high for value in others) or low > high:
        raise ParseError(f"values beyond min={low:g} and max={high:g}")
    least, most = (low * (count - 1) + high) / count, (high * (count - 1) + low) / count
    if not least - rounding <= avg <= most + rounding:
        raise ParseError(f"avg={avg:g} is none of {count} values in {low:g} to {high:g}")
    # The tool's sums of squares lose digits where the values are large.
    slack = 1e-13 * avg * avg + 1e-9
    above, below = high - avg, avg - low
    if deviation[0] ** 2 > (above + rounding) * (below + rounding) + slack:
        raise ParseError(f"std={deviation[0]:g} is too much for {low:g} to {high:g}")
    extremes = max(above - rounding, 0) ** 2 + max(below - rounding, 0) ** 2
    variance = deviation[1] ** 2 + slack
    if extremes > variance * count:
        raise ParseError(f"std={deviation[0]:g} is too little for {low:g} to {high:g}")
    if percentiles is None:
        return
    if list(percentiles) != sorted(percentiles) or not low <= percentiles[0] <= high:
        raise ParseError(f"percentiles {percentiles} out of order")
    if percentiles[2] > high:
        raise ParseError(f"p95={percentiles[2]:g} is above max={high:g}")
    for percent, value in zip((5, 50, 95), percentiles, strict=True):
        index = count * percent // 100
        share = (index + 1 if value < avg else count - index) / count
        farthest = math.sqrt(variance * (1 - share) / share)  # Cantelli's inequality
        if abs(value - avg) > farthest + rounding:
            raise ParseError(f"percentile {percent} is {value:g}, too far from avg={avg:g}")
