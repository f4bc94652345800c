"""The int8 scheme as tfmot configurations: which tensors of a layer are rounded, and how."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tensorflow_model_optimization.quantization.keras import QuantizeConfig, quantizers

from convert.quantization.int8_range import Range
from keras_models.layers import Tensor

CONVOLVING = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)


def kernel_name(layer: keras.layers.Layer) -> str:
    """The attribute of a convolution or dense layer that holds its kernel."""
    return "depthwise_kernel" if _is_depthwise(layer) else "kernel"


def kernel_quantizer(layer: keras.layers.Layer, *, per_channel: bool) -> "SymmetricKernel":
    """The quantizer for the kernel of a convolution or dense layer."""
    return SymmetricKernel(_shared_axes(layer, per_channel=per_channel))


def quantized_kernel(
    kernel: np.ndarray, layer: keras.layers.Layer, *, per_channel: bool
) -> np.ndarray:
    """The kernel as the converter rounds it: symmetric, the largest magnitude at 127 steps."""
    return kernel_quantizer(layer, per_channel=per_channel)(kernel, False, {}).numpy()


class Int8Layer(QuantizeConfig):
    """Rounds a layer's output, activation included, to a fixed range; None: does not round it.

    Rounds its weights with the quantizers of these names, as "kernel".
    """

    def __init__(
        self, range_: Range | None, weights: Mapping[str, quantizers.Quantizer] | None = None
    ) -> None:
        self.range = range_
        self.weights = weights or {}

    def get_weights_and_quantizers(self, layer: keras.layers.Layer) -> list[Any]:
        """The weights to round and their quantizers."""
        return [(getattr(layer, name), quantizer) for name, quantizer in self.weights.items()]

    def set_quantize_weights(
        self, layer: keras.layers.Layer, quantize_weights: Sequence[Tensor]
    ) -> None:
        """Makes the layer compute with its rounded weights."""
        for name, values in zip(self.weights, quantize_weights, strict=True):
            setattr(layer, name, values)

    def get_activations_and_quantizers(self, layer: keras.layers.Layer) -> list[Any]:
        """None: the activation is part of the output."""
        return []

    def set_quantize_activations(
        self, layer: keras.layers.Layer, quantize_activations: Sequence[Any]
    ) -> None:
        """Nothing to set."""
        assert not quantize_activations

    def get_output_quantizers(self, layer: keras.layers.Layer) -> list["FixedRange"]:
        """The quantizer of the output."""
        return [FixedRange(self.range)] if self.range else []

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments, as Keras stores them."""
        return {"range_": self.range, "weights": self.weights}


class _Stateless(quantizers.Quantizer):
    def build(
        self, tensor_shape: tf.TensorShape, name: str, layer: keras.layers.Layer
    ) -> dict[str, Any]:
        """No variables: nothing is learned."""
        return {}

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments, as Keras stores them."""
        return {}


class FixedRange(_Stateless):
    """Rounds to the 256 steps of a calibrated range."""

    def __init__(self, range_: Range) -> None:
        self.range = range_

    def __call__(
        self, inputs: Tensor, training: bool, weights: Mapping[str, Any], **kwargs: Any
    ) -> Tensor:
        """Rounds and clips `inputs`."""
        return tf.quantization.fake_quant_with_min_max_args(inputs, self.range.low, self.range.high)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments, as Keras stores them."""
        return {"range_": self.range}


class SymmetricTensor(_Stateless):
    """Rounds weights to 255 steps around zero, with the operator that the converter knows."""

    def __call__(
        self, inputs: Tensor, training: bool, weights: Mapping[str, Any], **kwargs: Any
    ) -> Tensor:
        """Rounds `inputs`."""
        largest = tf.reduce_max(tf.abs(inputs))
        return tf.quantization.fake_quant_with_min_max_vars(
            inputs, -largest, largest, narrow_range=True
        )


class SymmetricKernel(_Stateless):
    """Rounds a kernel to 255 steps around zero as the converter does, for training.

    Gradients pass through the rounding, except for weights that are zero: there the deployment form
    has no connection, and gets none.
    """

    def __init__(self, axes: tuple[int, ...] | None) -> None:
        """`axes`: those that share a scale; None: all."""
        self.axes = axes

    def __call__(
        self, inputs: Tensor, training: bool, weights: Mapping[str, Any], **kwargs: Any
    ) -> Tensor:
        """Rounds `inputs`."""
        connected = inputs * tf.stop_gradient(tf.cast(tf.not_equal(inputs, 0), inputs.dtype))
        whole = _halves_away_from_zero(tf.cast(inputs, tf.float64) / self.step(inputs))
        whole *= self.step(inputs)
        return connected + tf.stop_gradient(tf.cast(whole, inputs.dtype) - inputs)

    def step(self, kernel: Tensor) -> Tensor:
        """The size of a step of each weight, float64; `axes` have length 1."""
        largest = tf.reduce_max(tf.abs(kernel), axis=self.axes, keepdims=True)
        return tf.maximum(tf.cast(largest, tf.float64), 1e-30) / 127

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments, as Keras stores them."""
        return {"axes": self.axes}


class Int32Bias(_Stateless):
    """Rounds a bias to the steps of the products that it is added to."""

    def __init__(self, input_step: float, kernel: SymmetricKernel, of: tf.Variable) -> None:
        self.input_step, self.kernel, self.of = input_step, kernel, of

    def __call__(
        self, inputs: Tensor, training: bool, weights: Mapping[str, Any], **kwargs: Any
    ) -> Tensor:
        """Rounds `inputs`."""
        step = tf.reshape(self.input_step * self.kernel.step(self.of), (-1,))
        whole = _halves_away_from_zero(tf.cast(inputs, tf.float64) / step) * step
        return inputs + tf.stop_gradient(tf.cast(whole, inputs.dtype) - inputs)


def _halves_away_from_zero(x: Tensor) -> Tensor:
    return tf.sign(x) * tf.floor(tf.abs(x) + 0.5)


def _shared_axes(layer: keras.layers.Layer, *, per_channel: bool) -> tuple[int, ...] | None:
    if not per_channel:
        return None
    if isinstance(layer, keras.layers.Dense):
        return (0,)
    return (0, 1) if _is_depthwise(layer) else (0, 1, 2)


def _is_depthwise(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.DepthwiseConv2D)
