"""The order of the channels in each tensor: channels with the same readers stand together."""

from collections.abc import Sequence

import numpy as np

from convert.lowering.ir import Channels, Convolution, Graph, is_channelwise


class ChannelLayout:
    """One order of all channels, which puts channels with the same readers together.

    The inputs and the output of a channelwise operation have the same layout.
    """

    def __init__(self, graph: Graph) -> None:
        same_layout = _same_layout(graph)
        readers = _readers(graph, same_layout)
        keys = {key: i for i, key in enumerate(sorted({tuple(r) for r in readers.values()}))}
        self.reader_key = np.array([keys[tuple(readers[c])] for c in same_layout.tolist()])
        self.rank = np.empty(graph.size, np.int64)
        self.rank[np.lexsort((same_layout, self.reader_key))] = np.arange(graph.size)

    def argsort(self, channels: Channels) -> np.ndarray:
        """Indices that sort `channels` into this order."""
        return np.argsort(self.rank[channels])


def _readers(graph: Graph, same_layout: np.ndarray) -> dict[int, list[tuple[int, int]]]:
    """(op, group) of those that mix a channel with others, behind channelwise ops too."""
    readers: dict[int, list[tuple[int, int]]] = {c: [] for c in np.unique(same_layout).tolist()}
    for i, op in enumerate(graph.ops):
        if is_channelwise(op):
            continue
        groups = op.groups if isinstance(op, Convolution) else 1
        for channels in op.inputs:
            for group, block in enumerate(channels.reshape(groups, -1)):
                for c in np.unique(same_layout[block]).tolist():
                    readers[c].append((i, group))
    for channels in graph.outputs.values():
        for c in np.unique(same_layout[channels]).tolist():
            readers[c].append((len(graph.ops), 0))
    return readers


def _same_layout(graph: Graph) -> np.ndarray:
    """(size,): for each channel, the smallest of those that must be ordered like it."""
    pairs = [
        np.stack([channels, op.output])
        for op in graph.ops
        if is_channelwise(op)
        for channels in op.inputs
    ]
    return connected(pairs, size=graph.size)


def connected(pairs: Sequence[np.ndarray], *, size: int) -> np.ndarray:
    """(size,): the smallest number of each number's connected component.

    Args:
      pairs: Arrays (2, n) of the numbers that are connected.
      size: How many numbers there are.
    """
    smallest = np.arange(size)
    one, other = np.concatenate(pairs, axis=1) if pairs else np.empty((2, 0), np.int64)
    while True:  # each round doubles the distance that the smallest number has travelled
        before = smallest.copy()
        smaller = np.minimum(smallest[one], smallest[other])
        np.minimum.at(smallest, one, smaller)
        np.minimum.at(smallest, other, smaller)
        smallest = smallest[smallest]
        if np.array_equal(smallest, before):
            return smallest
