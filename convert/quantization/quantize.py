"""Which tensors share a range, which range that is, and the form of a network that has them.

Weights are symmetric int8, one scale per output channel or per tensor.  Activations are asymmetric
int8, one range per tensor.  Layers that only move values (concat, shuffle, slice, max pooling) have
no range of their own: what they read and what they give are one group with one range, so that no
QUANTIZE operator is needed anywhere between the network's input and its output.  A ReLU behind a
layer that nothing else reads is no operator either: a range that begins at zero clips as it does.
"""

import math
from collections import Counter
from collections.abc import Mapping

import tf_keras as keras
from tensorflow_model_optimization.quantization.keras import QuantizeWrapperV2
from tensorflow_model_optimization.quantization.keras.quantizers import Quantizer

from convert import keras_graph
from convert.calibration_data import Inputs
from convert.lowering.layers import RowPadding
from convert.quantization import int8_emulation
from convert.quantization.bias_correction import correct_biases
from convert.quantization.int8_range import TIES, Range
from convert.quantization.observers import collect, estimate
from convert.quantization.tfmot_config import CONVOLVING, Int8Layer, SymmetricTensor, kernel_name
from convert.settings import Estimator, Precision, Quantization
from keras_models.images.decode import Preprocessing
from keras_models.layers import ChannelShuffle, ChannelSlice, Tensor

MOVES_VALUES = (
    ChannelShuffle,
    ChannelSlice,
    keras.layers.Concatenate,
    keras.layers.MaxPooling2D,
    keras.layers.Reshape,
    keras.layers.ZeroPadding2D,
    RowPadding,
)
SIGMOID = Range(0.0, 255 / 256)  # the only output range of TFLite's int8 LOGISTIC


def calibrate(
    deployed: keras.Model,
    calibration: Inputs | None,
    settings: Quantization,
    preprocessing: Preprocessing,
) -> tuple[keras.Model, dict[str, Range]]:
    """Returns the deployment form with its biases corrected, and the ranges of int8.

    A float precision's is returned as it is; int16 ranges are left to the converter to find.
    """
    if not settings.precision.needs_inputs:
        return deployed, {}
    assert calibration is not None
    if settings.bias_correction:
        deployed = correct_biases(deployed, calibration, per_channel=settings.per_channel)
    if settings.precision is not Precision.INT8:
        return deployed, {}
    return deployed, ranges(deployed, calibration, settings.ranges, preprocessing)


def apply(
    deployed: keras.Model,
    calibration: Inputs | None,
    settings: Quantization,
    preprocessing: Preprocessing,
) -> keras.Model:
    """Post-training quantization: returns the form to export."""
    calibrated, found = calibrate(deployed, calibration, settings, preprocessing)
    return fake_quantize(calibrated, found, per_channel=settings.per_channel)


def ranges(
    deployed: keras.Model,
    calibration: Inputs,
    estimator: Estimator,
    preprocessing: Preprocessing,
) -> dict[str, Range]:
    """Layer name -> range, for every layer that computes values, and for the input.

    The input's follows from the preprocessing.  The logits' is always all of their values: where
    they are clipped, the best classes tie.
    """
    groups = shared_ranges(deployed)
    found: dict[str, Range] = {}
    for group, histogram in zip(groups, collect(deployed, groups, calibration), strict=True):
        last = set(group) & set(deployed.output_names)
        range_ = estimate(histogram, Estimator.MINMAX if last else estimator)
        found |= dict.fromkeys(group, range_)
    found |= {name: SIGMOID for name in found if _is_sigmoid(deployed.get_layer(name))}
    return found | {deployed.input_names[0]: input_range(preprocessing)}


def input_range(preprocessing: Preprocessing) -> Range:
    """The input's range: its 256 steps are the 256 pixel values where all channels are alike."""
    low, high = preprocessing.input_range
    step = (high - low) / 255
    below = math.floor(-low / step + 0.5 + 1e-6)  # whole steps, so that zero is one of them
    return Range(-below * step, (255 - below) * step)


def shared_ranges(model: keras.Model) -> list[list[str]]:
    """Groups the layers of a deployment form whose values need a range; a group shares one.

    Where a ReLU clips what a layer computes, the ReLU is in a group and the layer is not.
    """
    clipping = _clipping(model)
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        return name if parent[name] == name else root(parent[name])

    def visit(layer: keras.layers.Layer, read: list[str]) -> str:
        """Returns the group whose values `layer` gives, by the name of one member."""
        if layer.name in clipping.values():
            return layer.name  # the ReLU behind it follows
        if layer.name in clipping or not isinstance(layer, MOVES_VALUES):
            parent[layer.name] = layer.name
            return layer.name
        first, *others = read
        for other in others:
            parent[root(other)] = root(first)
        return first

    keras_graph.interpret(model, visit)
    groups: dict[str, list[str]] = {}
    for name in parent:
        groups.setdefault(root(name), []).append(name)
    return list(groups.values())


def _clipping(model: keras.Model) -> dict[str, str]:
    """The ReLUs that a range can stand for -> the layers whose values they clip."""
    reads = keras_graph.sources(model)
    readers = Counter(name for names in reads.values() for name in names)

    def computing(name: str) -> keras.layers.Layer | None:
        """The layer whose values these are, if nothing else reads them; reshaped at most."""
        layer = model.get_layer(name)
        if readers[name] > 1:
            return None
        if isinstance(layer, keras.layers.Reshape):
            return computing(reads[name][0])
        return None if isinstance(layer, MOVES_VALUES) else layer

    return {
        layer.name: source.name
        for layer in model.layers
        if isinstance(layer, keras.layers.ReLU)
        and not layer.negative_slope
        and not layer.threshold
        and (source := computing(reads[layer.name][0]))
    }


def _is_sigmoid(layer: keras.layers.Layer) -> bool:
    return (
        isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.sigmoid
    )


def fake_quantize(
    model: keras.Model,
    ranges: Mapping[str, Range],
    *,
    per_channel: bool = True,
    training: bool = False,
) -> keras.Model:
    """Returns the deployment form with the output of each layer in `ranges` rounded to int8.

    Without ranges nothing is rounded.

    Args:
      model: The deployment form.
      ranges: As the function of that name gives them.
      per_channel: Weights have one scale per output channel, else per tensor.
      training: Compute as the file will, in whole steps; see `integer`.  For the converter, weights
        with one scale per channel stay as they are: it rounds them, and cannot follow rounded ones
        where it transposes them.  With one scale per tensor they are rounded for it: it knows no
        such mode.
    """
    if not ranges:
        return model
    image = keras.Input(model.inputs[0].shape[1:], name=model.input_names[0])
    clipping, reads = _clipping(model), keras_graph.sources(model)
    # Layers that move values have the range of those that they read, clipped ones their ReLU's.
    known = {**ranges, **{source: ranges[relu] for relu, source in clipping.items()}}
    given = keras_graph.interpret(model, lambda layer, read: known.get(layer.name) or read[0])

    def visit(layer: keras.layers.Layer, inputs: list[Tensor]) -> Tensor:
        range_ = ranges.get(layer.name)
        quantizers: dict[str, Quantizer] = {}
        if isinstance(layer, keras.layers.InputLayer):
            inputs = [image]
            name = f"{layer.name}_quantize"
            if training and range_:
                clone = keras.layers.Rescaling(1.0, -TIES * range_.step, name=name)
            else:
                clone = keras.layers.Activation("linear", name=name)
        elif layer.name in clipping:
            clone = keras.layers.Activation("linear", name=layer.name)
        elif training and layer.name in known:
            read = [given[name] for name in reads[layer.name]]
            clone, quantizers = int8_emulation.in_steps(
                layer, read, known[layer.name], per_channel=per_channel
            )
        else:
            clone = keras_graph.clone(layer, type(layer), layer.get_config())
            if isinstance(layer, CONVOLVING) and not per_channel:
                quantizers = {kernel_name(layer): SymmetricTensor()}
        if range_ or quantizers:
            clone = QuantizeWrapperV2(clone, Int8Layer(range_, quantizers), name_prefix="")
            clone.trainable = layer.trainable  # a pooling's kernel is rounded but stays as it is
        return clone(inputs if len(inputs) > 1 else inputs[0])

    outputs = keras_graph.interpret(model, visit)
    return keras.Model(image, outputs[model.output_names[0]], name=model.name)
