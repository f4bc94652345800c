"""Equalization: the same function, and channels of even sizes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tf_keras as keras

from convert.calibration_data import Inputs
from convert.lowering import lower
from convert.lowering.options import GENERIC
from convert.quantization import quantize
from convert.quantization.equalize import equalize
from convert.quantization.int8_range import Range
from convert.settings import Estimator
from convert.verification import verify
from keras_models import registry
from keras_models.images.decode import Preprocessing
from keras_models.layers import ChannelShuffle, ChannelSlice

NETWORKS = {  # name: options of the builder, of lowering
    "mobilenet_v3_small": ({}, GENERIC),  # sums, gates, and activations that are layers
    "shufflenet_v1": ({"groups": 3, "width": 0.25}, GENERIC),  # channels along groups
    "augshufflenet": ({"width": 0.5}, None),  # shuffles and slices
}


@pytest.fixture(scope="module")
def inputs(pictures: Callable[..., np.ndarray]) -> Inputs:
    return Inputs("toy", pictures(16, 32, seed=1), Preprocessing())


def outputs(model: Any, inputs: Inputs) -> np.ndarray:
    return np.concatenate([model(batch, training=False).numpy() for batch in inputs.batches()])


def chain(activation: str = "relu") -> Any:
    """Convolution, depthwise, convolution, pooling, classifier; each kernel drawn, no bias zero."""
    layers = keras.layers
    image = x = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(8, 3, 2, activation=activation, name="first")(x)
    x = layers.DepthwiseConv2D(3, activation=activation, name="depthwise")(x)
    x = layers.Conv2D(12, 1, activation=activation, name="second")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return drawn(keras.Model(image, layers.Dense(10, name="classifier")(x), name="chain"))


def drawn(model: Any) -> Any:
    rng = np.random.default_rng(0)
    model.set_weights(
        [rng.normal(0, 1 / np.sqrt(max(w[..., 0].size, 9)), w.shape) for w in model.get_weights()]
    )
    return model


def spread(model: Any) -> Any:
    """The same function with channels that are 1000 times apart."""
    apart = keras.models.clone_model(model)
    apart.set_weights(model.get_weights())
    rng = np.random.default_rng(5)
    for before, behind in (("first", "depthwise"), ("depthwise", "second")):
        kernel, bias = apart.get_layer(before).get_weights()
        factors = 10 ** rng.permutation(np.linspace(-1.5, 1.5, len(bias)))
        along = factors[:, None] if before == "depthwise" else factors
        apart.get_layer(before).set_weights([kernel * along, bias * factors])
        kernel, bias = apart.get_layer(behind).get_weights()
        apart.get_layer(behind).set_weights([kernel / factors[:, None], bias])
    return apart


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_an_equalized_network_computes_the_same(name: str, inputs: Inputs) -> None:
    options, lowering = NETWORKS[name]
    model = registry.create(name, input_shape=(32, 32, 3), num_classes=10, **options)
    deployed = drawn(lower(model, integer=True, options=lowering))
    equalized, changed = equalize(deployed, inputs)
    expected = outputs(deployed, inputs)
    np.testing.assert_allclose(
        outputs(equalized, inputs), expected, atol=1e-5 * np.abs(expected).max()
    )
    assert changed > 100
    moved = [
        not np.allclose(one, other, rtol=0.01)
        for one, other in zip(deployed.get_weights(), equalized.get_weights(), strict=True)
    ]
    assert sum(moved) > 0.2 * len(moved)


def test_each_channel_is_as_large_in_what_gives_it_as_in_what_reads_it(inputs: Inputs) -> None:
    equalized, _ = equalize(chain(), inputs)
    first, depthwise, second, classifier = (
        np.abs(equalized.get_layer(name).get_weights()[0])
        for name in ("first", "depthwise", "second", "classifier")
    )
    names = ["first", "depthwise", "second"]
    values = [
        np.abs(outputs(keras.Model(equalized.input, equalized.get_layer(n).output), inputs))
        for n in names
    ]
    for given, channels, read in (
        (first.max((0, 1, 2)), values[0], depthwise.max((0, 1, 3))),
        (depthwise.max((0, 1, 3)), values[1], second.max((0, 1, 3))),
        (second.max((0, 1, 2)), values[2], classifier.max(1)),
    ):
        largest = channels.max((0, 1, 2))
        alive = largest > 0
        assert alive.sum() > 4
        np.testing.assert_allclose(np.sqrt(given * largest)[alive], read[alive], rtol=2e-3)


def test_channels_1000_times_apart_come_to_the_weights_of_those_that_were_not(
    inputs: Inputs,
) -> None:
    model = chain()
    apart = spread(model)
    np.testing.assert_allclose(outputs(apart, inputs), outputs(model, inputs), atol=1e-4)
    expected, _ = equalize(model, inputs)
    found, _ = equalize(apart, inputs)
    for one, other in zip(expected.get_weights(), found.get_weights(), strict=True):
        np.testing.assert_allclose(other, one, rtol=0.02, atol=1e-6)


def test_channels_1000_times_apart_are_saved_where_weights_have_one_scale(inputs: Inputs) -> None:
    model = chain()
    expected = outputs(model, inputs)
    mean = expected.mean(axis=0)  # biases, which have their own scales

    def level(form: Any) -> float:
        ranges = quantize.choose_ranges(form, inputs, Estimator.MSE, Preprocessing())
        rounded = quantize.fake_quantize(form, ranges, per_channel=False)
        return verify.sqnr_db(expected - mean, outputs(rounded, inputs) - mean)

    apart = spread(model)
    saved, _ = equalize(apart, inputs)
    assert level(apart) < 0  # more noise than signal
    assert level(saved) > level(model)


def test_what_relu6_clips_stays_as_it_is(inputs: Inputs) -> None:
    model = chain("relu6")
    equalized, changed = equalize(model, inputs)
    assert changed == 0
    for one, other in zip(model.get_weights(), equalized.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_channels_that_travel_and_meet_share_a_factor(inputs: Inputs) -> None:
    """a and b meet in a sum, of which halves, shuffled, are read by two convolutions."""
    layers = keras.layers
    image = keras.Input((32, 32, 3), name="image")
    a, b = (layers.Conv2D(8, 3, 2, name=name)(image) for name in "ab")
    x = layers.ReLU(name="relu")(layers.Add(name="add")([a, b]))
    x = ChannelShuffle(2, name="shuffle")(layers.MaxPooling2D(name="max")(x))
    left, right = ChannelSlice(0, 4, name="left")(x), ChannelSlice(4, 8, name="right")(x)
    left = layers.Conv2D(4, 1, name="c")(left)
    x = layers.Concatenate(name="concat")([left, right])
    x = layers.Conv2D(6, 1, activation="sigmoid", name="d")(x)
    model = drawn(keras.Model(image, x, name="meeting"))
    equalized, changed = equalize(model, inputs)
    expected = outputs(model, inputs)
    np.testing.assert_allclose(outputs(equalized, inputs), expected, atol=1e-5)
    assert changed >= 8 + 4

    def factors(name: str, weight: int, axes: tuple[int, ...]) -> np.ndarray:
        before, after = (
            np.abs(m.get_layer(name).get_weights()[weight]) for m in (model, equalized)
        )
        return after.max(axes) / before.max(axes)

    of_a = factors("a", 1, ())
    np.testing.assert_allclose(factors("b", 1, ()), of_a, rtol=1e-5)
    shuffled = of_a.reshape(2, 4).T.ravel()
    inverse = factors("c", 0, (0, 1, 3)) * shuffled[:4]  # with the factors of c's own channels
    np.testing.assert_allclose(factors("a", 0, (0, 1, 2)), of_a, rtol=1e-5)
    assert inverse.shape == (4,)
    read = np.concatenate([1 / factors("c", 1, ()), 1 / shuffled[4:]])
    np.testing.assert_allclose(factors("d", 0, (0, 1, 3)), read, rtol=1e-5)
    np.testing.assert_allclose(factors("d", 1, ()), 1.0)


def test_a_channel_that_is_never_there_does_not_grow_out_of_bounds(inputs: Inputs) -> None:
    model = chain()
    kernel, bias = model.get_layer("first").get_weights()
    kernel[..., 3], bias[3] = 1e-9, -1.0
    model.get_layer("first").set_weights([kernel, bias])
    equalized, _ = equalize(model, inputs)
    assert -1000 < equalized.get_layer("first").get_weights()[1][3] < -1
    np.testing.assert_allclose(outputs(equalized, inputs), outputs(model, inputs), atol=1e-5)


def test_equalized_values_need_no_wider_range(inputs: Inputs) -> None:
    apart = spread(chain())
    saved, _ = equalize(apart, inputs)

    def widest(form: Any) -> dict[str, Range]:
        return quantize.choose_ranges(form, inputs, Estimator.MINMAX, Preprocessing())

    assert widest(saved)["first"].high < widest(apart)["first"].high / 5
