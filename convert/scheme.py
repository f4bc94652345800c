"""Our int8 scheme in tfmot's terms: what is rounded in a layer, and how."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras
from tensorflow_model_optimization.quantization.keras import QuantizeConfig, quantizers

from convert.calibrate import Range
from keras_models.layers import Tensor

KERNELS = {"Conv2D": "kernel", "DepthwiseConv2D": "depthwise_kernel", "Dense": "kernel"}


class Int8Layer(QuantizeConfig):
    """A layer whose output, activation included, has a fixed range; None: what follows has it."""

    def __init__(self, range_: Range | None, *, round_weights: bool) -> None:
        self.range = range_
        self.round_weights = round_weights

    def get_weights_and_quantizers(self, layer: keras.layers.Layer) -> list[Any]:
        """The kernel, where it is rounded here: symmetric, one scale for all of it."""
        if not self.round_weights:
            return []
        return [(getattr(layer, KERNELS[type(layer).__name__]), SymmetricTensor())]

    def set_quantize_weights(
        self, layer: keras.layers.Layer, quantize_weights: Sequence[Tensor]
    ) -> None:
        """Makes the layer compute with its rounded kernel."""
        for kernel in quantize_weights:
            setattr(layer, KERNELS[type(layer).__name__], kernel)

    def get_activations_and_quantizers(self, layer: keras.layers.Layer) -> list[Any]:
        """None: the activation is part of the output."""
        return []

    def set_quantize_activations(
        self, layer: keras.layers.Layer, quantize_activations: Sequence[Any]
    ) -> None:
        """Nothing to set."""

    def get_output_quantizers(self, layer: keras.layers.Layer) -> list["FixedRange"]:
        """The rounding of the output."""
        return [FixedRange(self.range)] if self.range else []

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras stores them."""
        return {"range_": self.range, "round_weights": self.round_weights}


class _Stateless(quantizers.Quantizer):
    def build(
        self, tensor_shape: tf.TensorShape, name: str, layer: keras.layers.Layer
    ) -> dict[str, Any]:
        """No variables: nothing is learned."""
        return {}

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras stores them."""
        return {}


class FixedRange(_Stateless):
    """Rounds to the 256 steps of a range that calibration has found."""

    def __init__(self, range_: Range) -> None:
        self.range = range_

    def __call__(
        self, inputs: Tensor, training: bool, weights: Mapping[str, Any], **kwargs: Any
    ) -> Tensor:
        """Rounds and clips `inputs`."""
        return tf.quantization.fake_quant_with_min_max_args(inputs, self.range.low, self.range.high)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras stores them."""
        return {"range_": self.range}


class SymmetricTensor(_Stateless):
    """Rounds weights to 255 steps around zero, the largest magnitude at 127 of them."""

    def __call__(
        self, inputs: Tensor, training: bool, weights: Mapping[str, Any], **kwargs: Any
    ) -> Tensor:
        """Rounds `inputs`."""
        largest = tf.reduce_max(tf.abs(inputs))
        return tf.quantization.fake_quant_with_min_max_vars(
            inputs, -largest, largest, narrow_range=True
        )
