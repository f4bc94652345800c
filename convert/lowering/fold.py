"""Folds padding, batch norms and activations into convolutions."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import tf_keras as keras

from convert.lowering.ir import Channels, ChannelScaleShift, Convolution, Graph, Op, PerChannel
from convert.lowering.layers import RowPadding


def fold(graph: Graph, *, plain: bool = False) -> Graph:
    """Returns a graph that computes the same with fewer operations.

    Args:
      graph: From `read_graph`.
      plain: Keep the explicit padding of pooling layers.
    """
    folding = _Folding(graph, plain=plain)
    for op in graph.ops:
        folding.visit(op)
    outputs = {name: folding.alias[c] for name, c in graph.outputs.items()}
    return replace(graph, ops=folding.ops, outputs=outputs)


class _Folding:
    def __init__(self, graph: Graph, *, plain: bool) -> None:
        self.plain = plain
        self.ops: list[Op] = []
        self.producer = np.full(graph.size, -1)  # channel: index of its operation in `ops`
        self.alias = np.arange(graph.size)  # channel of a folded operation: the one that holds it
        self.reader_counts = graph.reader_counts()

    def visit(self, op: Op) -> None:
        op = replace(op, inputs=[self.alias[channels] for channels in op.inputs])
        match op:
            case ChannelScaleShift():
                self.scale_shift(op)
            case PerChannel(layer=keras.layers.ReLU()):
                self.relu(op)
            case Convolution(layer_type=keras.layers.Dense):
                self.keep(op)
            case Convolution(config={"padding": "valid"}):
                self.padded_convolution(op)
            case PerChannel(layer=keras.layers.MaxPooling2D(padding="valid")) if not self.plain:
                self.padded_pooling(op)
            case _:
                self.keep(op)

    def keep(self, op: Op) -> None:
        self.producer[op.output] = len(self.ops)
        self.ops.append(op)

    def replace_channels(self, folded: Channels, values: Channels) -> None:
        """Lets the readers of `folded` read `values`."""
        self.alias[folded] = values
        self.reader_counts[values] += self.reader_counts[folded] - 1

    def scale_shift(self, op: ChannelScaleShift) -> None:
        (channels,) = op.inputs
        parts = list(self.by_producer(channels))
        if not all(self.accepts(i, channels[mask]) for i, mask in parts):
            self.keep(op)
            return
        for i, mask in parts:
            convolution = self.ops[i]
            assert isinstance(convolution, Convolution)
            factor, offset = np.ones(len(convolution.output)), np.zeros(len(convolution.output))
            at = channels[mask] - convolution.output[0]
            factor[at], offset[at] = op.factor[mask], op.offset[mask]
            self.ops[i] = convolution.scaled(factor, offset)
        self.replace_channels(op.output, channels)

    def relu(self, op: PerChannel) -> None:
        """Splits a ReLU on channels of several operations into one ReLU for each."""
        (channels,) = op.inputs
        parts = list(self.by_producer(channels))
        for number, (i, mask) in enumerate(parts):
            if _is_clipped(self.ops[i], op.layer):
                self.replace_channels(op.output[mask], channels[mask])
            elif (
                _is_fusible(op.layer)
                and self.accepts(i, channels[mask])
                and mask.sum() == len(self.ops[i].output)
            ):
                convolution = self.ops[i]
                assert isinstance(convolution, Convolution)
                self.ops[i] = convolution.activated(_activation(op.layer))
                self.replace_channels(op.output[mask], channels[mask])
            else:
                name = op.name if len(parts) == 1 else f"{op.name}_{number}"
                self.keep(replace(op, name=name, inputs=[channels[mask]], output=op.output[mask]))

    def padded_convolution(self, op: Convolution) -> None:
        kernel = op.config["kernel_size"]
        dilation = op.config.get("dilation_rate", (1, 1))
        if padding := self.padding(op.inputs[0]):
            layer, unpadded = padding
            if _is_same_padding(layer, kernel, op.config["strides"], dilation):
                op = replace(op, inputs=[unpadded], config={**op.config, "padding": "same"})
        self.keep(op)

    def padded_pooling(self, op: PerChannel) -> None:
        if padding := self.padding(op.inputs[0]):
            pad, unpadded = padding
            pool = op.layer
            if _is_same_padding(pad, pool.pool_size, pool.strides, (1, 1)):
                pool = type(pool).from_config(pool.get_config() | {"padding": "same"})
                op = replace(op, inputs=[unpadded], layer=pool)
            else:
                rows = RowPadding(pad.padding, name=pad.name)
                height = pad.output.shape[1]
                self.keep(
                    PerChannel(rows.name, [unpadded], op.inputs[0], height=height, layer=rows)
                )
        self.keep(op)

    def padding(self, channels: Channels) -> tuple[keras.layers.ZeroPadding2D, Channels] | None:
        """The layer that pads exactly these channels, and its input."""
        pad = self.ops[self.producer[channels[0]]]
        if not (isinstance(pad, PerChannel) and isinstance(pad.layer, keras.layers.ZeroPadding2D)):
            return None
        if not np.array_equal(channels, pad.output):
            return None
        return pad.layer, pad.inputs[0]

    def by_producer(self, channels: Channels) -> Iterator[tuple[int, np.ndarray]]:
        """Index of each operation that computes some of the channels, and a mask of those."""
        producers = self.producer[channels]
        for i in np.unique(producers):
            yield int(i), producers == i

    def accepts(self, i: int, channels: Channels) -> bool:
        """Whether an operation on these output channels can become part of operation `i`."""
        op = self.ops[i]
        unique = len(np.unique(channels)) == len(channels)
        read_once = unique and bool(np.all(self.reader_counts[channels] == 1))
        return read_once and isinstance(op, Convolution) and op.is_linear


def _is_same_padding(
    layer: keras.layers.ZeroPadding2D,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilation: tuple[int, int],
) -> bool:
    """Whether TensorFlow's "same" padding, which costs nothing, adds the same zeros."""
    axes = zip(layer.input_shape[1:3], layer.padding, kernel, strides, dilation, strict=True)
    return all(_is_same_padding_of_axis(*axis) for axis in axes)


def _is_same_padding_of_axis(
    size: int, zeros: tuple[int, int], kernel: int, stride: int, dilation: int
) -> bool:
    window = dilation * (kernel - 1) + 1
    outputs = -(-size // stride)
    missing = max((outputs - 1) * stride + window - size, 0)
    return zeros[0] == missing // 2 and outputs == (size + sum(zeros) - window) // stride + 1


def _is_clipped(op: Op, relu: keras.layers.ReLU) -> bool:
    """Whether the operation's activation makes this ReLU redundant."""
    sufficient = ("relu6",) if relu.max_value else ("relu", "relu6")
    return (
        _is_fusible(relu) and isinstance(op, Convolution) and op.config["activation"] in sufficient
    )


def _is_fusible(relu: keras.layers.ReLU) -> bool:
    return relu.max_value in (None, 6.0) and not relu.negative_slope and not relu.threshold


def _activation(relu: keras.layers.ReLU) -> str:
    return "relu6" if relu.max_value else "relu"
