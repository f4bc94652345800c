"""In which order each tensor holds its channels: those that are read together, together."""

from collections.abc import Sequence

import numpy as np

from convert.lowering.ir import Channels, Convolution, Program, keeps_apart


class Order:
    """An order of all channels: those that are read together stand together.

    What a layer does to each channel alone keeps channels apart, so the channels that it reads and
    gives are ordered alike.
    """

    def __init__(self, program: Program) -> None:
        alike = _alike(program)
        readers = _readers(program, alike)
        kinds = {kind: i for i, kind in enumerate(sorted({tuple(r) for r in readers.values()}))}
        self.kind = kind = np.array([kinds[tuple(readers[c])] for c in alike.tolist()])
        self.rank = np.empty(program.size, np.int64)
        self.rank[np.lexsort((alike, kind))] = np.arange(program.size)

    def of(self, channels: Channels) -> np.ndarray:
        """Indices that bring channels in order."""
        return np.argsort(self.rank[channels])


def _readers(program: Program, alike: np.ndarray) -> dict[int, list[tuple[int, int]]]:
    """Who mixes a channel with others, directly or in the end: (node, group), in their order."""
    found: dict[int, list[tuple[int, int]]] = {c: [] for c in np.unique(alike).tolist()}
    for i, node in enumerate(program.nodes):
        if keeps_apart(node):
            continue
        groups = node.groups if isinstance(node, Convolution) else 1
        for read in node.reads:
            for group, block in enumerate(read.reshape(groups, -1)):
                for c in np.unique(alike[block]).tolist():
                    found[c].append((i, group))
    for channels in program.outputs.values():
        for c in np.unique(alike[channels]).tolist():
            found[c].append((len(program.nodes), 0))
    return found


def _alike(program: Program) -> np.ndarray:
    """(size,): for each channel, the least of those that must be ordered as it is."""
    pairs = [
        np.stack([read, node.gives])
        for node in program.nodes
        if keeps_apart(node)
        for read in node.reads
    ]
    return connected(pairs, size=program.size)


def connected(pairs: Sequence[np.ndarray], *, size: int) -> np.ndarray:
    """(size,): for each number, the least of those that `pairs`, each (2, n), connect it with."""
    least = np.arange(size)
    one, other = np.concatenate(pairs, axis=1) if pairs else np.empty((2, 0), np.int64)
    while True:  # each round doubles how far the least number has come
        before = least.copy()
        smaller = np.minimum(least[one], least[other])
        np.minimum.at(least, one, smaller)
        np.minimum.at(least, other, smaller)
        least = least[least]
        if np.array_equal(least, before):
            return least
