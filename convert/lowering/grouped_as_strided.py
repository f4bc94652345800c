"""Grouped convolutions behind a channel shuffle, as strided convolutions.

In memory, a tensor with g groups of channels is also an image g times as wide, whose pixels hold
one group each. A shuffle gives each group of the next convolution a piece of every group before it:
in that image, the same few channels of g neighbouring pixels. A convolution with a window and a
stride of g pixels, grouped by these pieces, therefore reads what the shuffle would have brought
together, and no data moves.
"""

from dataclasses import replace

import numpy as np

from convert.lowering.ir import (
    Channels,
    Convolution,
    Depthwise,
    Graph,
    Op,
    StridedGroupConv,
    positions,
)

MAX_GROWTH = 1.5  # of the channels between the convolutions, since pieces are padded to equal sizes


def as_strided(graph: Graph, convolution: Convolution) -> Graph:
    """Returns the graph with this grouped convolution as a strided one.

    The graph stays as it is if the convolution is not pointwise, or if its input does not come from
    one grouped convolution.
    """
    chain = chain_before(graph, convolution)
    window = set(convolution.kernel.shape[:2]) | {*convolution.config["strides"]}
    if chain is None or window != {1}:
        return graph
    groups, channels = convolution.groups, convolution.inputs[0]
    sources = [np.arange(0)] * len(chain)  # for each op: the output that each channel comes from
    for number, op in reversed(list(enumerate(chain))):
        sources[number] = positions(channels, among=op.output)
        channels = op.inputs[0][sources[number]] if isinstance(op, Depthwise) else channels
    pieces = _pieces(sources[0] // (len(chain[0].output) // groups), groups)
    if pieces.size > MAX_GROWTH * len(convolution.inputs[0]):
        return graph

    order = pieces.ravel()
    replaced: dict[str, Op] = {}
    size, inputs = graph.size, chain[0].inputs[0]
    for op, source in zip(chain, sources, strict=True):
        if isinstance(op, Depthwise):
            kernel = _gather(op.kernel[..., 0], source, order)[..., None]
        else:
            kernel = _gather(op.kernel, source, order)
        output = np.arange(size, size + len(order))
        size += len(order)
        replaced[op.name] = replace(
            op,
            inputs=[inputs],
            output=output,
            kernel=kernel,
            bias=_gather(op.bias, source, order),
            fixed_order=True,
        )
        inputs = output
    replaced[convolution.name] = StridedGroupConv(
        name=convolution.name,
        inputs=[inputs],
        output=convolution.output,
        height=convolution.height,
        layer_type=convolution.layer_type,
        config={**convolution.config, "kernel_size": (1, groups), "strides": (1, groups)},
        kernel=_strided_kernel(convolution.kernel[0, 0], pieces),
        bias=convolution.bias,
    )
    return replace(graph, ops=[replaced.get(op.name, op) for op in graph.ops])


def _pieces(group_before: np.ndarray, groups: int) -> np.ndarray:
    """(group before, group behind, place): index of an input channel, or -1 for padding."""
    rows = group_before.reshape(groups, -1)
    length = rows.shape[1]
    piece = max(np.bincount(row, minlength=groups).max() for row in rows)
    pieces = np.full((groups, groups, piece), -1)
    for behind, row in enumerate(rows):
        for before in range(groups):
            (places,) = np.nonzero(row == before)
            pieces[before, behind, : len(places)] = behind * length + places
    return pieces


def _gather(weights: np.ndarray, source: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The weights (last axis: channels) in this order, with zeros for padding."""
    return np.where(order < 0, 0.0, weights[..., source[np.maximum(order, 0)]])


def _strided_kernel(kernel: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """(inputs of a group, outputs) -> (1, groups, place in a piece, outputs)."""
    groups, _, piece = pieces.shape
    inputs, outputs = kernel.shape
    strided = np.zeros((1, groups, piece, outputs))
    for behind in range(groups):
        columns = slice(behind * outputs // groups, (behind + 1) * outputs // groups)
        rows = pieces[:, behind] - behind * inputs
        weights = kernel[np.maximum(rows, 0), columns]
        strided[0, :, :, columns] = np.where(pieces[:, behind, :, None] < 0, 0.0, weights)
    return strided


def chain_before(graph: Graph, convolution: Convolution) -> list[Convolution] | None:
    """The grouped convolution that alone computes the input, and the depthwise ones between."""
    reader_counts = graph.reader_counts()
    producers = graph.producers()
    chain: list[Convolution] = []
    channels: Channels = convolution.inputs[0]
    while True:
        (i, *others) = np.unique(producers[channels])
        op = graph.ops[i]
        read_once = len(channels) == len(op.output) and np.all(reader_counts[op.output] == 1)
        if others or not read_once or not isinstance(op, Convolution):
            return None
        chain.insert(0, op)
        if not isinstance(op, Depthwise):
            return chain if op.groups == convolution.groups else None
        channels = op.inputs[0]
