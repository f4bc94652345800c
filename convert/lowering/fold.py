"""What a convolution can do beside its own work: paddings, batch norms and activations."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import tf_keras as keras

from convert.lowering.ir import Affine, Channels, Convolution, Each, Node, Program
from convert.lowering.layers import RowPadding


def fold(program: Program, *, plain: bool = False) -> Program:
    """Returns the same function in fewer nodes.

    Args:
      program: What `read` gives.
      plain: Keep explicit paddings of poolings as they are.
    """
    folding = _Folding(program, plain=plain)
    for node in program.nodes:
        folding.visit(node)
    outputs = {name: folding.stands_for[c] for name, c in program.outputs.items()}
    return replace(program, nodes=folding.nodes, outputs=outputs)


class _Folding:
    def __init__(self, program: Program, *, plain: bool) -> None:
        self.plain = plain
        self.nodes: list[Node] = []
        self.producer = np.full(program.size, -1)  # channel: index of its node in `nodes`
        self.stands_for = np.arange(program.size)  # a channel that vanished: whose values it has
        self.readers = program.readers()

    def visit(self, node: Node) -> None:
        node = replace(node, reads=[self.stands_for[channels] for channels in node.reads])
        match node:
            case Affine():
                self.affine(node)
            case Each(layer=keras.layers.ReLU()):
                self.relu(node)
            case Convolution(kind=keras.layers.Dense):
                self.keep(node)
            case Convolution(config={"padding": "valid"}):
                self.padded_convolution(node)
            case Each(layer=keras.layers.MaxPooling2D(padding="valid")) if not self.plain:
                self.padded_pooling(node)
            case _:
                self.keep(node)

    def keep(self, node: Node) -> None:
        self.producer[node.gives] = len(self.nodes)
        self.nodes.append(node)

    def vanish(self, gone: Channels, values: Channels) -> None:
        self.stands_for[gone] = values
        self.readers[values] += self.readers[gone] - 1

    def affine(self, node: Affine) -> None:
        (read,) = node.reads
        parts = list(self.by_producer(read))
        if not all(self.is_open(i, read[mask]) for i, mask in parts):
            self.keep(node)
            return
        for i, mask in parts:
            convolution = self.nodes[i]
            assert isinstance(convolution, Convolution)
            factor, offset = np.ones(len(convolution.gives)), np.zeros(len(convolution.gives))
            places = read[mask] - convolution.gives[0]
            factor[places], offset[places] = node.factor[mask], node.offset[mask]
            self.nodes[i] = convolution.scaled(factor, offset)
        self.vanish(node.gives, read)

    def relu(self, node: Each) -> None:
        """A ReLU of several nodes' channels is a ReLU of each."""
        (read,) = node.reads
        parts = list(self.by_producer(read))
        for number, (i, mask) in enumerate(parts):
            if _is_clipped(self.nodes[i], node.layer):
                self.vanish(node.gives[mask], read[mask])
            elif (
                _fuses(node.layer)
                and self.is_open(i, read[mask])
                and mask.sum() == len(self.nodes[i].gives)
            ):
                convolution = self.nodes[i]
                assert isinstance(convolution, Convolution)
                self.nodes[i] = convolution.activated(_fused_name(node.layer))
                self.vanish(node.gives[mask], read[mask])
            else:
                name = node.name if len(parts) == 1 else f"{node.name}_{number}"
                self.keep(replace(node, name=name, reads=[read[mask]], gives=node.gives[mask]))

    def padded_convolution(self, node: Convolution) -> None:
        size = node.config["kernel_size"]
        dilation = node.config.get("dilation_rate", (1, 1))
        found = self.padding(node.reads[0])
        if found:
            layer, read = found
            if _is_same_padding(layer, size, node.config["strides"], dilation):
                node = replace(node, reads=[read], config={**node.config, "padding": "same"})
        self.keep(node)

    def padded_pooling(self, node: Each) -> None:
        found = self.padding(node.reads[0])
        if found:
            padding, read = found
            layer = node.layer
            if _is_same_padding(padding, layer.pool_size, layer.strides, (1, 1)):
                layer = type(layer).from_config(layer.get_config() | {"padding": "same"})
                node = replace(node, reads=[read], layer=layer)
            else:
                rows = RowPadding(padding.padding, name=padding.name)
                side = padding.output.shape[1]
                self.keep(Each(rows.name, [read], node.reads[0], side=side, layer=rows))
        self.keep(node)

    def padding(self, read: Channels) -> tuple[keras.layers.ZeroPadding2D, Channels] | None:
        """The layer that pads all of these channels, and the channels that it pads."""
        i = self.producer[read[0]]
        pad = self.nodes[i]
        if not (isinstance(pad, Each) and isinstance(pad.layer, keras.layers.ZeroPadding2D)):
            return None
        if len(read) != len(pad.gives) or not np.array_equal(read, pad.gives):
            return None
        return pad.layer, pad.reads[0]

    def by_producer(self, read: Channels) -> Iterator[tuple[int, np.ndarray]]:
        """Indices of the nodes that give the channels, each with a mask of those it gives."""
        producers = self.producer[read]
        for i in np.unique(producers):
            yield int(i), producers == i

    def is_open(self, i: int, read: Channels) -> bool:
        """Whether what follows these channels of a node may become part of it."""
        node = self.nodes[i]
        once = len(np.unique(read)) == len(read) and bool(np.all(self.readers[read] == 1))
        return once and isinstance(node, Convolution) and node.is_linear


def _is_same_padding(
    layer: keras.layers.ZeroPadding2D,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilation: tuple[int, int],
) -> bool:
    """Whether TensorFlow's own padding, which costs nothing, puts the same zeros there."""
    sides = zip(layer.input_shape[1:3], layer.padding, kernel, strides, dilation, strict=True)
    return all(_is_same_padding_of_side(*side) for side in sides)


def _is_same_padding_of_side(
    side: int, zeros: tuple[int, int], kernel: int, stride: int, dilation: int
) -> bool:
    reach = dilation * (kernel - 1) + 1
    outputs = -(-side // stride)
    missing = max((outputs - 1) * stride + reach - side, 0)
    return zeros[0] == missing // 2 and outputs == (side + sum(zeros) - reach) // stride + 1


def _is_clipped(node: Node, relu: keras.layers.ReLU) -> bool:
    """Whether what the node gives is so already, and a ReLU does nothing more to it."""
    enough = ("relu6",) if relu.max_value else ("relu", "relu6")
    return _fuses(relu) and isinstance(node, Convolution) and node.config["activation"] in enough


def _fuses(relu: keras.layers.ReLU) -> bool:
    return relu.max_value in (None, 6.0) and not relu.negative_slope and not relu.threshold


def _fused_name(relu: keras.layers.ReLU) -> str:
    return "relu6" if relu.max_value else "relu"
