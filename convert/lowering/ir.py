"""What a network computes, channel by channel: the form between training and deployment.

Every channel that a node gives has a number.  What a node reads is an array of such numbers, so
that a shuffle, a split or a concat is no node at all: it is arithmetic on arrays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tf_keras as keras

from keras_models.layers import ChannelShuffle, ChannelSlice

Channels = np.ndarray  # (n,) int64: numbers of channels, in the order in which they are meant


@dataclass(eq=False, frozen=True)
class Node:
    """A step: reads channels, gives others.

    Attributes:
      name: Name of its layer.
      reads: What each of its inputs is made of.
      gives: Numbers of the channels of its output.
      side: Height of its output in pixels; 1 where it has none.
    """

    name: str
    reads: Sequence[Channels]
    gives: Channels
    side: int = field(kw_only=True)


@dataclass(eq=False, frozen=True)
class Convolution(Node):
    """A convolution or fully connected layer; absorbs any order of what it reads and gives."""

    kind: type[keras.layers.Layer]
    config: Mapping[str, Any]
    kernel: np.ndarray  # as Keras has it: (h, w, in / groups, out), (h, w, in, 1) or (in, out)
    bias: np.ndarray
    in_order: bool = False  # what it gives must stay in its order

    @property
    def groups(self) -> int:
        """Parts that see only their part of the channels read."""
        return self.config.get("groups", 1)

    @property
    def is_linear(self) -> bool:
        """Whether no activation is part of it."""
        return self.config["activation"] == "linear"

    def scaled(self, factor: np.ndarray, offset: np.ndarray) -> "Convolution":
        """Gives `factor` times as much, and `offset` more; each is (channels,)."""
        return replace(self, kernel=self.kernel * factor, bias=self.bias * factor + offset)

    def activated(self, activation: str) -> "Convolution":
        """Ends in `activation`."""
        return replace(self, config={**self.config, "activation": activation})


@dataclass(eq=False, frozen=True)
class Depthwise(Convolution):
    """A convolution of each channel with itself; its kernel is (h, w, channels, 1)."""

    def scaled(self, factor: np.ndarray, offset: np.ndarray) -> "Depthwise":
        """As for any convolution."""
        kernel = self.kernel * factor[:, None]
        return replace(self, kernel=kernel, bias=self.bias * factor + offset)


@dataclass(eq=False, frozen=True)
class ConvolutionAlongGroups(Convolution):
    """A convolution whose window covers as many pixels side by side as there are groups.

    Each pixel of what it reads, channels in their order, is one pixel for every group.
    """


@dataclass(eq=False, frozen=True)
class Each(Node):
    """A layer that does the same to each channel, whatever the others hold."""

    layer: keras.layers.Layer


@dataclass(eq=False, frozen=True)
class Affine(Node):
    """Multiplies each channel by its factor and adds its offset; each is (channels,)."""

    factor: np.ndarray
    offset: np.ndarray


@dataclass(eq=False, frozen=True)
class Whole(Node):
    """Any other layer: it needs its channels in their order, and is copied as it is."""

    layer: keras.layers.Layer


@dataclass(frozen=True)
class Program:
    """Nodes in an order in which they can be computed, and what leaves the network."""

    nodes: Sequence[Node]
    inputs: Sequence[str]  # names of nodes
    outputs: Mapping[str, Channels]  # name of the layer: its channels
    name: str

    @property
    def size(self) -> int:
        """One more than the largest number of a channel."""
        return 1 + max(int(node.gives.max()) for node in self.nodes)

    def producers(self) -> np.ndarray:
        """(size,) indices of the nodes that give each channel; -1 where none does."""
        found = np.full(self.size, -1)
        for i, node in enumerate(self.nodes):
            found[node.gives] = i
        return found

    def readers(self) -> np.ndarray:
        """(size,) how many nodes and outputs read each channel."""
        found = np.zeros(self.size, np.int64)
        for node in self.nodes:
            for channels in node.reads:
                found[np.unique(channels)] += 1
        for channels in self.outputs.values():
            found[np.unique(channels)] += 1
        return found


def places(of: Channels, *, among: Channels) -> np.ndarray:
    """Where `among` has each of the channels `of`."""
    by_number = np.argsort(among, kind="stable")
    return by_number[np.searchsorted(among, of, sorter=by_number)]


def keeps_apart(node: Node) -> bool:
    """Whether each channel that the node gives comes of the one in its place in each input."""
    return isinstance(node, Each | Affine | Depthwise)


def moved(layer: keras.layers.Layer, read: Sequence[Channels]) -> Channels | None:
    """What a layer gives that only moves channels; None for one that computes."""
    match layer:
        case ChannelSlice():
            return read[0][layer.start : layer.stop]
        case ChannelShuffle():
            return read[0].reshape(layer.groups, -1).T.ravel()
        case keras.layers.Concatenate(axis=-1 | 3):
            return np.concatenate(read)
    return None
