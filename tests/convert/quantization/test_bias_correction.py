"""Bias correction: the means of layers come back."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from ai_edge_litert import schema_py_generated as schema

from convert import export
from convert.calibration_data import Inputs
from convert.quantization import quantize
from convert.quantization.bias_correction import correct_biases
from convert.quantization.tfmot_config import quantized_kernel
from convert.settings import Precision, Quantization
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
    x = layers.Conv2D(10, 1, name="pointwise")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(7, name="dense")(x)
    model = keras.Model(inputs, x)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if layer.weights:
            kernel, bias = (rng.normal(0.05, 0.1, w.shape) for w in layer.get_weights())
            kernel.flat[0] = 3.0
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
    return convolve(x, kernel.astype(np.float32), strides, layer.padding.upper()).numpy()


@pytest.mark.parametrize("per_channel", [True, False])
def test_the_mean_of_every_channel_is_as_before_rounding(
    network: Any, inputs: Inputs, per_channel: bool
) -> None:
    corrected = correct_biases(network, inputs, per_channel=per_channel)
    for layer in network.layers:
        if not layer.weights:
            continue
        kernel, bias = layer.get_weights()
        kept, moved = corrected.get_layer(layer.name).get_weights()
        np.testing.assert_array_equal(kept, kernel)
        x = keras.Model(network.inputs, layer.input)(inputs.values).numpy()
        error = outputs(
            layer, x, quantized_kernel(kernel, layer, per_channel=per_channel)
        ) - outputs(layer, x, kernel)
        mean_error = error.reshape(-1, error.shape[-1]).mean(axis=0, dtype=np.float64)
        remaining = mean_error + (moved - bias)
        assert np.abs(remaining).max() <= 2e-3 * np.abs(mean_error).max(), layer.name


def test_the_network_corrected_stays_as_it_was(network: Any, inputs: Inputs) -> None:
    before = [w.copy() for w in network.get_weights()]
    corrected = correct_biases(network, inputs, per_channel=True)
    corrected.set_weights([np.zeros_like(w) for w in before])
    for ours, theirs in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_kernels_that_are_whole_steps_already_move_no_bias(network: Any, inputs: Inputs) -> None:
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
    corrected = correct_biases(whole, inputs, per_channel=True)
    for before, after in zip(whole.get_weights(), corrected.get_weights(), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-4)


def test_rounding_keeps_channels_of_zeros() -> None:
    layer = layers.Conv2D(2, 1)
    layer.build((None, 4, 4, 3))
    kernel = np.zeros((1, 1, 3, 2), np.float32)
    kernel[0, 0, :, 1] = [1.27, 0.014, -0.016]
    found = quantized_kernel(kernel, layer, per_channel=True)
    np.testing.assert_allclose(found[0, 0], [[0, 1.27], [0, 0.01], [0, -0.02]], rtol=1e-6)


@pytest.mark.parametrize(
    ("precision", "per_channel"),
    [(Precision.INT8, True), (Precision.INT8, False), (Precision.INT16X8, True)],
)
def test_the_file_holds_the_rounded_kernels(
    network: Any, inputs: Inputs, precision: Precision, per_channel: bool
) -> None:
    settings = Quantization(
        precision=precision,
        per_channel=per_channel,
        bias_correction=False,
        activation_equalization=False,
    )
    ready = quantize.apply(network, inputs, settings, Preprocessing())
    found = kernels(export.to_tflite(ready, settings, inputs))
    weighted = [layer for layer in network.layers if layer.weights]
    assert len(found) == len(weighted)
    for layer, (kernel, scales) in zip(weighted, found, strict=True):
        original = layer.get_weights()[0]
        expected = file_order(quantized_kernel(original, layer, per_channel=per_channel), layer)
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
