"""Splits a convolution whose channels have several consumers into one convolution for each."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby

import numpy as np

from convert.lowering.channel_layout import ChannelLayout
from convert.lowering.ir import Convolution, Graph, Op, is_channelwise
from convert.lowering.options import LoweringOptions

TILE = 16  # channels that XNNPACK's kernels compute at once


def split_outputs(graph: Graph, options: LoweringOptions) -> Graph:
    """Splits convolutions to avoid slices, where that adds no arithmetic.

    Kernels compute whole tiles of channels: the parts do the same work if they need as many tiles
    as the convolution did.
    """
    layout = ChannelLayout(graph)
    read_whole = _read_whole(graph)
    ops: list[Op] = []
    for op in graph.ops:
        parts = [np.arange(len(op.output))]
        if (
            type(op) is Convolution
            and op.groups == 1
            and not op.fixed_order
            and op.height not in options.whole_outputs
            and op.name not in read_whole
        ):
            parts = list(_by_consumer(op, layout))
        ops += [op] if len(parts) == 1 else [_part(op, i, part) for i, part in enumerate(parts)]
    return replace(graph, ops=ops)


def _read_whole(graph: Graph) -> set[str]:
    """Names of the operations of which a channelwise layer reads every channel.

    If they were split, that layer would need the parts joined.
    """
    producers = graph.producers()
    names = set()
    for op in graph.ops:
        for channels in op.inputs if is_channelwise(op) else ():
            indices, counts = np.unique(producers[channels], return_counts=True)
            for i, count in zip(indices.tolist(), counts.tolist(), strict=True):
                if count == len(graph.ops[i].output):
                    names.add(graph.ops[i].name)
    return names


def _part(op: Op, number: int, part: np.ndarray) -> Convolution:
    assert isinstance(op, Convolution)
    return replace(
        op,
        name=f"{op.name}_{number}",
        output=op.output[part],
        kernel=op.kernel[..., part],
        bias=op.bias[part],
    )


def _by_consumer(op: Convolution, layout: ChannelLayout) -> Iterator[np.ndarray]:
    """Indices of the output channels, in parts; channels with the same readers stay together."""
    ordered = layout.argsort(op.output)
    rest = len(ordered)
    part: list[int] = []
    keys = layout.reader_key[op.output]
    for _, same_readers in groupby(ordered.tolist(), key=lambda i: int(keys[i])):
        part += same_readers
        if _tiles(len(part)) + _tiles(rest - len(part)) == _tiles(rest):
            yield np.array(part)
            rest, part = rest - len(part), []
    if part:
        yield np.array(part)


def _tiles(channels: int) -> int:
    return -(-channels // TILE)
