"""Bias correction: compensates for the shift that rounded weights cause in a layer's mean output.

https://arxiv.org/abs/1906.04721, Section 4.2. The mean is measured on calibration inputs, so no
distribution is assumed.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tf_keras as keras

from convert import keras_graph
from convert.calibration_data import Inputs
from convert.quantization.tfmot_config import quantized_kernel


def correct_biases(model: keras.Model, inputs: Inputs, *, per_channel: bool) -> keras.Model:
    """Returns a deployment form whose biases compensate for int8 weights, measured on `inputs`."""
    layers = [layer for layer in model.layers if layer.get_weights()]
    means = _mean_inputs(model, layers, inputs)

    corrected = keras_graph.copy_model(model)
    for layer in layers:
        kernel, bias = layer.get_weights()
        error = kernel - quantized_kernel(kernel, layer, per_channel=per_channel)
        corrected.get_layer(layer.name).set_weights(
            [kernel, bias + _mean_output(layer, means[layer.name], error)]
        )
    return corrected


def _mean_inputs(
    model: keras.Model, layers: Sequence[keras.layers.Layer], inputs: Inputs
) -> dict[str, np.ndarray]:
    """Layer name -> the mean over `inputs` of the layer's input, (1, ...) float32."""
    probe = keras.Model(model.inputs, [layer.input for layer in layers])
    sums = [np.zeros(layer.input.shape[1:], np.float64) for layer in layers]
    for batch in inputs.batches():
        for total, values in zip(sums, probe(batch, training=False), strict=True):
            total += values.numpy().sum(axis=0, dtype=np.float64)
    return {
        layer.name: (total / len(inputs)).astype(np.float32)[None]
        for layer, total in zip(layers, sums, strict=True)
    }


def _mean_output(layer: keras.layers.Layer, x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The layer's output with another kernel, without bias, averaged over positions: (channels,).

    `x` is the mean input. The result is exact, padding included: a convolution is linear, so the
    mean can be taken before it.
    """
    kernel = kernel.astype(np.float32)
    if isinstance(layer, keras.layers.Dense):
        return (x @ kernel)[0]
    strides, padding = (1, *layer.strides, 1), layer.padding.upper()
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        y = tf.nn.depthwise_conv2d(x, kernel, strides, padding)
    else:
        y = tf.nn.conv2d(x, kernel, strides, padding)
    return y.numpy().mean(axis=(0, 1, 2))
