"""Grouped convolutions behind a channel shuffle that stays one: a transpose."""

from dataclasses import replace
from itertools import pairwise

import numpy as np

from convert.lowering.grouped_as_strided import chain_before
from convert.lowering.ir import Channels, Convolution, Program, Whole, places
from keras_models.layers import ChannelShuffle


def shuffled(program: Program, node: Convolution) -> Program:
    """Returns the same function with the shuffle before this grouped convolution as a layer.

    Where its channels do not come of one grouped convolution alone, the program stays as it is.
    """
    for step, reader in pairwise([*(chain_before(program, node) or []), node]):
        given, read = step.gives, reader.reads[0]
        groups = _groups(places(read, among=given))
        if not groups:
            continue
        name = f"{node.name}_shuffle"
        gives = np.arange(program.size, program.size + len(read))
        layer = ChannelShuffle(groups, name=name)
        shuffle = Whole(name, [given], gives, side=step.side, layer=layer)
        nodes = list(program.nodes)
        i = nodes.index(reader)
        nodes[i : i + 1] = [shuffle, replace(reader, reads=[gives])]
        return replace(program, nodes=nodes)
    return program


def _groups(order: Channels) -> int:
    """How many groups a shuffle to that order has; 0: it is none."""
    length = int(order[1] - order[0])
    if length < 2 or len(order) % length:
        return 0
    groups = len(order) // length
    is_shuffle = np.array_equal(order, np.arange(len(order)).reshape(groups, length).T.ravel())
    return groups if is_shuffle else 0
