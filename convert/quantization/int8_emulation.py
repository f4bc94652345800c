"""The arithmetic of an int8 file in Keras, to the bit: what XNNPACK computes.

XNNPACK sums products of whole steps, multiplies the sum with one float32 factor, and rounds halves
to even.  Sums are exact in float32 up to 2**24, more than products of 8 bits reach in practice.
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

ADDED_BITS = 20  # of the larger factor of an addition


def in_steps(
    layer: keras.layers.Layer, inputs: Sequence[Range], output: Range, *, per_channel: bool
) -> tuple[keras.layers.Layer, dict[str, Quantizer]]:
    """A layer that computes in whole steps of int8, and what rounds its weights for it.

    It takes and gives what steps stand for, and has the weights of `layer`; what it gives is not
    clipped to the range.  Layers that only compare or move values are copied, and sigmoids, which
    TFLite looks up in a table.

    Args:
      layer: One of a deployment form.
      inputs: The range of each tensor that it reads.
      output: The range of what it gives.
      per_channel: Weights have one scale per output channel, else per tensor.
    """
    config = layer.get_config()
    kind: Any = type(layer)
    if isinstance(layer, CONVOLVING):
        kind = _in_steps(_Products, kind)
        config["activation"] = "linear"
    elif kind is keras.layers.GlobalAveragePooling2D:
        kind = _in_steps(_Mean, kind)
    elif kind is keras.layers.Add:
        kind = _in_steps(_Addition, kind)
    elif kind is keras.layers.Multiply:
        kind = _in_steps(_Multiplication, kind)
    clone = keras_graph.clone(layer, kind, config)
    if isinstance(clone, _InSteps):
        clone.input_steps = tuple(np.float32(range_.step) for range_ in inputs)
        clone.output_step = np.float32(output.step)
        clone.zero_points = tuple(np.float32(range_.zero_point) for range_ in (*inputs, output))
    if not isinstance(clone, _Products):
        return clone, {}
    clone.activate = layer.activation
    name, (source,) = kernel_name(clone), inputs
    weights, kernel = getattr(clone, name), kernel_quantizer(clone, per_channel=per_channel)
    clone.kernel_step = functools.partial(kernel.step, weights)
    return clone, {name: kernel, "bias": Int32Bias(source.step, kernel, weights)}


class _InSteps(keras.layers.Layer):
    """In training it computes in real numbers, which are as good there, and faster."""

    input_steps: tuple[np.float32, ...]
    output_step: np.float32
    zero_points: tuple[np.float32, ...]  # of the inputs and the output

    def call(self, inputs: Any, training: Any = None) -> Tensor:
        """Gives what steps stand for."""
        if training:
            return super().call(inputs)
        tensors = inputs if isinstance(inputs, list) else [inputs]
        # Inputs are whole steps but for float32's last bits.
        read = [tf.round(x / step) for x, step in zip(tensors, self.input_steps, strict=True)]
        return self.steps(*read) * self.output_step

    def steps(self, *inputs: Tensor) -> Tensor:
        """From whole steps to whole steps."""
        raise NotImplementedError


class _Products(_InSteps):
    """A convolution or dense layer whose weights are rounded when it is called."""

    bias: Tensor

    def call(self, inputs: Any, training: Any = None) -> Tensor:
        """Gives what steps stand for."""
        return self.activate(super().call(inputs, training))

    def steps(self, x: Tensor) -> Tensor:
        """Sums products, and the biases with them."""
        name, kernel_step = kernel_name(self), tf.cast(self.kernel_step(), tf.float32)
        setattr(self, name, tf.round(getattr(self, name) / kernel_step))
        product = self.input_steps[0] * tf.reshape(kernel_step, (-1,))
        self.bias = tf.round(self.bias / product)
        return tf.round(super(_InSteps, self).call(x) * (product / self.output_step))


class _Mean(_InSteps):
    def steps(self, x: Tensor) -> Tensor:
        """Sums what is stored; all that is constant, zero points among it, is one summand."""
        _, height, width, _ = x.shape
        pixels, (zero, output_zero) = np.float32(height * width), self.zero_points
        sums = tf.reduce_sum(x, axis=(1, 2), keepdims=self.keepdims) + pixels * zero
        factor = self.input_steps[0] / self.output_step * (np.float32(1) / pixels)
        return tf.round(sums * factor + (output_zero - pixels * zero * factor)) - output_zero


class _Addition(_InSteps):
    def steps(self, *inputs: Tensor) -> Tensor:
        """Adds in fixed point, which leaves the larger factor ADDED_BITS bits, halves upwards."""
        factors = [step / self.output_step for step in self.input_steps]
        _, exponent = np.frexp(max(factors))
        one = 2.0 ** (ADDED_BITS + 1 - exponent)
        parts = [
            tf.cast(x, tf.float64) * np.round(np.float64(factor) * one)
            for x, factor in zip(inputs, factors, strict=True)
        ]
        return tf.cast(tf.floor(tf.add_n(parts) / one + 0.5), tf.float32)


class _Multiplication(_InSteps):
    def steps(self, one: Tensor, other: Tensor) -> Tensor:
        """Multiplies, and rounds as after a convolution."""
        step, other_step = self.input_steps
        return tf.round(one * other * (step * other_step / self.output_step))


@functools.cache
def _in_steps(mixin: Any, kind: Any) -> Any:
    return type(f"{kind.__name__}InSteps", (mixin, kind), {})
