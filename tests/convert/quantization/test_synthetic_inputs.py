"""Inputs made from batch norms: their statistics are those remembered."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tf_keras as keras

from convert.quantization import synthetic_inputs as module
from convert.quantization.synthetic_inputs import STEPS, distill
from shufflelite.errors import InputError

LOW, HIGH = -1.0, 1.0
TOGETHER = 16


@pytest.fixture(scope="module", autouse=True)
def _few_together() -> Iterator[None]:
    """So that two batches are quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIXELS", TOGETHER * 16 * 16)
        yield


@pytest.fixture(scope="module")
def trained(small: Any) -> Any:
    """The toy's batch norms hold statistics of pictures, as a trained network's do."""
    return small.model


@pytest.fixture(scope="module")
def made(trained: Any) -> np.ndarray:
    return distill(trained, 2 * TOGETHER, low=LOW, high=HIGH, seed=3)


def statistics_error(model: Any, inputs: np.ndarray) -> float:
    """How far mean and deviation before each batch norm are from the stored ones, in deviations.

    Root mean square over channels and batch norms, in NumPy.
    """
    norms = [n for n in model.layers if isinstance(n, keras.layers.BatchNormalization)]
    squares = []
    for norm in norms:
        x = keras.Model(model.inputs, norm.input)(inputs, training=False).numpy()
        x = x.reshape(-1, x.shape[-1]).astype(np.float64)
        deviation = np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
        squares += [*((x.mean(0) - norm.moving_mean.numpy()) / deviation) ** 2]
        squares += [*((x.std(0) - deviation) / deviation) ** 2]
    return float(np.sqrt(np.mean(squares)))


def test_statistics_come_near_to_those_of_training(trained: Any, made: np.ndarray) -> None:
    noise = np.random.default_rng(0).normal(0, (HIGH - LOW) / 4, made.shape)
    before = statistics_error(trained, np.clip(noise, LOW, HIGH).astype(np.float32))
    for batch in (made[:TOGETHER], made[TOGETHER:]):
        after = statistics_error(trained, batch)
        assert after < before / 5


def test_inputs_are_float32_between_black_and_white(made: np.ndarray) -> None:
    assert made.dtype == np.float32
    assert made.shape == (2 * TOGETHER, 16, 16, 3)
    assert made.min() >= LOW
    assert made.max() <= HIGH
    assert made.std() > 0.1


def test_inputs_differ_from_each_other(made: np.ndarray) -> None:
    flat = made.reshape(len(made), -1)
    distances = np.linalg.norm(flat[:, None] - flat, axis=-1) + 1e9 * np.eye(len(made))
    assert distances.min() > 1


def test_inputs_reach_larger_logits_than_noise(trained: Any, made: np.ndarray) -> None:
    noise = np.random.default_rng(0).uniform(LOW, HIGH, made.shape).astype(np.float32)
    spread = [np.ptp(trained(x, training=False).numpy(), axis=1).mean() for x in (noise, made)]
    assert spread[1] > 1.2 * spread[0]
    assert len(set(trained(made, training=False).numpy().argmax(1))) >= 5  # of ten classes


def test_the_seed_decides_and_the_network_stays_as_it_was(trained: Any, made: np.ndarray) -> None:
    weights = [w.copy() for w in trained.get_weights()]
    np.testing.assert_array_equal(distill(trained, 2 * TOGETHER, low=LOW, high=HIGH, seed=3), made)
    for before, after in zip(weights, trained.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    other = distill(trained, TOGETHER, low=LOW, high=HIGH, seed=4)
    assert np.abs(other - made[:TOGETHER]).max() > 0.5


def test_any_number_can_be_asked_for_and_progress_is_told(trained: Any) -> None:
    told: list[tuple[int, int]] = []
    made = distill(trained, 3, low=-2.0, high=5.0, on_step=lambda *step: told.append(step))
    assert made.shape == (3, 16, 16, 3)
    assert made.min() >= -2
    assert made.max() <= 5
    assert told == [(i + 1, STEPS) for i in range(STEPS)]


def test_a_network_without_batch_norms_is_refused_with_the_way_out(small: Any) -> None:
    with pytest.raises(InputError, match="has none: pass --calibration with a folder"):
        distill(small.deployed, 4, low=LOW, high=HIGH)
