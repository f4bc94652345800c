"""XNNPACK's int8 arithmetic in Keras, bit for bit.

XNNPACK sums integer products, multiplies the sum by one float32 factor, and rounds halves to even.
Sums are exact in float32 up to 2**24, more than products of 8 bits reach in practice.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tensorflow_model_optimization.quantization.keras.quantizers import Quantizer

from convert import keras_graph
from convert.quantization.int8_range import Range
from convert.quantization.tfmot_config import CONVOLVING, Int32Bias, kernel_name, kernel_quantizer
from keras_models.layers import Tensor

ADD_BITS = 20  # precision of the larger factor of an addition


def emulated(
    layer: keras.layers.Layer, inputs: Sequence[Range], output: Range, *, per_channel: bool
) -> tuple[keras.layers.Layer, dict[str, Quantizer]]:
    """A copy of a layer that computes in int8 steps, and the quantizers of its weights.

    Its inputs and outputs are the real values of whole steps; the output is not clipped to the
    range. Layers that only compare or move values are copied, and so are sigmoids, which TFLite
    looks up in a table.

    Args:
      layer: A layer of a deployment form.
      inputs: The range of each input tensor.
      output: The range of the output.
      per_channel: Weights have one scale per output channel, else per tensor.
    """
    config = layer.get_config()
    layer_type: Any = type(layer)
    if isinstance(layer, CONVOLVING):
        layer_type = _integer_type(_Convolution, layer_type)
        config["activation"] = "linear"
    elif layer_type is keras.layers.GlobalAveragePooling2D:
        layer_type = _integer_type(_Mean, layer_type)
    elif layer_type is keras.layers.Add:
        layer_type = _integer_type(_Addition, layer_type)
    elif layer_type is keras.layers.Multiply:
        layer_type = _integer_type(_Multiplication, layer_type)
    clone = keras_graph.clone(layer, layer_type, config)
    if isinstance(clone, _IntegerLayer):
        clone.input_steps = tuple(np.float32(range_.step) for range_ in inputs)
        clone.output_step = np.float32(output.step)
        clone.zero_points = tuple(np.float32(range_.zero_point) for range_ in (*inputs, output))
    if not isinstance(clone, _Convolution):
        return clone, {}
    clone.activate = layer.activation
    name, (input_range,) = kernel_name(clone), inputs
    weights, kernel = getattr(clone, name), kernel_quantizer(clone, per_channel=per_channel)
    clone.kernel_step = functools.partial(kernel.step, weights)
    return clone, {name: kernel, "bias": Int32Bias(input_range.step, kernel, weights)}


class _IntegerLayer(keras.layers.Layer):
    """In training it computes in real numbers, which is as good there, and faster."""

    input_steps: tuple[np.float32, ...]
    output_step: np.float32
    zero_points: tuple[np.float32, ...]  # of the inputs and the output

    def call(self, inputs: Any, training: Any = None) -> Tensor:
        """Computes on the real values of whole steps."""
        if training:
            return super().call(inputs)
        tensors = inputs if isinstance(inputs, list) else [inputs]
        # Inputs are whole steps up to the last bits of float32.
        steps = [tf.round(x / step) for x, step in zip(tensors, self.input_steps, strict=True)]
        return self.compute(*steps) * self.output_step

    def compute(self, *inputs: Tensor) -> Tensor:
        """Computes whole steps from whole steps."""
        raise NotImplementedError


class _Convolution(_IntegerLayer):
    """A convolution or dense layer, which rounds its weights in each call."""

    bias: Tensor

    def call(self, inputs: Any, training: Any = None) -> Tensor:
        """Computes on the real values of whole steps."""
        return self.activate(super().call(inputs, training))

    def compute(self, x: Tensor) -> Tensor:
        """Sums the products and the bias."""
        name, kernel_step = kernel_name(self), tf.cast(self.kernel_step(), tf.float32)
        setattr(self, name, tf.round(getattr(self, name) / kernel_step))
        product = self.input_steps[0] * tf.reshape(kernel_step, (-1,))
        self.bias = tf.round(self.bias / product)
        return tf.round(super(_IntegerLayer, self).call(x) * (product / self.output_step))


class _Mean(_IntegerLayer):
    def compute(self, x: Tensor) -> Tensor:
        """Sums the stored values; all constants, zero points among them, are one summand."""
        _, height, width, _ = x.shape
        pixels, (zero, output_zero) = np.float32(height * width), self.zero_points
        sums = tf.reduce_sum(x, axis=(1, 2), keepdims=self.keepdims) + pixels * zero
        factor = self.input_steps[0] / self.output_step * (np.float32(1) / pixels)
        return tf.round(sums * factor + (output_zero - pixels * zero * factor)) - output_zero


class _Addition(_IntegerLayer):
    def compute(self, *inputs: Tensor) -> Tensor:
        """Adds in fixed point with ADD_BITS bits for the larger factor; rounds halves up."""
        factors = [step / self.output_step for step in self.input_steps]
        _, exponent = np.frexp(max(factors))
        one = 2.0 ** (ADD_BITS + 1 - exponent)
        summands = [
            tf.cast(x, tf.float64) * np.round(np.float64(factor) * one)
            for x, factor in zip(inputs, factors, strict=True)
        ]
        return tf.cast(tf.floor(tf.add_n(summands) / one + 0.5), tf.float32)


class _Multiplication(_IntegerLayer):
    def compute(self, one: Tensor, other: Tensor) -> Tensor:
        """Multiplies, and rounds as a convolution does."""
        step, other_step = self.input_steps
        return tf.round(one * other * (step * other_step / self.output_step))


@functools.cache
def _integer_type(mixin: Any, layer_type: Any) -> Any:
    return type(f"Integer{layer_type.__name__}", (mixin, layer_type), {})
