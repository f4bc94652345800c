"""Ranges of values, by every estimator."""

from typing import Any

import numpy as np
import pytest
import tf_keras as keras

from convert.calibration_data import Inputs
from convert.quantization.int8_range import Range
from convert.quantization.observers import BINS, Histogram, choose_range, observe
from convert.settings import Estimator
from shufflelite.errors import InputError

ESTIMATORS = list(Estimator)
RNG = np.random.default_rng(0)
SAMPLES = {
    "gaussian": RNG.normal(0.3, 1, 50_000),
    "heavy tails": RNG.standard_t(4, 50_000),
    "one outlier": np.append(RNG.normal(0, 1, 50_000), 90.0),
    "rectified": np.maximum(RNG.laplace(0, 1, 50_000), 0),
    "rectified with an outlier": np.append(np.maximum(RNG.normal(0, 1, 50_000), 0), [60.0, 40.0]),
    "skewed": RNG.gamma(1.5, 1, 50_000) - 1,
    "negative": -RNG.exponential(1, 50_000),
    "uniform": RNG.uniform(-2, 3, 50_000),
}


def histogram(values: np.ndarray) -> Histogram:
    low, high = min(values.min(), 0), max(values.max(), 0)
    counts, _ = np.histogram(values[values != 0], BINS, (low, high))
    return Histogram(low, high, counts, int(np.sum(values == 0)))


def mean_squared_error(values: np.ndarray, low: float, high: float) -> float:
    """Of int8 with that range, zero moved onto a step as TFLite does."""
    step = (high - low) / 255
    zero = np.round(-low / step)
    rounded = (np.clip(np.round(values / step) + zero, 0, 255) - zero) * step
    return float(np.mean((values - rounded) ** 2))


def two_branches() -> Any:
    """Layer "a" gives the input, "b" minus a half of it."""
    inputs = keras.Input((2, 2, 2), name="image")
    a = keras.layers.Activation("linear", name="a")(inputs)
    b = keras.layers.Rescaling(-0.5, name="b")(inputs)
    return keras.Model(inputs, keras.layers.Concatenate()([a, b]))


def on_bin_centres(*shape: int) -> np.ndarray:
    """Values exact in float32 in the middle of bins of a power of two's width, and zeros."""
    rng = np.random.default_rng(3)
    values = (rng.integers(-1024, 3072, shape) + 0.5) / 1024
    values[rng.uniform(size=shape) < 0.2] = 0
    values.flat[:2] = [-1.0, 3.0]
    return values.astype(np.float32)


@pytest.mark.parametrize("count", [1, 8, 21])
def test_collected_histograms_are_those_of_numpy(count: int) -> None:
    values = on_bin_centres(count, 2, 2, 2)
    values[-1].flat[-2:] = [-1.0, 3.0]  # the limits are those of all batches
    (found,) = observe(two_branches(), [["a"]], Inputs("test", values))
    assert (found.low, found.high) == (-1.0, 3.0)
    expected, _ = np.histogram(values[values != 0], BINS, (-1.0, 3.0))
    np.testing.assert_array_equal(found.counts, expected)
    assert found.zeros == np.sum(values == 0)


def test_tensors_of_a_group_are_collected_as_one() -> None:
    values = on_bin_centres(12, 2, 2, 2)
    apart = observe(two_branches(), [["b"], ["a"]], Inputs("test", values))
    assert [(h.low, h.high) for h in apart] == [(-1.5, 0.5), (-1.0, 3.0)]
    (joint,) = observe(two_branches(), [["a", "b"]], Inputs("test", values))
    assert (joint.low, joint.high) == (-1.5, 3.0)
    both = np.concatenate([values.ravel(), -0.5 * values.ravel()])
    expected, _ = np.histogram(both[both != 0], BINS, (-1.5, 3.0))
    # values on the edge of a bin may fall to either side
    np.testing.assert_allclose(np.cumsum(joint.counts), np.cumsum(expected), atol=20)
    assert joint.counts.sum() + joint.zeros == both.size
    assert joint.zeros == 2 * np.sum(values == 0)


def test_one_sided_tensors_keep_zero_in_their_histogram() -> None:
    values = np.abs(on_bin_centres(4, 2, 2, 2)) + 1
    a, b = observe(two_branches(), [["a"], ["b"]], Inputs("test", values))
    assert (a.low, a.high) == (0.0, values.max())
    assert (b.low, b.high) == (-0.5 * values.max(), 0.0)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_tensor_of_zeros_gets_a_range_that_holds_zero(estimator: Estimator) -> None:
    (found,) = observe(two_branches(), [["a"]], Inputs("test", np.zeros((3, 2, 2, 2), np.float32)))
    range_ = choose_range(found, estimator)
    assert range_.low <= 0 <= range_.high
    assert range_.low < range_.high


@pytest.mark.parametrize("name", SAMPLES)
def test_minmax_takes_all_values(name: str) -> None:
    values = SAMPLES[name]
    expected = Range(min(values.min(), 0), max(values.max(), 0))
    assert choose_range(histogram(values), Estimator.MINMAX) == expected


@pytest.mark.parametrize("name", SAMPLES)
def test_percentile_leaves_out_a_hundredth_of_a_percent_on_either_side(name: str) -> None:
    values = SAMPLES[name]
    tail = 1e-4 * values.size
    bin_width = 1.001 * (max(values.max(), 0) - min(values.min(), 0)) / BINS
    found = choose_range(histogram(values), Estimator.PERCENTILE)
    assert np.sum(values < found.low) <= tail
    assert np.sum(values > found.high) <= tail
    # a bin is all that the histogram knows: one further in, more would be left out
    assert found.low == 0 or np.sum(values < found.low + bin_width) >= tail
    assert found.high == 0 or np.sum(values > found.high - bin_width) >= tail


def test_percentile_of_a_ramp_is_a_bin_near_the_percentile() -> None:
    values = np.arange(-10_000.0, 90_000.0)
    found = choose_range(histogram(values), Estimator.PERCENTILE)
    low, high = np.percentile(values, [0.01, 99.99])
    assert found.low == pytest.approx(low, abs=100_000 / BINS)
    assert found.high == pytest.approx(high, abs=100_000 / BINS)


def test_percentile_does_not_lose_a_tensor_that_is_nearly_always_zero() -> None:
    values = np.zeros(1_000_000)
    values[:50] = np.linspace(1, 2, 50)
    assert choose_range(histogram(values), Estimator.PERCENTILE) == Range(0.0, 2.0)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_least_squares_range_is_nearly_the_best_there_is(name: str) -> None:
    values = SAMPLES[name]
    h = histogram(values)
    found = choose_range(h, Estimator.MSE)
    error = mean_squared_error(values, found.low, found.high)
    assert error <= 1.001 * mean_squared_error(values, h.low, h.high)
    shrink = np.geomspace(0.03, 1, 30)
    best = min(
        mean_squared_error(values, low, high)
        for low in ([0.0] if h.low == 0 else h.low * shrink)
        for high in ([0.0] if h.high == 0 else h.high * shrink)
    )
    assert error <= 1.05 * best


def test_least_squares_gives_up_one_value_in_a_hundred_million() -> None:
    centres = -5 + (np.arange(BINS) + 0.5) * 55 / BINS
    counts = np.round(1e8 * np.exp(-0.5 * centres**2) * 55 / BINS / np.sqrt(2 * np.pi))
    counts[-1] = 1  # at 50 standard deviations
    found = choose_range(Histogram(-5.0, 50.0, counts.astype(np.int64), 0), Estimator.MSE)
    # the best symmetric clipping of a Gaussian at 8 bits lies at 3.9 deviations
    assert 3.5 < -found.low < 4.3
    assert 3.5 < found.high < 4.5


def test_least_squares_takes_all_of_a_uniform_tensor() -> None:
    h = histogram(SAMPLES["uniform"])
    assert choose_range(h, Estimator.MSE) == Range(h.low, h.high)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_what_a_relu_gives_wastes_no_steps_below_zero(estimator: Estimator) -> None:
    for name in ("rectified", "rectified with an outlier"):
        assert choose_range(histogram(SAMPLES[name]), estimator).low == 0
    assert choose_range(histogram(SAMPLES["negative"]), estimator).high == 0


def test_a_network_that_gives_no_finite_numbers_is_refused_by_its_layer() -> None:
    inputs = keras.Input((4, 4, 3), name="image")
    x = keras.layers.Conv2D(2, 1, kernel_initializer="ones", name="fine")(inputs)
    x = keras.layers.Conv2D(2, 1, name="diverged")(x)
    model = keras.Model(inputs, x)
    model.get_layer("diverged").set_weights([np.full((1, 1, 2, 2), 3e38), np.zeros(2)])
    data = Inputs("test", np.full((2, 4, 4, 3), 3, np.float32))
    with pytest.raises(InputError, match="Expected diverged to give finite numbers, got others"):
        observe(model, [["fine"], ["diverged"]], data)
