"""MobileNet V1 against Keras' own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras

from keras_models import checkpoints, counts
from keras_models.checkpoints import load
from keras_models.images import decode
from keras_models.mobilenet_v1 import UNITS, mobilenet_v1
from tests.keras_models.reference import assert_same_logits

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
IMAGENET = SHARED / "mobilenet_v1_0.25_224_imagenet.h5"


def logits_of_both(
    keras_model: Any, weights: Path, inputs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Our network's logits with the weights of that file, and those of Keras' own network."""
    _, resolution, _, _ = keras_model.input_shape
    width = keras_model.get_layer("conv1").filters / 32
    read = checkpoints.read_weights(weights)
    ours = mobilenet_v1(width=width, input_shape=(resolution, resolution, 3), **read.options)
    load.load_weights(ours, read.arrays, origin=weights.name)
    return ours.predict(inputs, verbose=0), keras_model.predict(inputs, verbose=0)


@pytest.mark.parametrize(("width", "resolution"), [(0.25, 224), (0.5, 97)])
def test_network_computes_what_keras_own_does(
    width: float, resolution: int, tmp_path: Path, randomize: Callable[[Any], Any]
) -> None:
    shape = (resolution, resolution, 3)
    keras_model = randomize(
        tf_keras.applications.MobileNet(
            shape, alpha=width, weights=None, classifier_activation=None
        )
    )
    keras_model.save_weights(tmp_path / "x.h5")
    inputs = np.random.default_rng(1).uniform(-1, 1, (3, *shape)).astype(np.float32)
    actual, expected = logits_of_both(keras_model, tmp_path / "x.h5", inputs)
    # Only the classifier's sums run in another order, as Dense instead of a convolution.
    assert_same_logits(actual, expected)


@pytest.mark.skipif(not IMAGENET.is_file(), reason="needs the development pictures and weights")
def test_trained_network_computes_what_keras_own_does() -> None:
    keras_model = tf_keras.applications.MobileNet(
        (224, 224, 3), alpha=0.25, weights=str(IMAGENET), classifier_activation=None
    )
    photos = sorted((SHARED / "photos").glob("*.JPEG"))[:8]
    pixels = [
        decode.load_picture(p, resolution=224, preprocessing=decode.Preprocessing()) for p in photos
    ]
    inputs = decode.Preprocessing().to_input(np.stack(pixels))
    actual, expected = logits_of_both(keras_model, IMAGENET, inputs)
    assert len(set(expected.argmax(axis=1))) > 1
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4)


def test_cifar_stem_differs_in_two_strides() -> None:
    imagenet, cifar = (
        mobilenet_v1(width=0.25, stem=stem, input_shape=(32, 32, 3), num_classes=10)
        for stem in ("imagenet", "cifar")
    )
    assert [(w.name, w.shape) for w in cifar.weights] == [
        (w.name, w.shape) for w in imagenet.weights
    ]
    strides = [
        {layer.name: layer.strides for layer in model.layers if hasattr(layer, "depth_multiplier")}
        for model in (imagenet, cifar)
    ]
    assert imagenet.get_layer("conv1").strides == (2, 2)
    assert cifar.get_layer("conv1").strides == (1, 1)
    differing = [name for name, stride in strides[0].items() if strides[1][name] != stride]
    assert differing == ["unit2_depthwise"]
    assert cifar.get_layer("global_pool").input.shape[1:3] == (4, 4)
    # Every layer sees an image as large as at 128 pixels with the other stem.
    wide = mobilenet_v1(width=0.25, input_shape=(128, 128, 3), num_classes=10)
    behind = [counts.count(model)[-3:] for model in (cifar, wide)]
    assert behind[0] == behind[1]


@pytest.mark.parametrize("width", [0.01, 0.35, 1.3])
def test_any_width_scales_each_layer_to_a_multiple_of_8_channels(width: float) -> None:
    model = mobilenet_v1(width=width, input_shape=(32, 32, 3), allow_any_width=True)
    full = {"conv1": 32} | {f"unit{i}_pointwise": u.channels for i, u in enumerate(UNITS, start=1)}
    for name, channels in full.items():
        scaled = model.get_layer(name).filters
        assert scaled % 8 == 0
        assert abs(scaled - width * channels) <= 4 or scaled == 8


def test_padding_of_other_sources_reaches_each_stride() -> None:
    strided = ["conv1", *(f"unit{i}_depthwise" for i in (2, 4, 6, 12))]
    for padding, pads in (("symmetric", (1, 1)), ("bottom_right", (0, 1))):
        model = mobilenet_v1(width=0.25, input_shape=(64, 65, 3), padding=padding)
        padded = {
            layer.name.removesuffix("_pad"): layer.padding
            for layer in model.layers
            if layer.name.endswith("_pad")
        }
        # Keras leaves its first convolution to TensorFlow's "same".
        expected = strided if padding == "symmetric" else strided[1:]
        assert padded == dict.fromkeys(expected, (pads, pads))
