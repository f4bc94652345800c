"""Post-training quantization: the range of each tensor, and the fake-quantized network.

Weights are symmetric int8, one scale per output channel or per tensor. Activations are asymmetric
int8, one range per tensor. Layers that only move values (concat, shuffle, slice, max pooling) have
no range of their own: their inputs and their output are one group with one range, so that no
QUANTIZE operator is needed between the network's input and its output. A ReLU that alone reads a
layer needs no operator either: a range that begins at zero clips in its place.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tensorflow_model_optimization.quantization.keras import QuantizeWrapperV2
from tensorflow_model_optimization.quantization.keras.quantizers import Quantizer

from convert import keras_graph
from convert.calibration_data import Inputs
from convert.lowering.layers import RowPadding
from convert.quantization import int8_emulation
from convert.quantization.activation_equalization import equalize_activations
from convert.quantization.int8_range import TIES, Range
from convert.quantization.observers import choose_range, observe
from convert.quantization.rounding import round_weights
from convert.quantization.tfmot_config import CONVOLVING, Int8Layer, SymmetricTensor, kernel_name
from convert.settings import Estimator, Precision, Quantization, Rounding
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
CONFIDENCE = 0.9999  # probability of a class that the range of synthetic inputs' logits holds
MAX_HEADROOM = 2.0  # relative to the largest logit of synthetic inputs
SIGMOID = Range(0.0, 255 / 256)  # the only output range of TFLite's int8 LOGISTIC


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A network that is ready for int8.

    Attributes:
      deployed: The deployment form with float weights.
      rounded: The same with the weights that are quantized.
      ranges: Layer name -> int8 range; empty: not int8.
    """

    deployed: keras.Model
    rounded: keras.Model
    ranges: Mapping[str, Range] = field(default_factory=dict)


def calibrate(
    deployed: keras.Model,
    calibration: Inputs | None,
    settings: Quantization,
    preprocessing: Preprocessing,
) -> Calibrated:
    """Equalizes channels, rounds weights and chooses the int8 range of each layer.

    Float precisions change nothing and have no ranges; the converter chooses those of int16.
    """
    if not settings.precision.needs_inputs:
        return Calibrated(deployed, deployed)
    assert calibration is not None
    # The extremes of one channel of synthetic inputs are not those of pictures.
    if settings.equalizes_activations and not calibration.synthetic:
        clip = settings.ranges is not Estimator.MINMAX
        deployed = equalize_activations(deployed, shared_ranges(deployed), calibration, clip=clip)
    rounded = deployed
    if settings.rounding is Rounding.SECOND_ORDER:
        rounded = round_weights(deployed, calibration, per_channel=settings.per_channel)
    if settings.precision is not Precision.INT8:
        return Calibrated(deployed, rounded)
    ranges = choose_ranges(rounded, calibration, settings.ranges, preprocessing)
    return Calibrated(deployed, rounded, ranges)


def apply(
    deployed: keras.Model,
    calibration: Inputs | None,
    settings: Quantization,
    preprocessing: Preprocessing,
) -> keras.Model:
    """Calibrates and fake-quantizes: returns the network to export."""
    calibrated = calibrate(deployed, calibration, settings, preprocessing)
    return fake_quantize(calibrated.rounded, calibrated.ranges, per_channel=settings.per_channel)


def choose_ranges(
    deployed: keras.Model,
    calibration: Inputs,
    estimator: Estimator,
    preprocessing: Preprocessing,
) -> dict[str, Range]:
    """Layer name -> range, for every layer that computes values, and for the input.

    The range of the input follows from the preprocessing. The range of the logits always covers all
    of their values: clipping them would make the top classes tie. Synthetic inputs may leave a
    network undecided where pictures do not, so their range also holds the logit of a class that is
    all but certain.
    """
    groups = shared_ranges(deployed)
    ranges: dict[str, Range] = {}
    for group, histogram in zip(groups, observe(deployed, groups, calibration), strict=True):
        has_logits = set(group) & set(deployed.output_names)
        range_ = choose_range(histogram, Estimator.MINMAX if has_logits else estimator)
        if has_logits and calibration.synthetic:
            confident = _confident_logit(deployed, calibration)
            high = max(range_.high, min(confident, MAX_HEADROOM * range_.high))
            range_ = Range(range_.low, high)
        ranges |= dict.fromkeys(group, range_)
    ranges |= {name: SIGMOID for name in ranges if _is_sigmoid(deployed.get_layer(name))}
    return ranges | {deployed.input_names[0]: input_range(preprocessing)}


def _confident_logit(deployed: keras.Model, inputs: Inputs) -> float:
    """The logit that makes one class as probable as `CONFIDENCE`, beside others of these inputs."""
    others = [
        tf.reduce_logsumexp(tf.sort(deployed(batch, training=False))[:, :-1], axis=1)
        for batch in inputs.batches()
    ]
    odds = CONFIDENCE / (1 - CONFIDENCE)
    return float(max(map(tf.reduce_max, others))) + math.log(odds)


def input_range(preprocessing: Preprocessing) -> Range:
    """The input's range: its 256 steps are the pixel values if all channels are scaled alike."""
    low, high = preprocessing.input_range
    step = (high - low) / 255
    below = math.floor(-low / step + 0.5 + 1e-6)  # a whole number, so that zero is a step
    return Range(-below * step, (255 - below) * step)


def shared_ranges(model: keras.Model) -> list[list[str]]:
    """Groups of the layers of a deployment form that share a range.

    If a ReLU's range clips a layer's output, the ReLU is in a group and the layer is not.
    """
    clipping = _clipping(model)
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        return name if parent[name] == name else root(parent[name])

    def visit(layer: keras.layers.Layer, inputs: list[str]) -> str:
        """Returns the group of the layer's output, by the name of one member."""
        if layer.name in clipping.values():
            return layer.name  # the ReLU behind it joins a group
        if layer.name in clipping or not isinstance(layer, MOVES_VALUES):
            parent[layer.name] = layer.name
            return layer.name
        first, *others = inputs
        for other in others:
            parent[root(other)] = root(first)
        return first

    keras_graph.interpret(model, visit)
    groups: dict[str, list[str]] = {}
    for name in parent:
        groups.setdefault(root(name), []).append(name)
    return list(groups.values())


def _clipping(model: keras.Model) -> dict[str, str]:
    """The ReLUs that a range can replace -> the layers whose outputs they clip."""
    sources = keras_graph.sources(model)
    reader_counts = Counter(name for names in sources.values() for name in names)

    def computing(name: str) -> keras.layers.Layer | None:
        """The layer that computes these values, behind reshapes at most, if nothing else reads."""
        layer = model.get_layer(name)
        if reader_counts[name] > 1:
            return None
        if isinstance(layer, keras.layers.Reshape):
            return computing(sources[name][0])
        return None if isinstance(layer, MOVES_VALUES) else layer

    return {
        layer.name: source.name
        for layer in model.layers
        if isinstance(layer, keras.layers.ReLU)
        and not layer.negative_slope
        and not layer.threshold
        and (source := computing(sources[layer.name][0]))
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

    Without ranges it returns the deployment form itself.

    Args:
      model: The deployment form.
      ranges: From `choose_ranges`.
      per_channel: Weights have one scale per output channel, else per tensor.
      training: Compute in int8 steps as the file will; see `int8_emulation`. Otherwise the result
        is for the converter. Weights with one scale per channel are not rounded for it: it rounds
        them itself, and cannot follow rounded ones where it transposes them. Weights with one
        scale per tensor are rounded for it: it has no such mode.
    """
    if not ranges:
        return model
    make = _layer_maker(model, ranges, per_channel=per_channel, training=training)
    image = keras.Input(model.inputs[0].shape[1:], name=model.input_names[0])
    outputs = keras_graph.interpret(
        model, lambda layer, inputs: make(layer)(_argument(inputs or [image]))
    )
    return keras.Model(image, outputs[model.output_names[0]], name=model.name)


def emulate(
    model: keras.Model, ranges: Mapping[str, Range], *, per_channel: bool = True
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function that computes what `fake_quantize(..., training=True)` does, bit for bit.

    It takes a batch of inputs, (n, h, w, 3) float32, and returns their logits. It calls the layers
    one by one: to make a Keras model of them takes longer than to run them on a few batches.
    """
    make = _layer_maker(model, ranges, per_channel=per_channel, training=True)
    layers = {layer.name: make(layer) for layer in model.layers}
    sources = keras_graph.sources(model)
    reader_counts = Counter(name for names in sources.values() for name in names)

    def compute(batch: np.ndarray) -> np.ndarray:
        waiting = Counter(reader_counts)
        outputs: dict[str, Tensor] = {}
        for name, layer in layers.items():
            inputs = [outputs[source] for source in sources[name]] or [tf.constant(batch)]
            outputs[name] = layer(_argument(inputs))
            for source in sources[name]:
                waiting[source] -= 1
                if not waiting[source]:
                    del outputs[source]  # as a Keras model does: they are large
        return outputs[model.output_names[0]].numpy()

    return compute


def _argument(tensors: list[Tensor]) -> Tensor | list[Tensor]:
    return tensors if len(tensors) > 1 else tensors[0]


def _layer_maker(
    model: keras.Model, ranges: Mapping[str, Range], *, per_channel: bool, training: bool
) -> Callable[[keras.layers.Layer], keras.layers.Layer]:
    """Returns a function from a layer of the deployment form to its fake-quantized copy."""
    clipping, sources = _clipping(model), keras_graph.sources(model)
    # Layers that move values have the range of their inputs, clipped layers that of their ReLU.
    computed = {**ranges, **{source: ranges[relu] for relu, source in clipping.items()}}
    output_range = keras_graph.interpret(
        model, lambda layer, inputs: computed.get(layer.name) or inputs[0]
    )

    def make(layer: keras.layers.Layer) -> keras.layers.Layer:
        range_ = ranges.get(layer.name)
        quantizers: dict[str, Quantizer] = {}
        if isinstance(layer, keras.layers.InputLayer):
            name = f"{layer.name}_quantize"
            if training and range_:
                clone = keras.layers.Rescaling(1.0, -TIES * range_.step, name=name)
            else:
                clone = keras.layers.Activation("linear", name=name)
        elif layer.name in clipping:
            clone = keras.layers.Activation("linear", name=layer.name)
        elif training and layer.name in computed:
            input_ranges = [output_range[name] for name in sources[layer.name]]
            clone, quantizers = int8_emulation.emulated(
                layer, input_ranges, computed[layer.name], per_channel=per_channel
            )
        else:
            clone = keras_graph.clone(layer, type(layer), layer.get_config())
            if isinstance(layer, CONVOLVING) and not per_channel:
                quantizers = {kernel_name(layer): SymmetricTensor()}
        if range_ or quantizers:
            clone = QuantizeWrapperV2(clone, Int8Layer(range_, quantizers), name_prefix="")
            clone.trainable = (
                layer.trainable
            )  # the kernel of a pooling layer is rounded, not trained
        return clone

    return make
