"""AlexNet against its paper's layers."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tf_keras

from keras_models import counts
from keras_models.alexnet import LocalResponseNorm, alexnet


@pytest.fixture(autouse=True)
def memory() -> Iterator[None]:
    """Frees a network's 240 MB."""
    yield
    tf_keras.backend.clear_session()


@pytest.mark.parametrize(
    ("resolution", "madds"),
    [
        (227, 724_406_816),  # Caffe's and the authors' own: conv1 puts out 55x55
        (224, 720_608_384),  # the 720 M of the papers that compare with it
    ],
)
def test_every_layer_has_its_known_parameters(resolution: int, madds: int) -> None:
    counted = counts.count(alexnet(input_shape=(resolution, resolution, 3)))
    params = {c.name: c.params for c in counted if c.params}
    assert params == {
        "conv1": 34_944,
        "conv2": 307_456,
        "conv3": 885_120,
        "conv4": 663_936,
        "conv5": 442_624,
        "fc6": 37_752_832,
        "fc7": 16_781_312,
        "classifier": 4_097_000,
    }
    assert counts.total(counted) == (60_965_224, madds)


def test_maps_at_227_are_those_of_figure_2() -> None:
    model = alexnet(input_shape=(227, 227, 3))
    names = ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5", "flatten")
    assert [model.get_layer(name).output.shape[1:] for name in names] == [
        (55, 55, 96),
        (27, 27, 96),
        (27, 27, 256),
        (13, 13, 256),
        (13, 13, 384),
        (13, 13, 384),
        (13, 13, 256),
        (6, 6, 256),
        (9216,),
    ]


def test_local_response_norm_is_that_of_section_3_3() -> None:
    x = np.random.default_rng(0).normal(0, 100, (2, 3, 4, 7)).astype(np.float32)
    expected = np.empty_like(x)
    for i in range(7):
        near = x[..., max(0, i - 2) : min(6, i + 2) + 1].astype(np.float64)
        expected[..., i] = x[..., i] / (2 + 1e-4 * (near**2).sum(axis=-1)) ** 0.75
    np.testing.assert_allclose(LocalResponseNorm()(x), expected, rtol=1e-5)


def test_local_response_norm_comes_back_from_a_saved_model() -> None:
    model = tf_keras.Sequential([tf_keras.Input((2, 2, 8)), LocalResponseNorm(name="norm")])
    again = tf_keras.models.model_from_json(model.to_json())
    x = np.random.default_rng(0).normal(0, 100, (1, 2, 2, 8)).astype(np.float32)
    np.testing.assert_array_equal(again(x), model(x))


def pooled(x: np.ndarray) -> np.ndarray:
    """Caffe's max pooling, 3x3 at stride 2: windows that begin inside, cut at the border."""
    for axis in (1, 2):
        size = x.shape[axis]
        starts = [2 * i for i in range(max(0, math.ceil((size - 3) / 2)) + 1)]
        windows = [x.take(range(s, min(s + 3, size)), axis).max(axis) for s in starts]
        x = np.stack(windows, axis)
    return x


@pytest.mark.parametrize("shape", [(32, 67), (64, 96), (47, 100)])
def test_any_size_is_pooled_as_caffe_does(
    shape: tuple[int, int], randomize: Callable[[Any], Any]
) -> None:
    model = randomize(alexnet(input_shape=(*shape, 3), num_classes=3))
    names = ["conv1_norm", "pool1", "conv2_norm", "pool2", "conv5_relu", "pool5"]
    tapped = tf_keras.Model(model.input, [model.get_layer(name).output for name in names])
    image = np.random.default_rng(1).uniform(-1, 1, (1, *shape, 3)).astype(np.float32)
    outputs = dict(zip(names, tapped.predict(image, verbose=0), strict=True))
    for whole, pool in zip(names[::2], names[1::2], strict=True):
        assert outputs[whole].std() > 0
        np.testing.assert_array_equal(outputs[pool], pooled(outputs[whole]))


@pytest.mark.parametrize("name", ["conv2", "conv4", "conv5"])
def test_a_gpu_sees_its_own_half_of_the_channels(name: str) -> None:
    layer = alexnet(input_shape=(32, 32, 3)).get_layer(name)
    channels = layer.input.shape[-1]
    x = np.zeros((1, 5, 5, channels), np.float32)
    x[..., channels // 2 :] = 1
    first, second = np.split(layer(x).numpy(), 2, axis=-1)
    assert not first.any()
    assert second.any()


def test_a_network_without_local_response_norm_has_the_same_weights() -> None:
    with_norm, without = (
        alexnet(input_shape=(32, 32, 3), local_response_norm=norm) for norm in (True, False)
    )
    assert [w.name for w in with_norm.weights] == [w.name for w in without.weights]
    removed = {layer.name for layer in with_norm.layers} - {layer.name for layer in without.layers}
    assert removed == {"conv1_norm", "conv2_norm"}
