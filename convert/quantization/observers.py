"""Observers: record the values of each tensor, and choose the range that int8 covers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tf_keras as keras

from convert.calibration_data import Inputs
from convert.quantization.int8_range import Range
from convert.settings import Estimator
from shufflelite.errors import InputError

BINS = 4096  # sixteen for each step of int8


@dataclass(frozen=True)
class Histogram:
    """Counts of values in equal bins from `low` to `high`; zeros are counted apart: int8 has 0."""

    low: float
    high: float
    counts: np.ndarray
    zeros: int


def observe(model: keras.Model, groups: Sequence[Sequence[str]], inputs: Inputs) -> list[Histogram]:
    """Runs `inputs` through a model; returns one histogram for each group of layers.

    Raises:
      InputError: a value is not finite.
    """
    layers = [name for group in groups for name in group]
    probe = keras.Model(model.inputs, [model.get_layer(name).output for name in layers])
    limits = [(0.0, 0.0)] * len(groups)
    for tensors in _by_group(probe, groups, inputs):
        limits = [
            (np.min([low, *(t.min() for t in ts)]), np.max([high, *(t.max() for t in ts)]))
            for (low, high), ts in zip(limits, tensors, strict=True)
        ]
    for group, (low, high) in zip(groups, limits, strict=True):
        if not np.isfinite(high - low):
            raise InputError(
                f"Expected {group[0]} to give finite numbers, got others: the weights are those of "
                "a training that diverged."
            )
    counts = np.zeros((len(groups), BINS), np.int64)
    zeros = np.zeros(len(groups), np.int64)
    for tensors in _by_group(probe, groups, inputs):
        for i, ((low, high), ts) in enumerate(zip(limits, tensors, strict=True)):
            for t in ts:
                values = t[t != 0]
                zeros[i] += t.size - values.size
                scaled = (values - low) * (BINS / max(high - low, 1e-30))
                bins = np.minimum(scaled.astype(np.int32), BINS - 1)
                counts[i] += np.bincount(bins, minlength=BINS)
    return [
        Histogram(float(low), float(high), c, int(z))
        for (low, high), c, z in zip(limits, counts, zeros, strict=True)
    ]


def _by_group(
    probe: keras.Model, groups: Sequence[Sequence[str]], inputs: Inputs
) -> Iterator[list[list[np.ndarray]]]:
    for outputs in inputs.outputs_of(probe):
        flat = iter(outputs)
        yield [[next(flat).ravel() for _ in group] for group in groups]


def choose_range(histogram: Histogram, estimator: Estimator) -> Range:
    """Chooses the range for one histogram."""
    h = histogram
    if h.high - h.low <= 0:
        return Range(0.0, 1.0)  # every value is zero: any scale holds it
    if estimator is Estimator.MINMAX:
        return Range(h.low, h.high)
    if estimator is Estimator.PERCENTILE:
        return _percentile(h, 1e-4)
    return _least_squares(h)


def _percentile(h: Histogram, tail: float) -> Range:
    edges = np.linspace(h.low, h.high, BINS + 1)
    total = h.counts.sum() + h.zeros
    below = np.searchsorted(np.cumsum(h.counts), tail * total)
    above = np.searchsorted(np.cumsum(h.counts[::-1]), tail * total)
    low, high = min(edges[below], 0.0), max(edges[BINS - above], 0.0)
    if low == high:  # nearly every value is zero
        return Range(h.low, h.high)
    return Range(float(low), float(high))


def _least_squares(h: Histogram) -> Range:
    """Minimizes the squared error over a grid of limits: step^2 / 12 inside, clipping outside."""
    width = (h.high - h.low) / BINS
    centers = h.low + width * (np.arange(BINS) + 0.5)
    shrink = np.linspace(0.02, 1.0, 99)
    lows = h.low * shrink if h.low < 0 else np.zeros(1)
    highs = h.high * shrink if h.high > 0 else np.zeros(1)
    # count and squared error of the values below each candidate low, and above each high
    clipped_low = [_clipped(centers, h.counts, low, -1) for low in lows]
    clipped_high = [_clipped(centers, h.counts, high, +1) for high in highs]
    mass_low, error_low = np.array(clipped_low).T[:, :, None]
    mass_high, error_high = np.array(clipped_high).T[:, None, :]
    step = (highs[None, :] - lows[:, None]) / 255
    inside = h.counts.sum() - mass_low - mass_high
    error = inside * step**2 / 12 + error_low + error_high
    i, j = np.unravel_index(np.argmin(error), error.shape)
    return Range(float(lows[i]), float(highs[j]))


def _clipped(
    centers: np.ndarray, counts: np.ndarray, limit: float, sign: int
) -> tuple[float, float]:
    distance = sign * (centers - limit)
    outside = distance > 0
    return counts[outside].sum(), (counts[outside] * distance[outside] ** 2).sum()
