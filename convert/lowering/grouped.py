"""Grouped convolutions, each computed in the way that the options choose."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import tf_keras as keras

from convert.lowering.grouped_as_strided import as_strided
from convert.lowering.ir import Convolution, Depthwise, Graph, Op, PerChannel
from convert.lowering.keep_shuffle import keep_shuffle
from convert.lowering.options import Grouped, LoweringOptions


def rewrite_grouped(graph: Graph, options: LoweringOptions) -> Graph:
    """Returns the graph with its grouped convolutions computed as `options` choose.

    Where two grouped convolutions are split into parts, the layers between them are split too, so
    that the parts need not be joined.
    """
    rewrite = {Grouped.ALONG: as_strided, Grouped.SHUFFLED: keep_shuffle}
    for op in graph.ops:
        if isinstance(op, Convolution) and (way := _way(op, options)) in rewrite:
            graph = rewrite[way](graph, op)
    ops: list[Op] = []
    split: set[int] = set()  # indices of the parts
    for op in graph.ops:
        count = _part_count(op, options) if isinstance(op, Convolution) else 0
        if count > 1:
            split |= set(range(len(ops), len(ops) + count))
        ops += _dense_parts(op, count) if count else [op]
    graph = replace(graph, ops=ops)
    return _split_between(graph, split) if split else graph


def _way(op: Convolution, options: LoweringOptions) -> Grouped | None:
    """None: the convolution has no groups, or is strided already."""
    if type(op) is not Convolution or op.groups == 1:
        return None
    return options.grouped.get(op.height, Grouped.ALONG)


def _part_count(op: Convolution, options: LoweringOptions) -> int:
    """The number of dense convolutions to split into; 0: it stays as it is."""
    counts = {Grouped.SPLIT: op.groups, Grouped.HALVES: 2, Grouped.DENSE: 1}
    count = counts.get(_way(op, options) or Grouped.ALONG, 0)
    return count if count and op.groups % count == 0 else 0


def _dense_parts(op: Op, count: int) -> Iterator[Convolution]:
    assert isinstance(op, Convolution)
    per_part = op.groups // count  # groups
    inputs = op.inputs[0].reshape(count, -1)
    output = op.output.reshape(count, -1)
    kernels = np.split(op.kernel, op.groups, axis=-1)
    biases = op.bias.reshape(count, -1)
    for i in range(count):
        yield replace(
            op,
            name=op.name if count == 1 else f"{op.name}_{i}",
            inputs=[inputs[i]],
            output=output[i],
            config={**op.config, "groups": 1},
            kernel=_block_diagonal(kernels[i * per_part : (i + 1) * per_part]),
            bias=biases[i],
        )


def _block_diagonal(kernels: list[np.ndarray]) -> np.ndarray:
    *window, inputs, outputs = kernels[0].shape
    joined = np.zeros((*window, len(kernels) * inputs, len(kernels) * outputs))
    for i, kernel in enumerate(kernels):
        joined[..., i * inputs : (i + 1) * inputs, i * outputs : (i + 1) * outputs] = kernel
    return joined


def _split_between(graph: Graph, split: set[int]) -> Graph:
    readers = _reading_parts(graph, split)
    producer = np.full(graph.size, -1)
    ops: list[Op] = []
    for op in graph.ops:
        for part in _split_by(op, _part_keys(op, readers, producer)):
            producer[part.output] = len(ops)
            ops.append(part)
    return replace(graph, ops=ops)


def _reading_parts(graph: Graph, split: set[int]) -> list[frozenset[int]]:
    """For each channel, the parts that read it, behind channelwise layers too."""
    readers: list[frozenset[int]] = [frozenset()] * graph.size
    for i in reversed(range(len(graph.ops))):
        op = graph.ops[i]
        if i in split:
            for c in op.inputs[0]:
                readers[c] |= {i}
        elif isinstance(op, PerChannel | Depthwise):
            for channels in op.inputs:
                for c, output in zip(channels, op.output, strict=True):
                    readers[c] |= readers[output]
    return readers


def _part_keys(op: Op, readers: list[frozenset[int]], producer: np.ndarray) -> list[object]:
    """For each output channel, a key that is equal for channels of the same part."""
    keys: list[object] = [0] * len(op.output)
    if not isinstance(op, PerChannel | Depthwise):
        return keys
    producers = np.stack([producer[channels] for channels in op.inputs])
    combinations = np.unique(producers, axis=1).shape[1]
    split_alike = all(len(np.unique(row)) == combinations for row in producers)
    is_relu = isinstance(op, PerChannel) and isinstance(op.layer, keras.layers.ReLU)
    if split_alike and (len(producers) > 1 or is_relu):
        keys = [tuple(column) for column in producers.T]
    return [(key, tuple(sorted(readers[c]))) for key, c in zip(keys, op.output, strict=True)]


def _split_by(op: Op, keys: list[object]) -> Iterator[Op]:
    distinct = dict.fromkeys(keys)  # keeps their order
    if len(distinct) == 1:
        yield op
        return
    for number, key in enumerate(distinct):
        mask = np.array([k == key for k in keys])
        inputs = [channels[mask] for channels in op.inputs]
        part = replace(op, name=f"{op.name}_{number}", inputs=inputs, output=op.output[mask])
        if isinstance(part, Depthwise):
            part = replace(part, kernel=part.kernel[:, :, mask], bias=part.bias[mask])
        yield part
