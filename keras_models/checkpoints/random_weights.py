"""Random weights under which a network behaves like a trained one, for measuring latency."""

import contextlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
import tf_keras as keras

BATCH = 8


def randomize(model: keras.Model, *, seed: int) -> None:
    """Draws all weights of `model`; the batch norms store the statistics of noise run through it.

    As Keras initializes a network, its logits are near 1e-6 and its batch norms hold no statistics;
    here the values of each layer have the spread that its batch norm sets.
    """
    rng = np.random.default_rng(seed)
    norms = [n for n in model.layers if isinstance(n, keras.layers.BatchNormalization)]
    for layer in model.layers:
        if layer in norms:
            layer.gamma.assign(rng.uniform(0.5, 1.0, layer.gamma.shape))
            layer.beta.assign(rng.normal(0.5, 0.2, layer.beta.shape))
        elif layer.weights:
            kernel, *bias = layer.get_weights()
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            fan_in = np.prod(kernel.shape[:2] if depthwise else kernel.shape[:-1])
            drawn = rng.normal(0, np.sqrt(2 / fan_in), kernel.shape)
            layer.set_weights([drawn, *(np.zeros_like(b) for b in bias)])
    dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    with contextlib.ExitStack() as stack:
        for norm in norms:  # the statistics are those of the one batch below
            stack.enter_context(_setting(norm, "momentum", 0.0))
        for dropout in dropouts:
            stack.enter_context(_setting(dropout, "rate", 0.0))
        model(_clouds(rng, model.inputs[0].shape[1:]), training=True)


@contextlib.contextmanager
def _setting(layer: keras.layers.Layer, name: str, value: float) -> Iterator[None]:
    before = getattr(layer, name)
    setattr(layer, name, value)
    try:
        yield
    finally:
        setattr(layer, name, before)


def _clouds(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Noise with the same amplitude in every octave, as in pictures.

    White noise averages out in the first layers, and batch norms with the statistics of the rest
    amplify every rounding error.
    """
    height, width, channels = shape
    octaves = []
    size = 2
    while size <= max(height, width):
        coarse = rng.uniform(-1, 1, (BATCH, size, size, channels))
        octaves.append(tf.image.resize(coarse, (height, width)).numpy())
        size *= 2
    return np.clip(np.sum(octaves, axis=0) / np.sqrt(len(octaves)), -1, 1)
