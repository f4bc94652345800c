"""Program -> deployment form: a Keras model, whose weights follow the order of channels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tf_keras as keras

from convert.lowering.channel_layout import Order
from convert.lowering.ir import (
    Affine,
    Channels,
    Convolution,
    ConvolutionAlongGroups,
    Depthwise,
    Each,
    Node,
    Program,
    Whole,
    places,
)
from keras_models.layers import ChannelSlice, Tensor

JOINED = 5  # tensors that XNNPACK can concatenate at once


def emit(program: Program, *, in_order: bool = False) -> keras.Model:
    """Builds the deployment form; nodes that nothing reads are left out.

    Args:
      program: What to build.
      in_order: Keep the channels of every tensor in the order in which the program gives them.
    """
    emission = _Emission(program, in_order=in_order)
    for node in _needed(program):
        emission.node(node)
    outputs = [emission.ordered(channels, name) for name, channels in program.outputs.items()]
    return keras.Model(emission.inputs, outputs, name=program.name)


@dataclass(frozen=True, eq=False)
class _Held:
    tensor: Tensor
    channels: Channels  # in the order in which the tensor holds them


class _Emission:
    def __init__(self, program: Program, *, in_order: bool) -> None:
        self.order = None if in_order else Order(program)
        self.inputs: list[Tensor] = []
        self.tensors: list[_Held] = []
        self.home = np.full(program.size, -1)  # channel: index of the tensor that holds it
        self.place = np.full(program.size, -1)  # and its place there
        self.gathers: dict[tuple[int, ...], _Held] = {}  # by their channels, sorted
        self.slices: dict[tuple[int, int, int], Tensor] = {}
        self.names: set[str] = set()

    def node(self, node: Node) -> None:
        match node:
            case Depthwise():
                self.depthwise(node)
            case ConvolutionAlongGroups():
                read = self.ordered(node.reads[0], node.name)
                _, height, width, channels = read.shape
                shape = (height, width * node.groups, channels // node.groups)
                view = keras.layers.Reshape(shape, name=self.unique(f"{node.name}_view"))(read)
                self.mixed(node, view, node.kernel)
            case Convolution(groups=1):
                read = self.gathered(node.reads[0], node.name)
                rows = node.kernel.shape[:-2]
                kernel = np.zeros((*rows, len(read.channels), len(node.gives)))
                for row, to in enumerate(places(node.reads[0], among=read.channels)):
                    kernel[..., to, :] += node.kernel[..., row, :]
                self.mixed(node, read.tensor, kernel)
            case Convolution():
                self.grouped(node)
            case Each():
                self.each(node)
            case Affine():
                self.affine(node)
            case Whole():
                read = [self.ordered(c, f"{node.name}_{i}") for i, c in enumerate(node.reads)]
                self.hold(self.copy(node, read), node.gives)

    def depthwise(self, node: Depthwise) -> None:
        read = self.gathered(node.reads[0], node.name)
        kept = places(read.channels, among=node.reads[0])
        tensor = self.convolution(node, read.tensor, node.kernel[:, :, kept], node.bias[kept])
        self.hold(tensor, node.gives[kept])

    def grouped(self, node: Convolution) -> None:
        blocks = node.reads[0].reshape(node.groups, -1)
        kernels = np.split(node.kernel, node.groups, axis=-1)
        inner = [self.easiest(block) for block in blocks]
        wanted = np.concatenate([block[i] for block, i in zip(blocks, inner, strict=True)])
        read = self.ordered(wanted, node.name)
        self.gathers.setdefault(_key(wanted), _Held(read, wanted))  # which others may read too
        ordered = [kernel[..., i, :] for kernel, i in zip(kernels, inner, strict=True)]
        self.mixed(node, read, np.concatenate(ordered, axis=-1))

    def mixed(self, node: Convolution, read: Tensor, kernel: np.ndarray) -> None:
        """A convolution that mixes channels, and so may give its own in any order."""
        given = np.arange(len(node.gives))
        if self.order and not node.in_order:
            blocks = given.reshape(node.groups, -1)
            given = np.concatenate([b[self.order.of(node.gives[b])] for b in blocks])
        tensor = self.convolution(node, read, kernel[..., given], node.bias[given])
        self.hold(tensor, node.gives[given])

    def each(self, node: Each) -> None:
        first, *others = node.reads
        read = self.gathered(first, node.name)
        kept = places(read.channels, among=first)
        more = [self.ordered(c[kept], f"{node.name}_{i}") for i, c in enumerate(others, start=1)]
        self.hold(self.copy(node, [read.tensor, *more]), node.gives[kept])

    def affine(self, node: Affine) -> None:
        """A depthwise convolution of one pixel."""
        read = self.gathered(node.reads[0], node.name)
        kept = places(read.channels, among=node.reads[0])
        x = read.tensor
        *_, channels = shape = x.shape[1:]
        if len(shape) == 1:
            x = keras.layers.Reshape((1, 1, channels), name=self.unique(f"{node.name}_pixel"))(x)
        layer = keras.layers.DepthwiseConv2D(1, name=self.unique(node.name))
        x = layer(x)
        layer.set_weights([node.factor[kept].reshape(1, 1, -1, 1), node.offset[kept]])
        if len(shape) == 1:
            x = keras.layers.Reshape((channels,), name=self.unique(f"{node.name}_vector"))(x)
        self.hold(x, node.gives[kept])

    def convolution(
        self, node: Convolution, read: Tensor, kernel: np.ndarray, bias: np.ndarray
    ) -> Tensor:
        config = {**node.config, "use_bias": True, "name": self.unique(node.name)}
        if not isinstance(node, Depthwise):
            config["units" if node.kind is keras.layers.Dense else "filters"] = len(bias)
        layer = node.kind.from_config(config)
        tensor = layer(read)
        layer.set_weights([kernel, bias])
        return tensor

    def copy(self, node: Each | Whole, inputs: Sequence[Tensor]) -> Tensor:
        """The node's layer, on other tensors."""
        layer = node.layer
        if isinstance(layer, keras.layers.InputLayer):
            self.inputs.append(keras.Input(layer.input_shape[0][1:], name=self.unique(node.name)))
            return self.inputs[-1]
        clone = type(layer).from_config(layer.get_config() | {"name": self.unique(node.name)})
        tensor = clone(inputs if len(inputs) > 1 else inputs[0])
        clone.set_weights(layer.get_weights())
        return tensor

    def hold(self, tensor: Tensor, channels: Channels) -> None:
        self.home[channels] = len(self.tensors)
        self.place[channels] = np.arange(len(channels))
        self.tensors.append(_Held(tensor, channels))

    def gathered(self, channels: Channels, reader: str) -> _Held:
        """A tensor of these channels, in whichever order costs least."""
        wanted = np.unique(channels)
        if _key(wanted) not in self.gathers:
            wanted = wanted[self.easiest(wanted)]
            self.gathers[_key(wanted)] = _Held(self.ordered(wanted, reader), wanted)
        return self.gathers[_key(wanted)]

    def easiest(self, channels: Channels) -> np.ndarray:
        """Indices that put the channels of each tensor together, as they stand there."""
        homes, which = np.unique(self.home[channels], return_inverse=True)
        first = homes  # the tensors' own order, or that of the first channel that each has
        if self.order:
            first = np.full(len(homes), np.iinfo(np.int64).max)
            np.minimum.at(first, which, self.order.rank[channels])
        return np.lexsort((self.place[channels], first[which]))

    def ordered(self, channels: Channels, reader: str) -> Tensor:
        """A tensor of these channels in this order; what no tensor holds so is copied together."""
        pieces = [self.slice(*run) for run in self.runs(channels)]
        while len(pieces) > JOINED:
            number = min(JOINED, len(pieces) - JOINED + 1)
            starts = range(len(pieces) - number + 1)
            sizes = [sum(p.shape[-1] for p in pieces[i : i + number]) for i in starts]
            i = int(np.argmin(sizes))  # these are copied twice
            pieces[i : i + number] = [self.concat(pieces[i : i + number], reader)]
        return self.concat(pieces, reader) if len(pieces) > 1 else pieces[0]

    def runs(self, channels: Channels) -> Iterator[tuple[int, int, int]]:
        """(tensor, start, stop) of the longest pieces that channels can be copied in."""
        home, place = self.home[channels], self.place[channels]
        breaks = np.flatnonzero((np.diff(home) != 0) | (np.diff(place) != 1)) + 1
        for run in np.split(np.arange(len(channels)), breaks):
            yield int(home[run[0]]), int(place[run[0]]), int(place[run[-1]]) + 1

    def slice(self, held: int, start: int, stop: int) -> Tensor:
        tensor = self.tensors[held].tensor
        if (start, stop) == (0, tensor.shape[-1]):
            return tensor
        if (held, start, stop) not in self.slices:
            name = self.unique(f"{tensor.node.layer.name}_{start}_{stop}")
            self.slices[held, start, stop] = ChannelSlice(start, stop, name=name)(tensor)
        return self.slices[held, start, stop]

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


def _needed(program: Program) -> Iterator[Node]:
    producers = program.producers()
    needed: set[int] = set()
    waiting = list(program.outputs.values())
    while waiting:
        for i in np.unique(producers[waiting.pop()]).tolist():
            if i not in needed:
                needed.add(i)
                waiting += program.nodes[i].reads
    for i, node in enumerate(program.nodes):
        if i in needed or node.name in program.inputs:
            yield node
