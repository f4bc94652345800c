"""Classifiers on Keras' own networks, as tutorials build them; and whether ours compute them."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import keras as keras_3
import numpy as np
import pytest
import tf_keras

from keras_models import checkpoints, registry
from keras_models.checkpoints import Weights
from keras_models.checkpoints.load import load_weights
from keras_models.images.decode import Preprocessing

LIBRARIES = {"keras": keras_3, "tf_keras": tf_keras}
LIBRARY = ["keras", pytest.param("tf_keras", marks=pytest.mark.slow)]
RESOLUTION = 64  # at which the last map is 2x2: poolings differ
CLASSES = 5
SHAPE = (RESOLUTION, RESOLUTION, 3)
SMALLEST = {"mobilenet_v1": {"width": 0.25}}
PIXELS = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), np.uint8)
Layers = Callable[[Any, Any], Any]  # a library and a tensor -> a tensor


def base(keras: Any, **options: Any) -> Any:
    """The smallest of Keras' networks, without its classifier."""
    options = {"input_shape": SHAPE, "alpha": 0.25, **options}
    return keras.applications.MobileNet(include_top=False, weights=None, **options)


def pooled(keras: Any, x: Any) -> Any:
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.layers.Dense(CLASSES)(keras.layers.Dropout(0.2)(x))


def nested(
    keras: Any,
    *,
    before: Layers = lambda keras, x: x,
    after: Layers = pooled,
    network: Callable[[Any], Any] = base,
) -> Any:
    """A functional model around the network."""
    inputs = keras.Input(SHAPE)
    outputs = after(keras, network(keras)(before(keras, inputs), training=False))
    return randomized(keras.Model(inputs, outputs))


def randomized(model: Any) -> Any:
    """Weights with which signals neither vanish nor explode, and batch norms matter."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        name, shape = weight.name.rpartition("/")[2].removesuffix(":0"), tuple(weight.shape)
        if name.endswith("kernel"):
            fan_in = np.prod(shape[:2] if shape[-1] == 1 else shape[:-1])
            weight.assign(rng.normal(0, np.sqrt(2 / fan_in), shape))
        elif name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, shape))
        elif name in ("beta", "bias", "moving_mean"):
            weight.assign(rng.normal(0, 0.3, shape))
    return model


@cache
def _network(name: str, **options: Any) -> Any:
    """Ours, built once: building takes longer than all else."""
    return registry.create(name, input_shape=SHAPE, **{"num_classes": CLASSES, **options})


def imported(path: Path, name: str = "mobilenet_v1", **options: Any) -> tuple[Weights, np.ndarray]:
    """The weights of a file, and the logits of our network with them for PIXELS."""
    weights = checkpoints.read_weights(path)
    options = options or SMALLEST.get(name, {})
    model = _network(name, **options, **weights.options)
    load_weights(model, weights.arrays, origin=path.name)
    preprocessing = weights.preprocessing or Preprocessing()
    return weights, model(preprocessing.to_input(PIXELS)).numpy()


def assert_same(logits: np.ndarray, model: Any) -> None:
    """Compares with what a Keras model computes of the same pixels, which it prepares itself."""
    expected = np.asarray(model(PIXELS.astype(np.float32), training=False))
    scale = np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 0.01 * scale, "the logits hardly depend on the image"
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * scale)
