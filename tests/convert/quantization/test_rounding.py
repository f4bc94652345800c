"""Second-order rounding: against brute force, nearest rounding, and TensorFlow's convolutions."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from ai_edge_litert import schema_py_generated as schema

from convert import export
from convert.calibration_data import Inputs
from convert.quantization import quantize, rounding
from convert.quantization.rounding import round_steps, round_weights
from convert.quantization.tfmot_config import kernel_quantizer, quantized_kernel
from convert.settings import Precision, Quantization, Rounding
from convert.verification import runner, verify
from keras_models.images.decode import Preprocessing

layers = keras.layers
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@pytest.fixture(scope="module")
def network() -> Any:
    """Every kind of layer with weights, at both strides and paddings, on an odd and an even side.

    Weights of a mean other than zero, so that inputs' means matter, with an outlier in each, so
    that 8 bits are few.
    """
    inputs = x = keras.Input((18, 18, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="conv_same")(x)
    x = layers.DepthwiseConv2D(3, strides=2, padding="same", name="depthwise_same")(x)
    x = layers.Conv2D(12, 3, padding="valid", activation="relu6", name="conv_valid")(x)
    x = layers.DepthwiseConv2D(2, padding="valid", depth_multiplier=2, name="depthwise_valid")(x)
    x = layers.Conv2D(12, 3, groups=3, padding="same", name="grouped")(x)
    x = layers.Reshape((2, 6, 4), name="view")(x)
    x = layers.Conv2D(10, (1, 3), strides=(1, 3), name="strided_view")(x)
    x = layers.Conv2D(6, 3, dilation_rate=2, padding="same", name="dilated")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(7, name="dense")(x)
    model = keras.Model(inputs, x)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if layer.weights:
            kernel, bias = (rng.normal(0.05, 0.1, w.shape) for w in layer.get_weights())
            kernel.flat[0] = 3.0
            kernel[rng.random(kernel.shape) < 0.1] = 0.0
            layer.set_weights([kernel, bias])
    return model


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    rng = np.random.default_rng(1)
    # brighter above than below: means differ from place to place, at the borders too
    values = rng.uniform(-1, 1, (21, 18, 18, 3)) + np.linspace(0.8, -0.2, 18)[:, None, None]
    return Inputs("test", values.astype(np.float32))


def outputs(layer: Any, x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """What the layer computes before its activation with another kernel, without bias."""
    if isinstance(layer, layers.Dense):
        return x @ kernel
    convolve = tf.nn.depthwise_conv2d if isinstance(layer, layers.DepthwiseConv2D) else tf.nn.conv2d
    strides = [1, *layer.strides, 1]
    padding, dilations = layer.padding.upper(), layer.dilation_rate
    return convolve(x, kernel.astype(np.float32), strides, padding, dilations=dilations).numpy()


def is_rounded(layer: Any, rounded: Any, per_channel: bool) -> None:
    """The kernel is whole steps of the layer's own size, zeros and largest weights unmoved."""
    kernel, new = layer.get_weights()[0], rounded.get_layer(layer.name).get_weights()[0]
    quantizer = kernel_quantizer(layer, per_channel=per_channel)
    step = quantizer.step(kernel).numpy()
    np.testing.assert_allclose(quantizer.step(new).numpy(), step, rtol=1e-6, err_msg=layer.name)
    np.testing.assert_allclose(new / step, np.rint(new / step), atol=1e-4, err_msg=layer.name)
    assert np.all(new[kernel == 0] == 0)
    largest = np.abs(kernel) > 126.999 * step
    np.testing.assert_allclose(new[largest], kernel[largest], rtol=1e-6)


@pytest.mark.parametrize("per_channel", [True, False])
def test_the_error_of_outputs_is_never_above_nearest_rounding_and_mostly_far_below(
    network: Any, inputs: Inputs, per_channel: bool
) -> None:
    """Every position is measured here: there are fewer than POSITIONS."""
    rounded = round_weights(network, inputs, per_channel=per_channel)
    ratios = []
    for layer in network.layers:
        if not layer.weights:
            continue
        is_rounded(layer, rounded, per_channel)
        kernel, bias = layer.get_weights()
        new, moved = rounded.get_layer(layer.name).get_weights()
        x = keras.Model(network.inputs, layer.input)(inputs.values).numpy()
        exact = outputs(layer, x, kernel)
        near = outputs(layer, x, quantized_kernel(kernel, layer, per_channel=per_channel)) - exact
        ours = outputs(layer, x, new) - exact
        axes = tuple(range(ours.ndim - 1))
        remaining = ours.mean(axis=axes, dtype=np.float64) + (moved - bias)
        assert np.abs(remaining).max() <= 1e-4 * np.abs(exact).max(), layer.name
        variance, most = ours.var(axis=axes, dtype=np.float64), near.var(axis=axes)
        assert np.all(variance <= most * (1 + 1e-3) + 1e-12), layer.name
        ratios.append(variance.sum() / most.sum())
    assert np.mean(ratios) < 0.6


def test_few_weights_are_rounded_as_brute_force_rounds_them() -> None:
    """Near the best of all 3^6 roundings to the three nearest steps, for 200 outputs."""
    rng = np.random.default_rng(3)
    mixed = rng.normal(size=(40, 6)) @ rng.normal(size=(6, 6))
    covariance = np.cov(mixed.T, bias=True)
    weights = rng.uniform(-20, 20, (6, 200))
    whole = round_steps(weights[None], covariance[None])[0]
    moves = np.array(list(itertools.product((-1, 0, 1), repeat=6)))
    ridged = covariance + rounding.RIDGE * np.trace(covariance) / 6 * np.eye(6)

    def error(steps: np.ndarray, target: np.ndarray) -> np.ndarray:
        return np.sum((steps - target) @ ridged * (steps - target), axis=-1)

    best, ours, nearest = [], [], []
    for target, found in zip(weights.T, whole.T, strict=True):
        best.append(error(np.rint(target) + moves, target).min())
        ours.append(error(found, target))
        nearest.append(error(np.rint(target), target))
        for i, step in itertools.product(range(6), (-1, 1)):  # no single move makes it better
            assert error(found + step * np.eye(6)[i], target) >= ours[-1] * (1 - 1e-9)
    equal = np.isclose(ours, best, rtol=1e-9) | (np.array(ours) < best)
    assert equal.mean() > 0.7
    assert np.mean(ours) < 1.1 * np.mean(best)
    assert np.mean(ours) < 0.6 * np.mean(nearest)


def test_blocks_and_groups_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    weights = rng.uniform(-100, 100, (3, 20, 7))
    weights[rng.random(weights.shape) < 0.2] = 0
    samples = rng.normal(size=(3, 100, 20)) @ rng.normal(size=(3, 20, 20))
    covariance = samples.transpose(0, 2, 1) @ samples / 100
    before = covariance.copy()
    expected = [round_steps(weights[[g]], covariance[[g]])[0] for g in range(3)]
    monkeypatch.setattr(rounding, "BLOCK", 6)
    found = round_steps(weights, covariance)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(covariance, before)
    assert np.all(found[weights == 0] == 0)
    assert not np.array_equal(found, np.rint(weights))


def test_inputs_that_are_always_zero_have_their_weights_rounded_to_the_nearest() -> None:
    weights = np.random.default_rng(5).uniform(-100, 100, (1, 8, 5))
    np.testing.assert_array_equal(round_steps(weights, np.zeros((1, 8, 8))), np.rint(weights))


def test_sampled_positions_are_random_and_the_same_each_time(
    network: Any, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = round_weights(network, inputs, per_channel=True).get_weights()
    again = round_weights(network, inputs, per_channel=True).get_weights()
    monkeypatch.setattr(rounding, "POSITIONS", 21 * 9)
    few = round_weights(network, inputs, per_channel=True).get_weights()
    monkeypatch.setattr(rounding, "COVARIANCES", 1)  # each layer by itself
    monkeypatch.setattr(rounding, "ROWS", 10)
    alone = round_weights(network, inputs, per_channel=True).get_weights()
    for weights, same in zip(everything, again, strict=True):
        np.testing.assert_array_equal(weights, same)
    for weights, same in zip(few, alone, strict=True):
        np.testing.assert_allclose(weights, same, rtol=1e-4, atol=1e-5)
    assert not np.array_equal(everything[0], few[0])


def test_the_network_stays_as_it_was(network: Any, inputs: Inputs) -> None:
    before = [w.copy() for w in network.get_weights()]
    rounded = round_weights(network, inputs, per_channel=True)
    rounded.set_weights([np.zeros_like(w) for w in before])
    for ours, theirs in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_kernels_that_are_whole_steps_already_stay(network: Any, inputs: Inputs) -> None:
    whole = keras.models.clone_model(network)
    rng = np.random.default_rng(2)
    for layer in whole.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            kernel = rng.integers(-126, 127, kernel.shape).astype(np.float32)
            kernel[0, 0] = 127  # in every channel
            if isinstance(layer, layers.Dense):
                kernel[0] = 127
            layer.set_weights([kernel / 64, bias])
    rounded = round_weights(whole, inputs, per_channel=True)
    for before, after in zip(whole.get_weights(), rounded.get_weights(), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-4)


def test_the_logits_come_closer_to_those_in_float(small: Any, fresh: Inputs, files: Any) -> None:
    int8 = Quantization(precision=Precision.INT16X8)  # activations all but exact
    float_logits = verify.logits(small.model, fresh)

    def sqnr_db(settings: Quantization) -> float:
        return verify.sqnr_db(float_logits, np.stack(list(runner.run(files(settings), fresh))))

    assert sqnr_db(int8) > sqnr_db(replace(int8, rounding=Rounding.NEAREST)) + 1


def test_rounding_keeps_channels_of_zeros() -> None:
    layer = layers.Conv2D(2, 1)
    layer.build((None, 4, 4, 3))
    kernel = np.zeros((1, 1, 3, 2), np.float32)
    kernel[0, 0, :, 1] = [1.27, 0.014, -0.016]
    found = quantized_kernel(kernel, layer, per_channel=True)
    np.testing.assert_allclose(found[0, 0], [[0, 1.27], [0, 0.01], [0, -0.02]], rtol=1e-6)


@pytest.mark.parametrize("rounding_", Rounding)
@pytest.mark.parametrize(
    ("precision", "per_channel"),
    [(Precision.INT8, True), (Precision.INT8, False), (Precision.INT16X8, True)],
)
def test_the_file_holds_the_rounded_kernels(
    network: Any, inputs: Inputs, precision: Precision, per_channel: bool, rounding_: Rounding
) -> None:
    settings = Quantization(
        precision=precision,
        per_channel=per_channel,
        rounding=rounding_,
        activation_equalization=False,
    )
    calibrated = quantize.calibrate(network, inputs, settings, Preprocessing())
    ready = quantize.fake_quantize(calibrated.rounded, calibrated.ranges, per_channel=per_channel)
    found = kernels(export.to_tflite(ready, settings, inputs))
    weighted = [layer for layer in network.layers if layer.weights]
    assert len(found) == len(weighted)
    for layer, (kernel, scales) in zip(weighted, found, strict=True):
        original = layer.get_weights()[0]
        expected = quantized_kernel(original, layer, per_channel=per_channel)
        if rounding_ is Rounding.SECOND_ORDER:
            expected = calibrated.rounded.get_layer(layer.name).get_weights()[0]
        expected = file_order(expected, layer)
        assert scales == (file_order(original, layer).shape[channel(layer)] if per_channel else 1)
        step = np.abs(original).max() / 127
        np.testing.assert_allclose(kernel, expected, atol=1e-5 * step, err_msg=layer.name)


def channel(layer: Any) -> int:
    return 3 if isinstance(layer, layers.DepthwiseConv2D) else 0


def file_order(kernel: np.ndarray, layer: Any) -> np.ndarray:
    """TFLite keeps the outputs of a convolution first, of a depthwise one last."""
    if isinstance(layer, layers.Dense):
        return kernel.T
    if isinstance(layer, layers.DepthwiseConv2D):
        return kernel.reshape(1, *kernel.shape[:2], -1)
    return kernel.transpose(3, 0, 1, 2)


def kernels(data: bytes) -> list[tuple[np.ndarray, int]]:
    """The int8 kernels of a file as real numbers, and how many scales each has."""
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    (graph,) = model.subgraphs
    names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    found = []
    for operator in graph.operators:
        if names[model.operatorCodes[operator.opcodeIndex].builtinCode] in CONVOLUTIONS:
            tensor = graph.tensors[operator.inputs[1]]
            raw = np.asarray(model.buffers[tensor.buffer].data, np.uint8).view(np.int8)
            scale = np.asarray(tensor.quantization.scale, np.float64)
            assert not np.any(tensor.quantization.zeroPoint)
            shape = [1] * len(tensor.shape)
            shape[tensor.quantization.quantizedDimension if scale.size > 1 else 0] = -1
            found.append((raw.reshape(tensor.shape) * scale.reshape(shape), scale.size))
    return found
