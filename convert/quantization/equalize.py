"""Cross-layer equalization: the same function, in weights and values that one scale can hold.

https://arxiv.org/abs/1906.04721, Section 4.1.  Where nothing but ReLUs and moves stand between two
layers, a channel may leave the first s times as small when the second takes it s times as large.
The factor of a channel is the one that makes it as large in what gives it as in what reads it: the
weights that read it on one side; on the other the weights that give it and, unlike in the paper,
its values, each in the geometric mean.  Values of one tensor share a scale even where weights have
one for each channel, and weights alone would let them drift apart.  Channels that meet in a sum
have one factor; a channel that ReLU6 clips, or that anything else than weights reads, stays as it
is.
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
CLOSE = 1e-4  # logarithm of a factor that changes no more
STEP = 2 / 3  # of the way: all channels go at once, and neighbours would overshoot together
SCALES_EACH = (  # a channel read s times as large is given s times as large
    keras.layers.AveragePooling2D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.MaxPooling2D,
    keras.layers.ZeroPadding2D,
    RowPadding,
)


def equalize(model: keras.Model, inputs: Inputs) -> tuple[keras.Model, int]:
    """Returns a deployment form that computes the same, and how many channels have other sizes.

    Args:
      model: The deployment form.
      inputs: What the sizes of values are found on.
    """
    tracing = _Tracing(model)
    factors = tracing.factors(_largest_values(model, list(tracing.weights), inputs))
    equalized = keras.models.clone_model(model)
    equalized.set_weights(model.get_weights())
    for name, weights in tracing.weights.items():
        kernel, bias = model.get_layer(name).get_weights()
        given = np.exp(factors[weights.gives])
        between = np.exp(weights.between(factors)).reshape(weights.sizes.shape)
        if isinstance(model.get_layer(name), keras.layers.DepthwiseConv2D):
            between = between.T
        equalized.get_layer(name).set_weights([kernel * between, bias / given])
    return equalized, np.count_nonzero(factors)


def _largest_values(
    model: keras.Model, names: Sequence[str], inputs: Inputs
) -> dict[str, np.ndarray]:
    """Layer -> (channels,): logarithms of the largest magnitudes that it gives."""
    probe = keras.Model(model.inputs, [[model.get_layer(name).output for name in names]])
    largest = [np.zeros(model.get_layer(name).output.shape[-1]) for name in names]
    for batch in inputs.batches():
        for found, values in zip(largest, probe(batch, training=False)[0], strict=True):
            each = np.abs(values.numpy()).reshape(-1, len(found)).max(axis=0)
            np.maximum(found, each, out=found)
    for name, found in zip(names, largest, strict=True):
        bias = model.get_layer(name).get_weights()[1]
        found[found == 0] = np.abs(bias[found == 0])  # what keeps it behind its ReLU
    with np.errstate(divide="ignore"):
        return {name: np.log(found) for name, found in zip(names, largest, strict=True)}


@dataclass(frozen=True, eq=False)
class _Weights:
    """The weights of a layer, and between which channels they stand."""

    sizes: np.ndarray  # (inputs of a group, outputs): logarithms of the largest magnitudes
    reads: Channels  # (inputs,), one group after the other
    gives: Channels  # (outputs,)

    def between(self, factors: np.ndarray) -> np.ndarray:
        """(inputs of a group, groups, outputs of a group): what the factors do to the sizes."""
        groups = len(self.reads) // len(self.sizes)
        reads = factors[self.reads].reshape(groups, -1).T
        return reads[:, :, None] - factors[self.gives].reshape(groups, -1)

    def largest(self, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(inputs,) and (outputs,): the size of the largest weight of each, under the factors."""
        between = self.between(factors)
        sizes = self.sizes.reshape(between.shape) + between
        return sizes.max(axis=2).T.ravel(), sizes.max(axis=0).ravel()


class _Tracing:
    """Numbers the channels, and follows them from the weights that give to those that read them."""

    def __init__(self, model: keras.Model) -> None:
        self.size = 0
        self.weights: dict[str, _Weights] = {}
        self.kept: list[Channels] = []
        self.alike: list[np.ndarray] = []  # (2, n) each: channels of one factor
        values = keras_graph.interpret(model, self.visit)
        self.kept += [values[name] for name in model.output_names]

    def visit(self, layer: keras.layers.Layer, read: list[Channels]) -> Channels:
        """Returns the channels that a layer gives."""
        if (channels := permute(layer, read)) is not None:
            return channels
        channels = layer.output.shape[-1]
        match layer:
            case keras.layers.Conv2D() | keras.layers.DepthwiseConv2D() | keras.layers.Dense():
                return self.weighted(layer, read[0])
            case keras.layers.Reshape() if len(read[0]) % channels == 0:
                return self.met(list(read[0].reshape(-1, channels)))
            case keras.layers.Reshape() | keras.layers.Flatten() if channels % len(read[0]) == 0:
                return np.tile(read[0], channels // len(read[0]))
            case keras.layers.ReLU(max_value=None, threshold=0):
                return read[0]
            case keras.layers.Add():
                return self.met(read)
            case keras.layers.Multiply() if all(len(r) == channels for r in read):
                self.kept += read[1:]  # gates
                return read[0]
            case _ if isinstance(layer, SCALES_EACH):
                return read[0]
        self.kept += [*read, self.new(channels)]
        return self.kept[-1]

    def weighted(self, layer: keras.layers.Layer, read: Channels) -> Channels:
        kernel = layer.get_weights()[0].astype(np.float64)
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            kernel = kernel.swapaxes(2, 3)  # each channel is a group
        given = self.new(kernel.shape[-1])
        if layer.activation not in (keras.activations.linear, keras.activations.relu):
            self.kept.append(given)
        with np.errstate(divide="ignore"):
            sizes = np.log(np.abs(kernel).max(axis=tuple(range(kernel.ndim - 2))))
        self.weights[layer.name] = _Weights(sizes, read, given)
        return given

    def met(self, read: list[Channels]) -> Channels:
        first, *others = read
        self.alike += [np.stack([first, other]) for other in others]
        return first

    def new(self, number: int) -> Channels:
        self.size += number
        return np.arange(self.size - number, self.size)

    def factors(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """(size,): the logarithm of each channel's factor; `values` are the sizes of values."""
        least = connected(self.alike, size=self.size)
        kept = np.zeros(self.size, bool)
        kept[least[np.concatenate(self.kept)]] = True
        factors = np.zeros(self.size)
        for _ in range(ROUNDS):
            given, read = _Mean(self.size), _Mean(self.size)
            for name, weights in self.weights.items():
                inputs, outputs = weights.largest(factors)
                read.add(least[weights.reads], inputs)
                sizes = outputs + values[name] - factors[weights.gives]
                given.add(least[weights.gives], sizes / 2)
            free = ~kept & (given.number > 0) & (read.number > 0)
            change = np.zeros(self.size)
            change[free] = STEP * (given.mean(free) - read.mean(free)) / 2
            factors = (factors + change)[least]
            if np.abs(change).max() < CLOSE:
                break
        return factors


class _Mean:
    """Means of the sizes added for each channel; those of zero weights or values do not count."""

    def __init__(self, size: int) -> None:
        self.sum = np.zeros(size)
        self.number = np.zeros(size)

    def add(self, channels: Channels, sizes: np.ndarray) -> None:
        finite = np.isfinite(sizes)
        np.add.at(self.sum, channels[finite], sizes[finite])
        np.add.at(self.number, channels[finite], 1)

    def mean(self, which: np.ndarray) -> np.ndarray:
        return self.sum[which] / self.number[which]
