"""The learning rate of each step."""

import math

import pytest

from keras_models.train.schedule import learning_rate


def rate(step: int) -> float:
    return learning_rate(step, steps=110, warmup_steps=10, maximum=0.4)


def test_rate_grows_by_equal_steps_to_its_maximum() -> None:
    assert [rate(s) for s in range(11)] == pytest.approx([0.4 * (s + 1) / 11 for s in range(11)])


def test_rate_falls_on_half_a_cosine() -> None:
    assert rate(60) == pytest.approx(0.2)
    assert rate(35) == pytest.approx(0.4 * math.cos(math.pi / 8) ** 2)
    assert 0 < rate(109) < 0.4 * 1e-3


def test_without_warmup_it_starts_at_its_maximum() -> None:
    assert learning_rate(0, steps=10, warmup_steps=0, maximum=0.4) == 0.4
