"""Activation equalization: the same function, and channels that fill the range of their tensor."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import tf_keras as keras

from convert import export
from convert.calibration_data import Inputs
from convert.lowering import lower
from convert.quantization import quantize
from convert.quantization.activation_equalization import _Histogram, equalize_activations
from convert.quantization.tfmot_config import kernel_quantizer
from convert.settings import Precision, Quantization, Rounding
from convert.verification import runner, verify
from keras_models import registry
from keras_models.checkpoints.random_weights import randomize
from keras_models.images.decode import Preprocessing
from keras_models.layers import ChannelShuffle, ChannelSlice

layers = keras.layers
INT8 = Quantization(precision=Precision.INT8)


@pytest.fixture(scope="module")
def inputs(pictures: Callable[..., np.ndarray]) -> Inputs:
    return Inputs("toy", pictures(24, 16, seed=1), Preprocessing())


def equalized(model: Any, inputs: Inputs, *, clip: bool = True) -> Any:
    return equalize_activations(model, quantize.shared_ranges(model), inputs, clip=clip)


def outputs(model: Any, inputs: Inputs, layer: str | None = None) -> np.ndarray:
    probe = keras.Model(model.input, model.get_layer(layer).output) if layer else model
    return np.concatenate([probe(batch, training=False).numpy() for batch in inputs.batches()])


def uneven(model: Any, names: Sequence[str]) -> Any:
    """Draws the weights; the channels of these layers are up to 100 times smaller than others."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            kernel = rng.normal(0, 1 / np.sqrt(max(kernel[..., 0].size, 9)), kernel.shape)
            bias = rng.normal(0, 0.3, bias.shape)
            if layer.name in names:
                sizes = 10 ** rng.permutation(np.linspace(-2, 0, len(bias)))
                is_depthwise = isinstance(layer, layers.DepthwiseConv2D)
                kernel *= sizes.reshape(kernel.shape[-2:]) if is_depthwise else sizes
                bias *= sizes
            layer.set_weights([kernel, bias])
    return model


def chain(activation: str = "relu") -> Any:
    """Convolution, padding, depthwise, convolution, depthwise, view, strided convolution."""
    image = x = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(12, 3, 2, activation=activation, name="first")(x)
    x = layers.ZeroPadding2D(1, name="padding")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, activation=activation, name="depthwise")(x)
    x = layers.Conv2D(18, 1, activation=activation, name="second")(x)
    x = layers.DepthwiseConv2D(3, 2, name="linear")(x)
    _, height, width, _ = x.shape
    x = layers.Reshape((height, width * 3, 6), name="view")(x)
    x = layers.Conv2D(12, (1, 3), (1, 3), groups=3, activation="relu", name="strided")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(10, name="classifier")(x)
    model = keras.Model(image, x, name="chain")
    return uneven(model, ["first", "depthwise", "second", "linear"])


def factors(before: Any, after: Any, name: str) -> np.ndarray:
    """(channels,): what the layer's bias was multiplied by; it is never zero."""
    return after.get_layer(name).get_weights()[1] / before.get_layer(name).get_weights()[1]


def whole_steps(model: Any, name: str) -> np.ndarray:
    """The integers of the layer's kernel in the file."""
    layer = model.get_layer(name)
    kernel = layer.get_weights()[0]
    quantizer = kernel_quantizer(layer, per_channel=True)
    return np.rint(quantizer(kernel, False, {}).numpy() / quantizer.step(kernel).numpy())


def test_the_function_is_the_same(inputs: Inputs) -> None:
    model = chain()
    expected = outputs(model, inputs)
    after = equalized(model, inputs)
    for name in ("first", "depthwise", "second", "linear"):
        assert factors(model, after, name).max() > 4, name
    np.testing.assert_allclose(outputs(after, inputs), expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_array_equal(outputs(model, inputs), expected)  # and the model is as it was


def test_factors_are_at_least_1_and_integers_of_depthwise_kernels_stay(inputs: Inputs) -> None:
    model = chain()
    after = equalized(model, inputs)
    for layer in model.layers:
        if layer.weights:
            assert factors(model, after, layer.name).min() > 1 - 1e-6, layer.name
    for name in ("first", "depthwise", "linear"):  # none of them mixes channels with factors
        np.testing.assert_array_equal(whole_steps(after, name), whole_steps(model, name))


def test_each_channel_behind_a_convolution_fills_the_range(inputs: Inputs) -> None:
    model = chain()
    filled, clipped = equalized(model, inputs, clip=False), equalized(model, inputs)
    for name in ("first", "second"):
        high = outputs(model, inputs, name).max()
        largest = outputs(filled, inputs, name).max(axis=(0, 1, 2))
        within_64 = outputs(model, inputs, name).max(axis=(0, 1, 2)) > high / 64
        assert within_64.sum() > 6
        np.testing.assert_allclose(largest[within_64], high, rtol=1e-5)
        # outliers are clipped where that costs less than larger steps
        assert np.all(outputs(clipped, inputs, name).max(axis=(0, 1, 2)) >= 0.999 * largest)


def test_clipping_leaves_the_least_squared_error() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_t(4, (300_000, 3)) * [1, 0.3, 0.1]
    values = (values * rng.integers(0, 2, values.shape)).astype(np.float32)  # zeros are exact
    low, high = values.min(), values.max()
    histogram = _Histogram(low, high, values.min(axis=0), values.max(axis=0))
    for part in np.split(values, 4):
        histogram.add(part)

    def error(factors: np.ndarray) -> np.ndarray:
        step = (high - low) / 255
        steps = np.clip(np.rint(values * factors / step), np.rint(low / step), np.rint(high / step))
        return ((values - steps * step / factors) ** 2).sum(axis=0)

    found = error(histogram.factors(clip=True))
    candidates = [error(np.full(3, factor)) for factor in np.geomspace(1, 64, 60)]
    assert np.all(found <= 1.02 * np.min(candidates, axis=0))
    assert np.all(found < 0.9 * error(histogram.factors(clip=False)))


def test_channels_before_a_convolution_are_scaled_by_the_root(inputs: Inputs) -> None:
    model = chain()
    after = equalized(model, inputs)
    values = np.abs(outputs(model, inputs, "depthwise")).max(axis=(0, 1, 2))
    alive = values > 0
    fill = values.max() / values[alive]
    found = factors(model, after, "depthwise")[alive]
    assert np.all(found >= 0.999 * np.minimum(np.sqrt(fill), 8))
    assert np.median(found / np.minimum(np.sqrt(fill), 8)) < 1.3


def test_channels_of_synthetic_inputs_keep_their_values(inputs: Inputs) -> None:
    model = chain()
    values = np.concatenate(list(inputs.batches()))
    for calibration, changed in ((inputs, True), (Inputs("made", values), False)):
        after = quantize.calibrate(model, calibration, INT8, Preprocessing()).deployed
        kernels = [form.get_layer("first").get_weights()[0] for form in (model, after)]
        assert np.array_equal(*kernels) is not changed


def test_int8_keeps_more_of_small_channels_that_count(inputs: Inputs) -> None:
    model = chain()
    for before, behind in (("first", "depthwise"), ("second", "linear")):
        largest = outputs(model, inputs, before).max(axis=(0, 1, 2))
        kernel, bias = model.get_layer(behind).get_weights()
        kernel /= np.where(largest > 0, largest, 1)[:, None]
        model.get_layer(behind).set_weights([kernel, bias])
    expected = outputs(model, inputs, "strided")  # the last layer before the mean of all pixels

    def level(settings: Quantization) -> float:
        rounded = quantize.apply(model, inputs, settings, Preprocessing())
        return verify.sqnr_db(expected, outputs(rounded, inputs, "strided"))

    assert level(INT8) > level(dataclasses.replace(INT8, activation_equalization=False)) + 2


def test_relu6_clips_only_what_the_range_clips(inputs: Inputs) -> None:
    model = chain("relu6")
    kernel, bias = model.get_layer("first").get_weights()
    model.get_layer("first").set_weights([kernel * 40, bias * 40])  # its largest channels reach 6
    before = outputs(model, inputs, "first")
    assert before.max() == 6
    after = equalized(model, inputs)
    factor = factors(model, after, "first")
    assert factor.max() > 5
    np.testing.assert_allclose(
        outputs(after, inputs, "first"), np.minimum(factor * before, 6), atol=1e-5
    )


def test_channels_that_something_else_reads_stay(inputs: Inputs) -> None:
    image = keras.Input((16, 16, 3), name="image")
    a, b, c, d = (layers.Conv2D(8, 3, 2, activation="relu", name=name)(image) for name in "abcd")
    summed = layers.Add(name="add")([a, b])
    x = layers.Concatenate(name="concat")([summed, c])
    left, right = ChannelSlice(0, 12, name="left")(x), ChannelSlice(12, 16, name="right")(x)
    left = layers.DepthwiseConv2D(3, name="of_left")(left)
    pooled = layers.GlobalAveragePooling2D(name="pool")(right)
    of_left = layers.GlobalAveragePooling2D(name="pool_of_left")(left)
    of_d = layers.DepthwiseConv2D(3, activation="swish", name="of_d")(d)
    of_d = layers.GlobalAveragePooling2D(name="pool_of_d")(of_d)
    x = layers.Concatenate(name="concat_of_all")([pooled, of_left, of_d])
    model = keras.Model(image, layers.Dense(4, name="classifier")(x), name="readers")
    model = uneven(model, ["a", "b", "c", "d", "of_left", "of_d"])
    after = equalized(model, inputs)
    for name in ("a", "b", "of_left", "of_d", "classifier"):
        np.testing.assert_array_equal(factors(model, after, name), 1.0)
    of_c = factors(model, after, "c")
    np.testing.assert_array_equal(of_c[4:], 1.0)
    assert np.median(of_c[:4]) > 1.5
    assert np.median(factors(model, after, "d")) > 1.5
    np.testing.assert_allclose(outputs(after, inputs), outputs(model, inputs), atol=1e-4)


def test_channels_that_share_a_range_fill_all_of_it(inputs: Inputs) -> None:
    """The channels of b are small; those of a, which a shuffle brings among them, are not."""
    image = keras.Input((16, 16, 3), name="image")
    a, b = (layers.Conv2D(8, 3, 2, activation="relu", name=name)(image) for name in "ab")
    x = layers.Concatenate(name="concat")([a, b])
    x = layers.MaxPooling2D(2, 1, name="max")(ChannelShuffle(2, name="shuffle")(x))
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = uneven(keras.Model(image, layers.Dense(4, name="classifier")(x)), [])
    for name, size in (("a", 10.0), ("b", 0.5)):
        layer = model.get_layer(name)
        layer.set_weights([w * size for w in layer.get_weights()])
    after = equalized(model, inputs)
    expected = outputs(model, inputs)
    np.testing.assert_allclose(outputs(after, inputs), expected, atol=1e-5 * np.abs(expected).max())
    largest = outputs(after, inputs, "b").max(axis=(0, 1, 2))
    assert np.median(largest[largest > 0]) >= 0.999 * outputs(model, inputs, "a").max()


def test_channels_without_values_keep_their_weights(inputs: Inputs) -> None:
    model = chain()
    kernel, bias = model.get_layer("first").get_weights()
    bias[:] = np.where(np.arange(len(bias)) < 3, -100, bias)  # closes the ReLU
    model.get_layer("first").set_weights([kernel, bias])
    after = equalized(model, inputs)
    np.testing.assert_array_equal(factors(model, after, "first")[:3], 1.0)


def test_the_factor_is_at_most_64(inputs: Inputs) -> None:
    model = chain()
    kernel, bias = model.get_layer("first").get_weights()
    kernel[..., :3] *= 1e-6
    bias[:3] *= 1e-6
    model.get_layer("first").set_weights([kernel, bias])
    found = factors(model, equalized(model, inputs), "first")
    assert found.max() == pytest.approx(64)


def test_layers_whose_kernels_have_other_axes_keep_their_weights(inputs: Inputs) -> None:
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, 2, activation="relu", name="first")(image)
    x = layers.Conv2DTranspose(8, 3, name="transposed")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = uneven(keras.Model(image, layers.Dense(4, name="classifier")(x)), ["first"])
    after = equalized(model, inputs)
    for one, other in zip(model.get_weights(), after.get_weights(), strict=True):
        np.testing.assert_array_equal(other, one)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e-38])
def test_values_that_are_not_finite_or_hardly_there_are_left_alone(
    inputs: Inputs, value: float
) -> None:
    model = chain()
    kernel, bias = model.get_layer("first").get_weights()
    model.get_layer("first").set_weights([0 * kernel, 0 * bias + np.float32(value)])
    after = equalized(model, inputs)
    np.testing.assert_array_equal(after.get_layer("first").get_weights()[1], np.float32(value))


@pytest.mark.parametrize(
    "settings",
    [
        Quantization(
            precision=Precision.INT8, activation_equalization=False, rounding=Rounding.NEAREST
        ),
        Quantization(precision=Precision.INT8, per_channel=False, rounding=Rounding.NEAREST),
        Quantization(precision=Precision.INT16X8, rounding=Rounding.NEAREST),
        Quantization(precision=Precision.DYNAMIC),
    ],
)
def test_other_settings_leave_weights_as_they_are(inputs: Inputs, settings: Quantization) -> None:
    model = chain()
    calibrated = quantize.calibrate(model, inputs, settings, Preprocessing())
    for before, after in zip(model.get_weights(), calibrated.rounded.get_weights(), strict=True):
        np.testing.assert_array_equal(after, before)


def test_the_file_computes_the_bits_of_the_fake_quantized_network(inputs: Inputs) -> None:
    model = chain("relu6")
    calibrated = quantize.calibrate(model, inputs, INT8, Preprocessing())
    whole, ranges = calibrated.rounded, calibrated.ranges
    rounded = quantize.fake_quantize(whole, ranges, training=True)
    file = export.to_tflite(quantize.fake_quantize(whole, ranges), INT8, inputs)
    audit = verify.audit(file)
    assert (audit.delegate_partitions, audit.requantizations, audit.float_operators) == (1, 0, {})
    logits, steps = np.stack(list(runner.run(file, inputs))), ranges["classifier"].step
    np.testing.assert_array_equal(
        np.rint(logits / steps), np.rint(outputs(rounded, inputs) / steps)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in registry.names() if n[-2:] not in ("_l", "_m", "xl")])
def test_a_file_has_the_same_operators_and_size(
    name: str, pictures: Callable[..., np.ndarray]
) -> None:
    resolution = 64 if name == "alexnet" else 32
    model = registry.create(name, input_shape=(resolution, resolution, 3), num_classes=10)
    randomize(model, seed=0)
    deployed = lower(model, integer=True)
    inputs = Inputs("toy", pictures(4, resolution, seed=1), Preprocessing())
    audits = []
    for on in (False, True):
        settings = dataclasses.replace(INT8, activation_equalization=on)
        ready = quantize.apply(deployed, inputs, settings, Preprocessing())
        audits.append(verify.audit(export.to_tflite(ready, settings, None)))
    before, after = audits
    assert after.operators == before.operators
    assert after.delegate_partitions == before.delegate_partitions
    assert after.delegate_partitions == 1 or name == "alexnet"
    assert after.size_bytes == pytest.approx(before.size_bytes, rel=0.005)
