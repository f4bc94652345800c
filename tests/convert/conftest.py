"""Fixtures: small networks, from Keras to int8."""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tf_keras as keras

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # on import it compares versions in a deprecated way
    import tensorflow_model_optimization.quantization.keras  # noqa: F401

from convert import export
from convert.calibration_data import Inputs
from convert.lowering import lower
from convert.quantization import quantize
from convert.quantization.int8_range import Range
from convert.quantization.rounding import round_weights
from convert.settings import Precision, Quantization
from keras_models.checkpoints.random_weights import randomize
from keras_models.images.decode import Preprocessing
from keras_models.layers import ChannelShuffle, channel_split, conv, depthwise_conv
from keras_models.shufflenet_v2 import shufflenet_v2

INT8 = Quantization(precision=Precision.INT8)


@dataclass(frozen=True)
class Toy:
    """A network from Keras to int8."""

    model: Any
    deployed: Any
    calibration: Inputs
    rounded: Any  # the deployment form with the weights for int8
    ranges: Mapping[str, Range]
    fake_quantized: Any
    int8: bytes


def make_pictures(count: int, side: int, *, seed: int) -> np.ndarray:
    """Noise of all sizes in uint8, as pictures have it: white noise averages out in two layers."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((count, side, side, 3))
    size = 2
    while size <= side:
        spread = np.ones((1, side // size, side // size, 1))
        picture += np.kron(rng.normal(0, 40, (count, size, size, 3)), spread)
        size *= 2
    return np.clip(picture + 127.5, 0, 255).astype(np.uint8)


def make_toy(model: Any, *, side: int, pictures: int) -> Toy:
    randomize(model, seed=0)
    calibration = Inputs("toy", make_pictures(pictures, side, seed=1), Preprocessing())
    deployed = lower(model)
    rounded = round_weights(deployed, calibration, per_channel=True)
    ranges = quantize.choose_ranges(rounded, calibration, INT8.ranges, Preprocessing())
    ready = quantize.fake_quantize(rounded, ranges)
    int8 = export.to_tflite(ready, INT8, None)
    return Toy(model, deployed, calibration, rounded, ranges, ready, int8)


def build_small() -> Any:
    """Every kind of layer that lowering and quantization have a rule for."""
    layers = keras.layers
    inputs = x = keras.Input((16, 16, 3), name="image")
    x = conv(x, 8, kernel=3, strides=2, name="conv1")
    x = layers.BatchNormalization(name="conv1_bn")(x)
    x = layers.ReLU(name="conv1_relu")(x)
    left, right = channel_split(x, name="split")
    right = conv(right, 4, name="expand")
    right = layers.BatchNormalization(name="expand_bn")(right)
    right = layers.ReLU(name="expand_relu")(right)
    right = depthwise_conv(right, name="depthwise")
    right = layers.BatchNormalization(name="depthwise_bn")(right)
    right = conv(right, 4, name="project")
    right = layers.BatchNormalization(name="project_bn")(right)
    right = layers.ReLU(name="project_relu")(right)
    x = layers.Concatenate(name="concat")([left, right])
    x = ChannelShuffle(2, name="shuffle")(x)
    x = depthwise_conv(x, strides=2, name="reduce")
    x = layers.BatchNormalization(name="reduce_bn")(x)
    x = conv(x, 16, name="conv2")
    x = layers.BatchNormalization(name="conv2_bn")(x)
    x = layers.ReLU(6.0, name="conv2_relu")(x)
    x = layers.GlobalAveragePooling2D(name="global_pool")(x)
    x = layers.Dropout(0.5, name="dropout")(x)
    x = layers.Dense(10, name="classifier")(x)
    return keras.Model(inputs, x, name="small")


@pytest.fixture(scope="session", autouse=True)
def _a_cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One for all workers: they reuse each other's synthetic inputs, and not those of the user."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(shared / "cache"))
        yield


@pytest.fixture(scope="session")
def pictures() -> Callable[..., np.ndarray]:
    return make_pictures


@pytest.fixture
def small_network() -> Any:
    """A new one for each test, to be changed; three units deep, so errors do not grow in it."""
    model = build_small()
    randomize(model, seed=0)
    return model


@pytest.fixture(scope="session")
def small() -> Toy:
    return make_toy(build_small(), side=16, pictures=40)


@pytest.fixture(scope="session")
def files(small: Toy) -> Callable[[Quantization], bytes]:
    """Converts the small toy with those settings, once."""
    made: dict[Quantization, bytes] = {}

    def convert(settings: Quantization) -> bytes:
        if settings not in made:
            ready = quantize.apply(small.deployed, small.calibration, settings, Preprocessing())
            made[settings] = export.to_tflite(ready, settings, small.calibration)
        return made[settings]

    return convert


@pytest.fixture(scope="session")
def fresh() -> Inputs:
    """Pictures of the small toy's size that it was not calibrated on."""
    return Inputs("fresh", make_pictures(40, 16, seed=9), Preprocessing())


@pytest.fixture(scope="session")
def shufflenet() -> Toy:
    model = shufflenet_v2(width=0.5, stem="cifar", input_shape=(32, 32, 3), num_classes=10)
    return make_toy(model, side=32, pictures=24)


@pytest.fixture(scope="module")
def tensorflow_as_it_was() -> Iterator[None]:
    """`pipeline.run` makes all of the process deterministic, and unseeded draws in it errors."""
    from tensorflow.python.framework import config

    yield
    config.disable_op_determinism()
