"""Cross-layer weight equalization: evens out the channels' magnitudes; the outputs stay the same.

https://arxiv.org/abs/1906.04721, Section 4.1. If only ReLUs and layers that move channels stand
between two layers, a channel can be divided by s in the first and multiplied by s in the second.
The factor s makes the channel's magnitude the same on both sides: on one side the weights that read
it; on the other the geometric mean of the weights that compute it and, unlike in the paper, its
values. The values of a tensor share one scale even if weights have one for each channel, so weights
alone would let the values drift apart. Channels that are added to each other share a factor. A
channel that ReLU6 clips, or that a layer without weights reads, keeps its magnitude.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tf_keras as keras

from convert import keras_graph
from convert.calibration_data import Inputs
from convert.lowering.channel_layout import connected
from convert.lowering.ir import Channels, permute
from convert.lowering.layers import RowPadding

ROUNDS = 500
CONVERGED = 1e-4  # largest change of a logarithm of a factor
STEP = 2 / 3  # damping: all channels change at once, and neighbours would overshoot together
HOMOGENEOUS = (  # layers whose output scales with their input, channel by channel
    keras.layers.AveragePooling2D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.MaxPooling2D,
    keras.layers.ZeroPadding2D,
    RowPadding,
)


def equalize(model: keras.Model, inputs: Inputs) -> tuple[keras.Model, int]:
    """Returns an equalized deployment form, and the number of channels that changed.

    Args:
      model: The deployment form.
      inputs: Inputs to measure the magnitude of values on.
    """
    tracing = _Tracing(model)
    factors = tracing.factors(_largest_values(model, list(tracing.weights), inputs))
    equalized = keras_graph.copy_model(model)
    for name, weights in tracing.weights.items():
        kernel, bias = model.get_layer(name).get_weights()
        scale = np.exp(weights.log_scale(factors)).reshape(weights.magnitudes.shape)
        if isinstance(model.get_layer(name), keras.layers.DepthwiseConv2D):
            scale = scale.T
        bias = bias / np.exp(factors[weights.outputs])
        equalized.get_layer(name).set_weights([kernel * scale, bias])
    return equalized, np.count_nonzero(factors)


def _largest_values(
    model: keras.Model, names: Sequence[str], inputs: Inputs
) -> dict[str, np.ndarray]:
    """Layer -> (channels,): logarithms of the largest magnitudes of its output."""
    probe = keras.Model(model.inputs, [model.get_layer(name).output for name in names])
    largest = [np.zeros(model.get_layer(name).output.shape[-1]) for name in names]
    for outputs in inputs.outputs_of(probe):
        for maxima, values in zip(largest, outputs, strict=True):
            in_batch = np.abs(values).reshape(-1, len(maxima)).max(axis=0)
            np.maximum(maxima, in_batch, out=maxima)
    for name, maxima in zip(names, largest, strict=True):
        bias = model.get_layer(name).get_weights()[1]
        maxima[maxima == 0] = np.abs(bias[maxima == 0])  # which keeps the ReLU closed
    with np.errstate(divide="ignore"):
        return {name: np.log(maxima) for name, maxima in zip(names, largest, strict=True)}


@dataclass(frozen=True, eq=False)
class _Weights:
    """The magnitudes of a layer's weights, and the channels that they connect."""

    magnitudes: np.ndarray  # (inputs of a group, outputs): logarithms of the largest weights
    inputs: Channels  # (inputs,), group by group
    outputs: Channels  # (outputs,)

    def log_scale(self, factors: np.ndarray) -> np.ndarray:
        """(inputs of a group, groups, outputs of a group): logarithms of the weights' factors."""
        groups = len(self.inputs) // len(self.magnitudes)
        inputs = factors[self.inputs].reshape(groups, -1).T
        return inputs[:, :, None] - factors[self.outputs].reshape(groups, -1)

    def largest(self, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(inputs,) and (outputs,): logarithm of the largest scaled weight of each channel."""
        scale = self.log_scale(factors)
        magnitudes = self.magnitudes.reshape(scale.shape) + scale
        return magnitudes.max(axis=2).T.ravel(), magnitudes.max(axis=0).ravel()


class _Tracing:
    """Numbers the channels, and follows them from the weights that compute to those that read."""

    def __init__(self, model: keras.Model) -> None:
        self.size = 0
        self.weights: dict[str, _Weights] = {}
        self.fixed: list[Channels] = []  # channels that must keep their magnitude
        self.tied: list[np.ndarray] = []  # (2, n) each: channels that share a factor
        values = keras_graph.interpret(model, self.visit)
        self.fixed += [values[name] for name in model.output_names]

    def visit(self, layer: keras.layers.Layer, inputs: list[Channels]) -> Channels:
        """Returns the channels of a layer's output."""
        if (moved := permute(layer, inputs)) is not None:
            return moved
        channels = layer.output.shape[-1]
        match layer:
            case keras.layers.Conv2D() | keras.layers.DepthwiseConv2D() | keras.layers.Dense():
                return self.weighted(layer, inputs[0])
            case keras.layers.Reshape() if len(inputs[0]) % channels == 0:
                return self.tie(list(inputs[0].reshape(-1, channels)))
            case keras.layers.Reshape() | keras.layers.Flatten() if channels % len(inputs[0]) == 0:
                return np.tile(inputs[0], channels // len(inputs[0]))
            case keras.layers.ReLU(max_value=None, threshold=0):
                return inputs[0]
            case keras.layers.Add():
                return self.tie(inputs)
            case keras.layers.Multiply() if all(len(x) == channels for x in inputs):
                self.fixed += inputs[1:]  # gates
                return inputs[0]
            case _ if isinstance(layer, HOMOGENEOUS):
                return inputs[0]
        self.fixed += [*inputs, self.new(channels)]
        return self.fixed[-1]

    def weighted(self, layer: keras.layers.Layer, inputs: Channels) -> Channels:
        kernel = layer.get_weights()[0].astype(np.float64)
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            kernel = kernel.swapaxes(2, 3)  # each channel is a group
        outputs = self.new(kernel.shape[-1])
        if layer.activation not in (keras.activations.linear, keras.activations.relu):
            self.fixed.append(outputs)
        with np.errstate(divide="ignore"):
            magnitudes = np.log(np.abs(kernel).max(axis=tuple(range(kernel.ndim - 2))))
        self.weights[layer.name] = _Weights(magnitudes, inputs, outputs)
        return outputs

    def tie(self, tensors: list[Channels]) -> Channels:
        first, *others = tensors
        self.tied += [np.stack([first, other]) for other in others]
        return first

    def new(self, number: int) -> Channels:
        self.size += number
        return np.arange(self.size - number, self.size)

    def factors(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """(size,): the logarithm of each channel's factor.

        Args:
          values: Layer -> logarithms of the magnitudes of its output.
        """
        tied_to = connected(self.tied, size=self.size)
        fixed = np.zeros(self.size, bool)
        fixed[tied_to[np.concatenate(self.fixed)]] = True
        factors = np.zeros(self.size)
        for _ in range(ROUNDS):
            written, read = _Mean(self.size), _Mean(self.size)
            for name, weights in self.weights.items():
                inputs, outputs = weights.largest(factors)
                read.add(tied_to[weights.inputs], inputs)
                magnitudes = outputs + values[name] - factors[weights.outputs]
                written.add(tied_to[weights.outputs], magnitudes / 2)
            free = ~fixed & (written.number > 0) & (read.number > 0)
            change = np.zeros(self.size)
            change[free] = STEP * (written.mean(free) - read.mean(free)) / 2
            factors = (factors + change)[tied_to]
            if np.abs(change).max() < CONVERGED:
                break
        return factors


class _Mean:
    """The mean of the magnitudes added for each channel; those of zeros, -inf, do not count."""

    def __init__(self, size: int) -> None:
        self.sum = np.zeros(size)
        self.number = np.zeros(size)

    def add(self, channels: Channels, magnitudes: np.ndarray) -> None:
        finite = np.isfinite(magnitudes)
        np.add.at(self.sum, channels[finite], magnitudes[finite])
        np.add.at(self.number, channels[finite], 1)

    def mean(self, which: np.ndarray) -> np.ndarray:
        return self.sum[which] / self.number[which]
