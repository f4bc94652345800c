"""The graph between the training form and the deployment form (intermediate representation).

Every channel of every output has a number. An operation's input is an array of such numbers, so a
shuffle, a split or a concat needs no operation: it is index arithmetic on arrays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tf_keras as keras

from keras_models.layers import ChannelShuffle, ChannelSlice

Channels = np.ndarray  # (n,) int64: channel numbers, in the order in which a layer reads them


@dataclass(eq=False, frozen=True)
class Op:
    """An operation: reads channels and computes others.

    Attributes:
      name: Name of its Keras layer.
      inputs: The channels of each input tensor.
      output: The channels that it computes.
      height: Height of the output in pixels; 1 for a vector.
    """

    name: str
    inputs: Sequence[Channels]
    output: Channels
    height: int = field(kw_only=True)


@dataclass(eq=False, frozen=True)
class Convolution(Op):
    """A convolution or fully connected layer; its weights can follow any order of channels."""

    layer_type: type[keras.layers.Layer]
    config: Mapping[str, Any]
    kernel: np.ndarray  # as in Keras: (h, w, in / groups, out), (h, w, in, 1) or (in, out)
    bias: np.ndarray
    fixed_order: bool = False  # the output's channels must keep their order

    @property
    def groups(self) -> int:
        """Number of groups; each reads only its part of the input channels."""
        return self.config.get("groups", 1)

    @property
    def is_linear(self) -> bool:
        """Whether the convolution has no activation."""
        return self.config["activation"] == "linear"

    def scaled(self, factor: np.ndarray, offset: np.ndarray) -> "Convolution":
        """Scales the output by `factor`, then adds `offset`; each is (channels,)."""
        return replace(self, kernel=self.kernel * factor, bias=self.bias * factor + offset)

    def activated(self, activation: str) -> "Convolution":
        """Adds an activation."""
        return replace(self, config={**self.config, "activation": activation})


@dataclass(eq=False, frozen=True)
class Depthwise(Convolution):
    """A depthwise convolution; its kernel is (h, w, channels, 1)."""

    def scaled(self, factor: np.ndarray, offset: np.ndarray) -> "Depthwise":
        """Scales the output by `factor`, then adds `offset`; each is (channels,)."""
        kernel = self.kernel * factor[:, None]
        return replace(self, kernel=kernel, bias=self.bias * factor + offset)


@dataclass(eq=False, frozen=True)
class StridedGroupConv(Convolution):
    """A grouped convolution whose window and stride are one pixel of each group.

    Its input, (h, w, groups * c) in fixed order, is viewed as an image (h, w * groups, c).
    """


@dataclass(eq=False, frozen=True)
class PerChannel(Op):
    """A layer that treats each channel alone (ReLU, pooling, Add, ...)."""

    layer: keras.layers.Layer


@dataclass(eq=False, frozen=True)
class ChannelScaleShift(Op):
    """Multiplies each channel by its factor and adds its offset; each is (channels,)."""

    factor: np.ndarray
    offset: np.ndarray


@dataclass(eq=False, frozen=True)
class Opaque(Op):
    """Any other layer: it is copied as it is, and its inputs keep their order of channels."""

    layer: keras.layers.Layer


@dataclass(frozen=True)
class Graph:
    """Operations in an order in which they can be computed."""

    ops: Sequence[Op]
    inputs: Sequence[str]  # names of operations
    outputs: Mapping[str, Channels]  # name of the layer: its channels
    name: str

    @property
    def size(self) -> int:
        """The largest channel number, plus one."""
        return 1 + max(int(op.output.max()) for op in self.ops)

    def producers(self) -> np.ndarray:
        """(size,) index of the operation that computes each channel; -1: none."""
        producers = np.full(self.size, -1)
        for i, op in enumerate(self.ops):
            producers[op.output] = i
        return producers

    def reader_counts(self) -> np.ndarray:
        """(size,) how many operations and outputs read each channel."""
        counts = np.zeros(self.size, np.int64)
        for op in self.ops:
            for channels in op.inputs:
                counts[np.unique(channels)] += 1
        for channels in self.outputs.values():
            counts[np.unique(channels)] += 1
        return counts


def positions(of: Channels, *, among: Channels) -> np.ndarray:
    """The index in `among` of each of the channels `of`."""
    by_number = np.argsort(among, kind="stable")
    return by_number[np.searchsorted(among, of, sorter=by_number)]


def is_channelwise(op: Op) -> bool:
    """Whether output channel i depends only on channel i of each input."""
    return isinstance(op, PerChannel | ChannelScaleShift | Depthwise)


def permute(layer: keras.layers.Layer, inputs: Sequence[Channels]) -> Channels | None:
    """The output of a layer that only moves channels; None for a layer that computes."""
    match layer:
        case ChannelSlice():
            return inputs[0][layer.start : layer.stop]
        case ChannelShuffle():
            return inputs[0].reshape(layer.groups, -1).T.ravel()
        case keras.layers.Concatenate(axis=-1 | 3):
            return np.concatenate(inputs)
    return None
