"""Inputs made from batch norms: their statistics are those remembered."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tf_keras as keras

from convert.quantization import synthetic_inputs as module
from convert.quantization.synthetic_inputs import STEPS, noise, synthesize
from keras_models.images.decode import Preprocessing
from shufflelite.errors import InputError

PREPROCESSING = Preprocessing()
LOW, HIGH = PREPROCESSING.input_range
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
    return synthesize(trained, PREPROCESSING, samples=2 * TOGETHER, seed=3).values


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
    start = np.random.default_rng(0).normal(0, (HIGH - LOW) / 4, made.shape)
    before = statistics_error(trained, np.clip(start, LOW, HIGH).astype(np.float32))
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
    drawn = np.random.default_rng(0).uniform(LOW, HIGH, made.shape).astype(np.float32)
    spread = [np.ptp(trained(x, training=False).numpy(), axis=1).mean() for x in (drawn, made)]
    assert spread[1] > 1.2 * spread[0]
    assert len(set(trained(made, training=False).numpy().argmax(1))) >= 5  # of ten classes


def test_the_seed_decides_and_the_network_stays_as_it_was(trained: Any, made: np.ndarray) -> None:
    weights = [w.copy() for w in trained.get_weights()]
    again = synthesize(trained, PREPROCESSING, samples=2 * TOGETHER, seed=3).values
    np.testing.assert_array_equal(again, made)
    for before, after in zip(weights, trained.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    other = synthesize(trained, PREPROCESSING, samples=TOGETHER, seed=4).values
    assert np.abs(other - made[:TOGETHER]).max() > 0.5


def test_any_number_can_be_asked_for_and_progress_is_told(trained: Any) -> None:
    preprocessing = Preprocessing((100.0, 110.0, 120.0), (50.0, 60.0, 70.0))
    steps: list[tuple[int, int]] = []
    made = synthesize(trained, preprocessing, samples=3, on_step=lambda *step: steps.append(step))
    assert made.values.shape == (3, 16, 16, 3)
    assert made.preprocessing is None
    assert made.values.min() >= -2.0  # black in the first channel
    assert made.values.max() <= 155 / 50 + 1e-6
    assert "batch norms" in made.origin
    assert steps == [(i + 1, STEPS) for i in range(STEPS)]


def test_a_network_without_batch_norms_is_refused_with_the_way_out(small: Any) -> None:
    with pytest.raises(InputError, match="has none: pass --calibration with a folder"):
        synthesize(small.deployed, PREPROCESSING, samples=4)


def test_noise_fits_the_network_and_its_seed_decides(small: Any) -> None:
    inputs = noise(small.model, PREPROCESSING, seed=1)
    assert inputs.values.shape[1:] == (16, 16, 3)
    assert -1 <= inputs.values.min() < -0.9 < 0.9 < inputs.values.max() <= 1
    assert noise(small.model, PREPROCESSING, seed=1).sha256 == inputs.sha256
    assert noise(small.model, PREPROCESSING, seed=2).sha256 != inputs.sha256
