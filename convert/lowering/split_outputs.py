"""Convolutions whose channels go separate ways, as one convolution for each way."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby

import numpy as np

from convert.lowering.channel_layout import Order
from convert.lowering.ir import Convolution, Node, Program, keeps_apart
from convert.lowering.options import Form

TILE = 16  # channels that XNNPACK's kernels compute at once


def split_outputs(program: Program, form: Form) -> Program:
    """Returns the same function with less to slice, where that costs no arithmetic.

    Kernels compute whole tiles of channels: convolutions that need as many tiles together as one
    did do the same work.
    """
    order = Order(program)
    joined = _joined(program)
    nodes: list[Node] = []
    for node in program.nodes:
        ways = [np.arange(len(node.gives))]
        if (
            type(node) is Convolution
            and node.groups == 1
            and not node.in_order
            and node.side not in form.whole_outputs
            and node.name not in joined
        ):
            ways = list(_ways(node, order))
        nodes += [node] if len(ways) == 1 else [_part(node, i, way) for i, way in enumerate(ways)]
    return replace(program, nodes=nodes)


def _joined(program: Program) -> set[str]:
    """Names of the nodes whose channels a layer reads that would need the parts as one tensor."""
    producers = program.producers()
    found = set()
    for node in program.nodes:
        for read in node.reads if keeps_apart(node) else ():
            numbers, counts = np.unique(producers[read], return_counts=True)
            for i, count in zip(numbers.tolist(), counts.tolist(), strict=True):
                if count == len(program.nodes[i].gives):
                    found.add(program.nodes[i].name)
    return found


def _part(node: Node, number: int, way: np.ndarray) -> Convolution:
    assert isinstance(node, Convolution)
    return replace(
        node,
        name=f"{node.name}_{number}",
        gives=node.gives[way],
        kernel=node.kernel[..., way],
        bias=node.bias[way],
    )


def _ways(node: Convolution, order: Order) -> Iterator[np.ndarray]:
    """Indices of its channels, those for the same readers together."""
    ordered = order.of(node.gives)
    rest = len(ordered)
    way: list[int] = []
    for _, alike in groupby(ordered.tolist(), key=lambda i: int(order.kind[node.gives[i]])):
        way += alike
        if _tiles(len(way)) + _tiles(rest - len(way)) == _tiles(rest):
            yield np.array(way)
            rest, way = rest - len(way), []
    if way:
        yield np.array(way)


def _tiles(channels: int) -> int:
    return -(-channels // TILE)
