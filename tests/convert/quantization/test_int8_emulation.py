"""Integer arithmetic in Keras, bit by bit against XNNPACK's."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tf_keras as keras

from convert import export
from convert.calibration_data import Inputs
from convert.quantization import quantize
from convert.quantization.int8_range import Range
from convert.quantization.tfmot_config import quantized_kernel
from convert.settings import Precision, Quantization
from convert.verification import runner
from keras_models.layers import Tensor

SIDE, CHANNELS, PICTURES = 7, 60, 40  # a mean over 49 is no binary fraction


def branches(x: Tensor) -> list[Tensor]:
    return [keras.layers.DepthwiseConv2D(1, name=name)(x) for name in ("one", "other")]


KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "convolution": lambda x: keras.layers.Conv2D(64, 3, padding="same", name="out")(x),
    "relu6": lambda x: keras.layers.Conv2D(64, 1, activation="relu6", name="out")(x),
    "grouped": lambda x: keras.layers.Conv2D(90, 1, groups=3, name="out")(x),
    "depthwise": lambda x: keras.layers.DepthwiseConv2D(3, strides=2, name="out")(x),
    "dense": lambda x: keras.layers.Dense(500, name="out")(keras.layers.Flatten(name="flat")(x)),
    "mean": lambda x: keras.layers.GlobalAveragePooling2D(name="out")(x),
    "addition": lambda x: keras.layers.Add(name="out")(branches(x)),
    "multiplication": lambda x: keras.layers.Multiply(name="out")(branches(x)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_keras_and_xnnpack_give_the_same_bits(kind: str, seed: int) -> None:
    rng = np.random.default_rng([seed, *kind.encode()])
    image = keras.Input((SIDE, SIDE, CHANNELS), name="image")
    model = keras.Model(image, KINDS[kind](image))
    for weights in model.weights:
        weights.assign(rng.normal(0, 0.2, weights.shape))
    source = grid(-1.0, 2.0)
    pixels = rng.integers(-85, 171, (PICTURES, SIDE, SIDE, CHANNELS))  # all 256 steps
    x = (pixels * source.step).astype(np.float32)
    ranges = {name: spanned(model.get_layer(name).output, model, x, rng) for name in named(model)}
    ranges["image"] = source
    data = export.to_tflite(
        quantize.fake_quantize(model, ranges), Quantization(Precision.INT8), None
    )
    inputs = Inputs("test", x)
    found = np.stack(list(runner.run(data, inputs))) / ranges["out"].step
    fake = quantize.fake_quantize(model, ranges, training=True)
    expected = fake(x, training=False).numpy() / ranges["out"].step
    assert len(np.unique(np.round(expected))) > 100
    np.testing.assert_array_equal(quantize.emulate(model, ranges)(x), fake(x, training=False))
    np.testing.assert_array_equal(np.round(found), np.round(expected))


@pytest.mark.parametrize("per_channel", [True, False])
def test_layers_called_one_by_one_give_the_bits_of_the_model(
    small: Any, fresh: Inputs, per_channel: bool
) -> None:
    form, ranges = small.rounded, small.ranges
    model = quantize.fake_quantize(form, ranges, per_channel=per_channel, training=True)
    compute = quantize.emulate(form, ranges, per_channel=per_channel)
    (x,) = fresh.batches()
    expected = model(x, training=False).numpy()
    for part in (slice(None), slice(7)):  # the layers are used again
        np.testing.assert_array_equal(compute(x[part]), expected[part])
    assert len(np.unique(expected)) > 20


def test_a_mean_next_to_a_tie_falls_as_in_the_file() -> None:
    """1948 steps over 49 pixels are 111.500026 steps of the output: float32's order decides."""
    source, given = (Range(-19 * step, 236 * step) for step in (0.019401336, 0.006917506))
    image = keras.Input((7, 7, 1), name="image")
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D(name="out")(image))
    ranges = {"image": source, "out": given}
    data = export.to_tflite(
        quantize.fake_quantize(model, ranges), Quantization(Precision.INT8), None
    )
    steps = np.full(49, 39)
    steps[: 1948 - steps.sum()] += 1
    x = (steps.reshape(1, 7, 7, 1) * source.step).astype(np.float32)
    (found,) = runner.run(data, Inputs("test", x))
    expected = quantize.fake_quantize(model, ranges, training=True)(x, training=False).numpy()
    assert np.round(found / given.step) == np.round(expected[0] / given.step) == 111


def named(model: Any) -> list[str]:
    return [name for layer in model.layers if (name := layer.name) in ("one", "other", "out")]


def spanned(tensor: Any, model: Any, x: np.ndarray, rng: np.random.Generator) -> Range:
    """Most of the values, so that some are clipped."""
    values = keras.Model(model.inputs, tensor)(x).numpy()
    low, high = np.quantile(values, (0.001, 0.999)) * rng.uniform(0.9, 1.1)
    return grid(min(low, 0.0), max(high, 0.0))


def grid(low: float, high: float) -> Range:
    """About that range, with zero among its steps."""
    step = (high - low) / 255
    below = round(-low / step)
    return Range(-below * step, (255 - below) * step)


def test_weights_half_way_between_two_steps_go_away_from_zero_as_in_the_file() -> None:
    image = keras.Input((1, 1, 4), name="image")
    layer = keras.layers.Dense(2, name="out")
    model = keras.Model(image, layer(keras.layers.Flatten(name="flat")(image)))
    kernel = np.float32([[127, -127], [0.5, -0.5], [62.5, 63.5], [1.5, -2.5]])
    layer.set_weights([kernel, np.zeros(2)])
    expected = [[127, -127], [1, -1], [63, 64], [2, -3]]
    np.testing.assert_array_equal(quantized_kernel(kernel, layer, per_channel=True), expected)
    ranges = {"image": grid(-1.0, 1.0), "out": grid(-256.0, 256.0)}
    data = export.to_tflite(
        quantize.fake_quantize(model, ranges), Quantization(Precision.INT8), None
    )
    details = runner.load(data)
    stored = [
        details.get_tensor(tensor["index"])
        for tensor in details.get_tensor_details()
        if list(tensor["shape"]) == [2, 4] and tensor["dtype"] == np.int8
    ]
    np.testing.assert_array_equal(stored[0].T, expected)
