"""Graph -> deployment form: a Keras model whose weights follow the channel layout."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tf_keras as keras

from convert.lowering.channel_layout import ChannelLayout
from convert.lowering.ir import (
    Channels,
    ChannelScaleShift,
    Convolution,
    Depthwise,
    Graph,
    Op,
    Opaque,
    PerChannel,
    StridedGroupConv,
    positions,
)
from keras_models.layers import ChannelSlice, Tensor

MAX_CONCAT = 5  # tensors that XNNPACK can concatenate at once


def build_model(graph: Graph, *, keep_order: bool = False) -> keras.Model:
    """Builds the deployment form; leaves out operations that nothing reads.

    Args:
      graph: What to build.
      keep_order: Keep the order of channels of every tensor as it is in the graph.
    """
    builder = _Builder(graph, keep_order=keep_order)
    for op in _needed(graph):
        builder.build(op)
    outputs = [builder.ordered(channels, name) for name, channels in graph.outputs.items()]
    return keras.Model(builder.inputs, outputs, name=graph.name)


@dataclass(frozen=True, eq=False)
class _Stored:
    tensor: Tensor
    channels: Channels  # in the order in which the tensor holds them


class _Builder:
    def __init__(self, graph: Graph, *, keep_order: bool) -> None:
        self.layout = None if keep_order else ChannelLayout(graph)
        self.inputs: list[Tensor] = []
        self.tensors: list[_Stored] = []
        self.tensor_of = np.full(graph.size, -1)  # channel: index of the tensor that holds it
        self.index_in = np.full(graph.size, -1)  # channel: its index in that tensor
        self.gathers: dict[tuple[int, ...], _Stored] = {}  # by their channels, sorted
        self.slices: dict[tuple[int, int, int], Tensor] = {}
        self.names: set[str] = set()

    def build(self, op: Op) -> None:
        match op:
            case Depthwise():
                self.depthwise(op)
            case StridedGroupConv():
                x = self.ordered(op.inputs[0], op.name)
                _, height, width, channels = x.shape
                shape = (height, width * op.groups, channels // op.groups)
                view = keras.layers.Reshape(shape, name=self.unique(f"{op.name}_view"))(x)
                self.mixing(op, view, op.kernel)
            case Convolution(groups=1):
                x = self.gathered(op.inputs[0], op.name)
                window = op.kernel.shape[:-2]
                kernel = np.zeros((*window, len(x.channels), len(op.output)))
                for row, to in enumerate(positions(op.inputs[0], among=x.channels)):
                    kernel[..., to, :] += op.kernel[..., row, :]
                self.mixing(op, x.tensor, kernel)
            case Convolution():
                self.grouped(op)
            case PerChannel():
                self.per_channel(op)
            case ChannelScaleShift():
                self.scale_shift(op)
            case Opaque():
                inputs = [self.ordered(c, f"{op.name}_{i}") for i, c in enumerate(op.inputs)]
                self.store(self.copy(op, inputs), op.output)

    def depthwise(self, op: Depthwise) -> None:
        x = self.gathered(op.inputs[0], op.name)
        order = positions(x.channels, among=op.inputs[0])
        tensor = self.convolution(op, x.tensor, op.kernel[:, :, order], op.bias[order])
        self.store(tensor, op.output[order])

    def grouped(self, op: Convolution) -> None:
        blocks = op.inputs[0].reshape(op.groups, -1)
        kernels = np.split(op.kernel, op.groups, axis=-1)
        orders = [self.cheapest_order(block) for block in blocks]
        channels = np.concatenate([block[i] for block, i in zip(blocks, orders, strict=True)])
        x = self.ordered(channels, op.name)
        self.gathers.setdefault(_key(channels), _Stored(x, channels))  # others may read it too
        kernel = [kernel[..., i, :] for kernel, i in zip(kernels, orders, strict=True)]
        self.mixing(op, x, np.concatenate(kernel, axis=-1))

    def mixing(self, op: Convolution, x: Tensor, kernel: np.ndarray) -> None:
        """A convolution that mixes channels, so its output can have any order."""
        order = np.arange(len(op.output))
        if self.layout and not op.fixed_order:
            blocks = order.reshape(op.groups, -1)
            order = np.concatenate([b[self.layout.argsort(op.output[b])] for b in blocks])
        tensor = self.convolution(op, x, kernel[..., order], op.bias[order])
        self.store(tensor, op.output[order])

    def per_channel(self, op: PerChannel) -> None:
        first, *others = op.inputs
        x = self.gathered(first, op.name)
        order = positions(x.channels, among=first)
        more = [self.ordered(c[order], f"{op.name}_{i}") for i, c in enumerate(others, start=1)]
        self.store(self.copy(op, [x.tensor, *more]), op.output[order])

    def scale_shift(self, op: ChannelScaleShift) -> None:
        """As a 1x1 depthwise convolution."""
        gathered = self.gathered(op.inputs[0], op.name)
        order = positions(gathered.channels, among=op.inputs[0])
        x = gathered.tensor
        *_, channels = shape = x.shape[1:]
        if len(shape) == 1:
            x = keras.layers.Reshape((1, 1, channels), name=self.unique(f"{op.name}_pixel"))(x)
        layer = keras.layers.DepthwiseConv2D(1, name=self.unique(op.name))
        x = layer(x)
        layer.set_weights([op.factor[order].reshape(1, 1, -1, 1), op.offset[order]])
        if len(shape) == 1:
            x = keras.layers.Reshape((channels,), name=self.unique(f"{op.name}_vector"))(x)
        self.store(x, op.output[order])

    def convolution(
        self, op: Convolution, x: Tensor, kernel: np.ndarray, bias: np.ndarray
    ) -> Tensor:
        config = {**op.config, "use_bias": True, "name": self.unique(op.name)}
        if not isinstance(op, Depthwise):
            config["units" if op.layer_type is keras.layers.Dense else "filters"] = len(bias)
        layer = op.layer_type.from_config(config)
        tensor = layer(x)
        layer.set_weights([kernel, bias])
        return tensor

    def copy(self, op: PerChannel | Opaque, inputs: Sequence[Tensor]) -> Tensor:
        """The operation's layer, applied to other tensors."""
        layer = op.layer
        if isinstance(layer, keras.layers.InputLayer):
            self.inputs.append(keras.Input(layer.input_shape[0][1:], name=self.unique(op.name)))
            return self.inputs[-1]
        clone = type(layer).from_config(layer.get_config() | {"name": self.unique(op.name)})
        tensor = clone(inputs if len(inputs) > 1 else inputs[0])
        clone.set_weights(layer.get_weights())
        return tensor

    def store(self, tensor: Tensor, channels: Channels) -> None:
        self.tensor_of[channels] = len(self.tensors)
        self.index_in[channels] = np.arange(len(channels))
        self.tensors.append(_Stored(tensor, channels))

    def gathered(self, channels: Channels, reader: str) -> _Stored:
        """A tensor of these channels, in the order that costs least."""
        channels = np.unique(channels)
        if _key(channels) not in self.gathers:
            channels = channels[self.cheapest_order(channels)]
            self.gathers[_key(channels)] = _Stored(self.ordered(channels, reader), channels)
        return self.gathers[_key(channels)]

    def cheapest_order(self, channels: Channels) -> np.ndarray:
        """Indices that group channels by the tensor that holds them, in its order."""
        tensors, which = np.unique(self.tensor_of[channels], return_inverse=True)
        first = tensors  # tensors in the order built, or by the rank of their first channel
        if self.layout:
            first = np.full(len(tensors), np.iinfo(np.int64).max)
            np.minimum.at(first, which, self.layout.rank[channels])
        return np.lexsort((self.index_in[channels], first[which]))

    def ordered(self, channels: Channels, reader: str) -> Tensor:
        """A tensor of these channels in this order: an existing one, or slices and a concat."""
        pieces = [self.slice(*run) for run in self.runs(channels)]
        while len(pieces) > MAX_CONCAT:
            number = min(MAX_CONCAT, len(pieces) - MAX_CONCAT + 1)
            starts = range(len(pieces) - number + 1)
            sizes = [sum(p.shape[-1] for p in pieces[i : i + number]) for i in starts]
            i = int(np.argmin(sizes))  # these are copied twice
            pieces[i : i + number] = [self.concat(pieces[i : i + number], reader)]
        return self.concat(pieces, reader) if len(pieces) > 1 else pieces[0]

    def runs(self, channels: Channels) -> Iterator[tuple[int, int, int]]:
        """(tensor, start, stop) of the longest contiguous runs that make up `channels`."""
        tensor, index = self.tensor_of[channels], self.index_in[channels]
        breaks = np.flatnonzero((np.diff(tensor) != 0) | (np.diff(index) != 1)) + 1
        for run in np.split(np.arange(len(channels)), breaks):
            yield int(tensor[run[0]]), int(index[run[0]]), int(index[run[-1]]) + 1

    def slice(self, number: int, start: int, stop: int) -> Tensor:
        tensor = self.tensors[number].tensor
        if (start, stop) == (0, tensor.shape[-1]):
            return tensor
        if (number, start, stop) not in self.slices:
            name = self.unique(f"{tensor.node.layer.name}_{start}_{stop}")
            self.slices[number, start, stop] = ChannelSlice(start, stop, name=name)(tensor)
        return self.slices[number, start, stop]

    def concat(self, pieces: Sequence[Tensor], reader: str) -> Tensor:
        return keras.layers.Concatenate(name=self.unique(f"{reader}_concat"))(pieces)

    def unique(self, name: str) -> str:
        number, free = 1, name
        while free in self.names:
            number, free = number + 1, f"{name}_{number}"
        self.names.add(free)
        return free


def _key(channels: Channels) -> tuple[int, ...]:
    return tuple(np.sort(channels).tolist())


def _needed(graph: Graph) -> Iterator[Op]:
    producers = graph.producers()
    needed: set[int] = set()
    pending = list(graph.outputs.values())
    while pending:
        for i in np.unique(producers[pending.pop()]).tolist():
            if i not in needed:
                needed.add(i)
                pending += graph.ops[i].inputs
    for i, op in enumerate(graph.ops):
        if i in needed or op.name in graph.inputs:
            yield op
