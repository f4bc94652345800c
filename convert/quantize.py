"""The quantization scheme: which tensors share a range, and the fake-quantized form of a network.

Weights are symmetric int8, one scale per output channel (or per tensor), and are left to the
converter.  Activations are asymmetric int8, one range per tensor, and are decided here.  Layers
that only move values (concat, shuffle, slice, max pooling) have no range of their own: what they
read and what they give are one group with one range, so that no QUANTIZE operator is needed
anywhere between the network's input and its output.
"""

import math
from collections.abc import Mapping

import tensorflow as tf
import tf_keras as keras
from tensorflow_model_optimization.quantization.keras import (
    QuantizeConfig,
    QuantizeWrapperV2,
    quantizers,
)

from convert import graph
from convert.bias_correction import correct_biases
from convert.calibrate import Range, collect, estimate
from convert.inputs import Inputs
from convert.settings import Estimator, Precision, Quantization
from keras_models.data import Preprocessing
from keras_models.layers import ChannelShuffle, ChannelSlice

MOVES_VALUES = (
    ChannelShuffle,
    ChannelSlice,
    keras.layers.Concatenate,
    keras.layers.MaxPooling2D,
    keras.layers.ReLU,
)


def apply(deployed, calibration: Inputs | None, settings: Quantization, preprocessing):
    """Returns the form to export: biases corrected, int8 activations rounded to their ranges.

    Float precisions are returned as they are; int16 ranges are the converter's to find.
    """
    if settings.precision not in (Precision.INT8, Precision.INT16X8):
        return deployed
    assert calibration is not None
    if settings.bias_correction:
        deployed = correct_biases(deployed, calibration, per_channel=settings.per_channel)
    if settings.precision is Precision.INT16X8:
        return deployed
    return fake_quantize(deployed, ranges(deployed, calibration, settings.ranges, preprocessing))


def ranges(
    deployed, calibration: Inputs, estimator: Estimator, preprocessing: Preprocessing
) -> dict[str, Range]:
    """Layer name -> range, for every layer that computes values, and for the input.

    The input's follows from the preprocessing.  The logits' is always all of their values: where
    they are clipped, the best classes tie.
    """
    groups = shared_ranges(deployed)
    found = {}
    for group, histogram in zip(groups, collect(deployed, groups, calibration), strict=True):
        last = set(group) & set(deployed.output_names)
        range_ = estimate(histogram, Estimator.MINMAX if last else estimator)
        found |= dict.fromkeys(group, range_)
    return found | {deployed.input_names[0]: input_range(preprocessing)}


def input_range(preprocessing: Preprocessing) -> Range:
    """The input's range: its 256 steps are the 256 pixel values where all channels are alike."""
    low, high = preprocessing.input_range
    step = (high - low) / 255
    below = math.ceil(-low / step - 1e-6)  # whole steps, so that zero is one of them
    return Range(-below * step, (255 - below) * step)


def shared_ranges(model) -> list[list[str]]:
    """Groups the layers of a deployment form that compute values; each group shares one range."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        return name if parent[name] == name else root(parent[name])

    def visit(layer, read: list[str]) -> str:
        """Returns the group whose values `layer` gives, by the name of one member."""
        if not isinstance(layer, MOVES_VALUES):
            parent[layer.name] = layer.name
            return layer.name
        first, *others = read
        for other in others:
            parent[root(other)] = root(first)
        return first

    graph.interpret(model, visit)
    groups: dict[str, list[str]] = {}
    for name in parent:
        groups.setdefault(root(name), []).append(name)
    return list(groups.values())


def fake_quantize(model, ranges: Mapping[str, Range]):
    """Returns the deployment form with the output of each layer in `ranges` rounded to int8."""
    image = keras.Input(model.inputs[0].shape[1:], name=model.input_names[0])

    def visit(layer, inputs):
        if layer.name not in ranges:
            return graph.copy(layer, inputs)
        if isinstance(layer, keras.layers.InputLayer):
            inputs = [image]
            clone = keras.layers.Activation("linear", name=f"{layer.name}_quantize")
        else:
            clone = type(layer).from_config(layer.get_config())
            clone.build(layer.input_shape)
            clone.set_weights(layer.get_weights())
        return QuantizeWrapperV2(clone, OutputRange(ranges[layer.name]), name_prefix="")(*inputs)

    outputs = graph.interpret(model, visit)
    return keras.Model(image, outputs[model.output_names[0]], name=model.name)


class OutputRange(QuantizeConfig):
    """tfmot's description of a layer whose output, activation included, has a fixed range."""

    def __init__(self, range_: Range):
        self.range = range_

    def get_weights_and_quantizers(self, layer):
        """None: the converter rounds weights itself, and does not take rounded ones everywhere."""
        return []

    def set_quantize_weights(self, layer, quantize_weights):
        """Nothing to set."""

    def get_activations_and_quantizers(self, layer):
        """None: the activation is part of the output."""
        return []

    def set_quantize_activations(self, layer, quantize_activations):
        """Nothing to set."""

    def get_output_quantizers(self, layer):
        """The rounding of the output."""
        return [FixedRange(self.range)]

    def get_config(self):
        """The range, as Keras stores it."""
        return {"range_": self.range}


class FixedRange(quantizers.Quantizer):
    """Rounds to the 256 steps of a range that calibration has found."""

    def __init__(self, range_: Range):
        self.range = range_

    def build(self, tensor_shape, name, layer):
        """No variables: the range does not learn."""
        return {}

    def __call__(self, inputs, training, weights, **kwargs):
        """Rounds and clips `inputs`."""
        return tf.quantization.fake_quant_with_min_max_args(inputs, self.range.low, self.range.high)

    def get_config(self):
        """The range, as Keras stores it."""
        return {"range_": self.range}
