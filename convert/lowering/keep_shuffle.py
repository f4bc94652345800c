"""Grouped convolutions behind a channel shuffle that stays a layer: a transpose."""

from dataclasses import replace
from itertools import pairwise

import numpy as np

from convert.lowering.grouped_as_strided import chain_before
from convert.lowering.ir import Channels, Convolution, Graph, Opaque, positions
from keras_models.layers import ChannelShuffle


def keep_shuffle(graph: Graph, convolution: Convolution) -> Graph:
    """Returns the graph with the shuffle before this grouped convolution as a layer.

    The graph stays as it is if the convolution's input does not come from one grouped convolution.
    """
    chain = chain_before(graph, convolution) or []
    for op, reader in pairwise([*chain, convolution]):
        groups = _shuffle_groups(positions(reader.inputs[0], among=op.output))
        if not groups:
            continue
        name = f"{convolution.name}_shuffle"
        output = np.arange(graph.size, graph.size + len(reader.inputs[0]))
        layer = ChannelShuffle(groups, name=name)
        shuffle = Opaque(name, [op.output], output, height=op.height, layer=layer)
        ops = list(graph.ops)
        i = ops.index(reader)
        ops[i : i + 1] = [shuffle, replace(reader, inputs=[output])]
        return replace(graph, ops=ops)
    return graph


def _shuffle_groups(order: Channels) -> int:
    """The number of groups of the shuffle that makes this order; 0: no shuffle does."""
    length = int(order[1] - order[0])
    if length < 2 or len(order) % length:
        return 0
    groups = len(order) // length
    is_shuffle = np.array_equal(order, np.arange(len(order)).reshape(groups, length).T.ravel())
    return groups if is_shuffle else 0
