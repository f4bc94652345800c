"""Activation equalization: each channel fills the int8 range of its tensor, at no cost in the file.

The channels of a tensor share one int8 scale, so a channel of small values has few of the 256
steps. Here its layer's weights for it are multiplied by a factor of at least 1, and the weights
that read it are divided by that factor: the same function, as in cross-layer equalization
(https://arxiv.org/abs/1906.04721, Section 4.1). A depthwise kernel has one int8 scale per channel,
which takes the whole factor: its integers do not change. Where a convolution that mixes channels
reads the channel, its kernel becomes less even, and the root of the factor is the best compromise.

The factor leaves the least squared error, so it may clip a few outliers; if ranges are to hold all
values, it does not. A ReLU6 clips a scaled channel at 6, which the range does already. Channels
that are read by anything without weights (a sum, a global pooling) keep their factor of 1, and
those that share a range aim at all of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tf_keras as keras

from convert import keras_graph
from convert.calibration_data import Inputs
from convert.lowering.ir import Channels, permute
from convert.lowering.layers import RowPadding
from convert.quantization.tfmot_config import CONVOLVING

MIXING_EXPONENT = 0.5  # of the factor, where a convolution mixes the channel with others
OCTAVES = 6  # so the largest factor is 64
MANTISSA_BITS = 5  # so an octave has 32 bins, of equal width
KEEPS_VALUES = (keras.layers.MaxPooling2D, keras.layers.ZeroPadding2D, RowPadding)
SCALABLE = ("linear", "relu", "relu6")
TINY = 1e-30  # what is below is zero


def equalize_activations(
    model: keras.Model, groups: Sequence[Sequence[str]], inputs: Inputs, *, clip: bool
) -> keras.Model:
    """Returns an equalized deployment form: the same function, except for what int8 clips.

    Args:
      model: The deployment form.
      groups: The layers that share a range, from `quantize.shared_ranges`.
      inputs: Inputs to measure the values of channels on.
      clip: Choose the factors of least squared error. Otherwise no value of `inputs` is clipped.
    """
    tracing = _Tracing(model)
    exponents = tracing.exponents()
    names = [name for name, w in tracing.weights.items() if exponents[w.outputs].any()]
    if not names:
        return model
    factors = np.ones(tracing.size)
    for name, histogram in _histograms(model, names, groups, inputs).items():
        outputs = tracing.weights[name].outputs
        factors[outputs] = histogram.factors(clip=clip) ** exponents[outputs]
    equalized = keras_graph.copy_model(model)
    for name, weights in tracing.weights.items():
        kernel, bias = model.get_layer(name).get_weights()
        scale = factors[weights.outputs]
        along = scale.reshape(kernel.shape[-2:]) if weights.is_depthwise else scale
        equalized.get_layer(name).set_weights(
            [kernel * (along / factors[weights.inputs]), bias * scale]
        )
    return equalized


@dataclass(frozen=True, eq=False)
class _Weights:
    """The channels that a layer's weights connect."""

    inputs: Channels  # the channel that each weight of the kernel reads; broadcasts to its shape
    outputs: Channels  # (outputs,)
    is_depthwise: bool


class _Tracing:
    """Numbers the channels, and follows them from the weights that compute to those that read.

    A tensor's values are those of its channels in turn, over and over. Reshapes keep that order, so
    the channels of a tensor are those of the one before a reshape, whatever its last dimension is.
    """

    def __init__(self, model: keras.Model) -> None:
        self.size = 0
        self.weights: dict[str, _Weights] = {}
        self.fixed: list[Channels] = []  # channels that keep their values
        values = keras_graph.interpret(model, self.visit)
        self.fixed += [values[name] for name in model.output_names]

    def visit(self, layer: keras.layers.Layer, inputs: list[Channels]) -> Channels:
        """Returns the channels of a layer's output."""
        if isinstance(layer, keras.layers.Reshape):
            return inputs[0]
        shapes = layer.input_shape if len(inputs) > 1 else [layer.input_shape]
        if all(len(x) == shape[-1] for x, shape in zip(inputs, shapes, strict=False)):
            if (moved := permute(layer, inputs)) is not None:
                return moved
            if isinstance(layer, KEEPS_VALUES):
                return inputs[0]
        outputs = np.arange(self.size, self.size + layer.output.shape[-1])
        self.size += len(outputs)
        if (read := _read_by_weights(layer, inputs)) is None:
            self.fixed += [*inputs, outputs]
            return outputs
        is_depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        self.weights[layer.name] = _Weights(read, outputs, is_depthwise)
        if layer.get_config()["activation"] not in SCALABLE:
            self.fixed.append(outputs)
        return outputs

    def exponents(self) -> np.ndarray:
        """(size,): 0 for channels that keep their values, 1 for those that all readers take."""
        exponents = np.ones(self.size)
        for weights in self.weights.values():
            if not weights.is_depthwise:
                exponents[weights.inputs] = MIXING_EXPONENT
        exponents[np.concatenate(self.fixed)] = 0
        return exponents


def _read_by_weights(layer: keras.layers.Layer, inputs: Sequence[Channels]) -> Channels | None:
    """The channel that each weight of a layer's kernel reads; None: that cannot be told."""
    if type(layer) not in CONVOLVING:  # not a subclass either: its kernel may have other axes
        return None
    (channels,), last = inputs, layer.input.shape[-1]
    if isinstance(layer, keras.layers.Dense):
        if last % len(channels):
            return None
        return np.tile(channels, last // len(channels))[:, None]
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return channels[:, None] if len(channels) == last else None
    pixels = len(channels) // last  # that hold one pixel of the tensor before the reshape
    is_window = layer.kernel_size == layer.strides == (1, pixels)
    if pixels * last != len(channels) or not (pixels == 1 or is_window):
        return None
    groups, outputs = layer.groups, layer.filters
    by_group = channels.reshape(pixels, groups, last // groups)
    return np.repeat(by_group, outputs // groups, axis=1).swapaxes(1, 2)[None]


def _histograms(
    model: keras.Model, names: Sequence[str], groups: Sequence[Sequence[str]], inputs: Inputs
) -> Mapping[str, "_Histogram"]:
    """Layer -> the values of its channels, as fractions of the range of their tensor."""
    groups = [group for group in groups if set(group) & set(names)]
    limits = _limits(model, [name for group in groups for name in group], inputs)
    range_of = {
        name: (min(limits[n][0].min() for n in group), max(limits[n][1].max() for n in group))
        for group in groups
        for name in group
    }
    # Limits that are not finite are left to `observe`, which says so.
    names = [name for name in names if TINY < np.abs(range_of[name]).max() < np.inf]
    histograms = {name: _Histogram(*range_of[name], *limits[name]) for name in names}
    for name, values in _outputs(model, names, inputs):
        histograms[name].add(values)
    return histograms


def _outputs(
    model: keras.Model, names: Sequence[str], inputs: Inputs
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (layer, (n, channels)), for each batch of inputs and each layer."""
    probe = keras.Model(model.inputs, [model.get_layer(name).output for name in names])
    for outputs in inputs.outputs_of(probe):
        for name, values in zip(names, outputs, strict=True):
            yield name, values.reshape(-1, values.shape[-1])


def _limits(
    model: keras.Model, names: Sequence[str], inputs: Inputs
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Layer -> the lowest and highest value of each channel, zero included; (channels,) each."""
    limits: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, values in _outputs(model, names, inputs):
        low, high = limits.get(name, (0.0, 0.0))
        limits[name] = np.minimum(low, values.min(axis=0)), np.maximum(high, values.max(axis=0))
    return limits


class _Histogram:
    """Counts of the values of each channel of a tensor, as fractions of its range.

    Positive values are fractions of the range's upper limit, negative ones of its lower limit.
    """

    def __init__(self, low: float, high: float, lowest: np.ndarray, highest: np.ndarray) -> None:
        """`lowest`, `highest`: the limits of each channel, (channels,)."""
        self.limits = [limit for limit in (high, low) if abs(limit) > TINY]
        self.step = (high - low) / 255
        extremes = [x / limit for x, limit in ((highest, high), (lowest, low)) if abs(limit) > TINY]
        self.largest = np.max(extremes, axis=0)
        # one bin more in front, for zeros, and for the values of the other sign
        bins = 1 + (OCTAVES << MANTISSA_BITS)
        self.counts = np.zeros((len(self.limits), len(lowest), bins), np.int64)

    def add(self, values: np.ndarray) -> None:
        """Counts values, (n, channels) float32."""
        channels, size = self.counts.shape[1:]
        first = (127 - OCTAVES) << MANTISSA_BITS  # the exponent of 1.0 is stored as 127
        for counts, limit in zip(self.counts, self.limits, strict=True):
            fractions = values * np.float32(1 / limit)
            bins = fractions.view(np.int32) >> (23 - MANTISSA_BITS)
            np.clip(bins, first, first + size - 2, out=bins)
            bins -= first - 1
            bins[~(fractions > 0)] = 0
            bins += size * np.arange(channels, dtype=np.int32)
            counts += np.bincount(bins.ravel(), minlength=counts.size).reshape(counts.shape)

    def factors(self, *, clip: bool) -> np.ndarray:
        """(channels,): from 1 to 64; see `equalize_activations`."""
        largest = self._best_tops() if clip else self.largest
        return np.where(self.largest > 0, 1 / np.clip(largest, 2.0**-OCTAVES, 1), 1.0)

    def _best_tops(self) -> np.ndarray:
        """(channels,): the fraction of the range to clip at for the least squared error."""
        octaves = 2.0 ** np.arange(-OCTAVES, 0)
        within = np.linspace(1, 2, 1 + 2**MANTISSA_BITS)
        tops = np.append(np.outer(octaves, within[:-1]), 1.0)  # of the values that int8 holds
        centers = (tops[:-1] + tops[1:]) / 2
        clipped = np.maximum(centers[:, None] - tops, 0) ** 2  # (bins, tops)
        counts = self.counts[:, :, 1:]
        error = counts.sum(axis=(0, 2))[:, None] * (self.step * tops) ** 2 / 12
        for side, limit in zip(counts, self.limits, strict=True):
            error += side @ clipped * limit**2
        return np.minimum(tops[error.argmin(axis=1)], self.largest)
