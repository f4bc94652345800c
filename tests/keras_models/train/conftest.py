"""Fixtures: a toy to train, and its place in the registry."""

from typing import Any

import pytest
import tf_keras as keras

from keras_models import registry
from keras_models.layers import channel_split, conv, depthwise_conv


def build_toy(
    *,
    input_shape: tuple[int, int, int] = (8, 8, 3),
    num_classes: int = 10,
    channels: int = 12,
    drop: float = 0.0,
) -> Any:
    """What the training form changes: slices, groups, batch norms of 6 channels, dropout."""
    layers = keras.layers
    inputs = x = keras.Input(input_shape, name="image")
    x = conv(x, channels, kernel=3, strides=2, name="conv1")
    x = layers.BatchNormalization(name="conv1_bn")(x)
    left, right = channel_split(x, name="split")
    right = conv(right, channels // 2, groups=3, name="grouped")
    right = layers.BatchNormalization(name="grouped_bn")(right)
    right = layers.ReLU(name="grouped_relu")(right)
    right = depthwise_conv(right, name="depthwise")
    x = layers.Concatenate(name="concat")([left, right])
    x = layers.GlobalAveragePooling2D(name="global_pool")(x)
    if drop:
        x = layers.Dropout(drop, name="dropout")(x)
    x = layers.Dense(num_classes, name="classifier")(x)
    return keras.Model(inputs, x, name="toy")


@pytest.fixture
def toy() -> Any:
    keras.utils.set_random_seed(0)
    return build_toy()


@pytest.fixture
def registered_toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry has the toy as a network of that name."""
    builder = "tests.keras_models.train.conftest:build_toy"
    entry = registry.Entry(builder, paper="", published=(), note="", resolution=8)
    monkeypatch.setitem(registry.MODELS, "toy", entry)
