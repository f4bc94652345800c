"""Fixtures: weights at random that keep a network's signal alive."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def randomize() -> Callable[[Any], Any]:
    """Gives a model weights that keep its signal alive, batch norm statistics of all sizes too:
    fresh ones are zeros and ones, which hide a wrong order of channels.
    """
    import tf_keras  # most tests here do without

    def weights(layer: Any, rng: np.random.Generator) -> list[np.ndarray]:
        shapes = [w.shape for w in layer.get_weights()]
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            gamma, beta, mean, variance = shapes
            spread = [rng.uniform(0.5, 1.5, shape) for shape in (gamma, variance)]
            return [spread[0], rng.normal(0, 0.3, beta), rng.normal(0, 0.3, mean), spread[1]]
        depthwise = isinstance(layer, tf_keras.layers.DepthwiseConv2D)
        kernel, *bias = shapes
        fan_in = np.prod(kernel[:2] if depthwise else kernel[:-1])
        return [rng.normal(0, np.sqrt(2 / fan_in), kernel), *(rng.normal(0, 1, b) for b in bias)]

    def randomized(model: Any) -> Any:
        rng = np.random.default_rng(0)
        for layer in model.layers:
            if layer.weights:
                layer.set_weights(weights(layer, rng))
        return model

    return randomized
