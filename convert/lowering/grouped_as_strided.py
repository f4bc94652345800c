"""Grouped convolutions behind a channel shuffle, as convolutions along the groups.

A tensor of g groups of channels is, read as it lies in memory, an image g times as wide: pixels of
one group each.  A shuffle gives each group of the next convolution a piece of every group before
it: in that image, the same few channels of g neighbours.  So a convolution with a window of g
pixels and a stride of g, grouped by the pieces, reads what the shuffle would have brought
together, and nothing has to move.
"""

from dataclasses import replace

import numpy as np

from convert.lowering.ir import (
    Channels,
    Convolution,
    ConvolutionAlongGroups,
    Depthwise,
    Program,
    places,
)

GROWTH = 1.5  # of the channels between the two convolutions: pieces are padded to equal ones


def along_groups(program: Program, node: Convolution) -> Program:
    """Returns the same function with this grouped convolution along the groups before it.

    Where it is not pointwise, or its channels do not come of one grouped convolution alone, the
    program stays as it is.
    """
    chain = chain_before(program, node)
    if chain is None or set(node.kernel.shape[:2]) | {*node.config["strides"]} != {1}:
        return program
    groups, read = node.groups, node.reads[0]
    kept = [np.arange(0)] * len(chain)  # of each step: the channel that each one read comes from
    channels = read
    for number, step in reversed(list(enumerate(chain))):
        kept[number] = places(channels, among=step.gives)
        channels = step.reads[0][kept[number]] if isinstance(step, Depthwise) else channels
    layout = _layout(kept[0] // (len(chain[0].gives) // groups), groups)
    if layout.size > GROWTH * len(read):
        return program

    laid = layout.ravel()
    replaced: dict[str, Convolution] = {}
    size, given = program.size, chain[0].reads[0]
    for step, places_ in zip(chain, kept, strict=True):
        kernel, bias = (_laid(w, places_, laid) for w in (_by_channel(step), step.bias))
        if isinstance(step, Depthwise):
            kernel = kernel[..., None]
        gives = np.arange(size, size + len(laid))
        size += len(laid)
        replaced[step.name] = replace(
            step, reads=[given], gives=gives, kernel=kernel, bias=bias, in_order=True
        )
        given = gives
    replaced[node.name] = ConvolutionAlongGroups(
        name=node.name,
        reads=[given],
        gives=node.gives,
        side=node.side,
        kind=node.kind,
        config={**node.config, "kernel_size": (1, groups), "strides": (1, groups)},
        kernel=_kernel_along(node.kernel[0, 0], layout),
        bias=node.bias,
    )
    nodes = [replaced.get(one.name, one) for one in program.nodes]
    return replace(program, nodes=nodes)


def _layout(group_before: np.ndarray, groups: int) -> np.ndarray:
    """(group before, group behind, place): index of a channel that is read, or -1 for a zero."""
    rows = group_before.reshape(groups, -1)
    length = rows.shape[1]
    piece = max(np.bincount(row, minlength=groups).max() for row in rows)
    layout = np.full((groups, groups, piece), -1)
    for behind, row in enumerate(rows):
        for before in range(groups):
            (found,) = np.nonzero(row == before)
            layout[before, behind, : len(found)] = behind * length + found
    return layout


def _by_channel(step: Convolution) -> np.ndarray:
    """The kernel with the channels that it gives on its last axis."""
    return step.kernel[..., 0] if isinstance(step, Depthwise) else step.kernel


def _laid(weights: np.ndarray, kept: np.ndarray, laid: np.ndarray) -> np.ndarray:
    """The weights of each channel laid out, zeros for those that are none."""
    return np.where(laid < 0, 0.0, weights[..., kept[np.maximum(laid, 0)]])


def _kernel_along(kernel: np.ndarray, layout: np.ndarray) -> np.ndarray:
    """(inputs of a group, outputs) -> (1, groups, place in a piece, outputs)."""
    groups, _, piece = layout.shape
    inputs, outputs = kernel.shape
    along = np.zeros((1, groups, piece, outputs))
    for behind in range(groups):
        columns = slice(behind * outputs // groups, (behind + 1) * outputs // groups)
        rows = layout[:, behind] - behind * inputs
        found = kernel[np.maximum(rows, 0), columns]
        along[0, :, :, columns] = np.where(layout[:, behind, :, None] < 0, 0.0, found)
    return along


def chain_before(program: Program, node: Convolution) -> list[Convolution] | None:
    """The grouped convolution before `node`, and what each channel passes on the way, alone."""
    readers = program.readers()
    producers = program.producers()
    chain: list[Convolution] = []
    channels: Channels = node.reads[0]
    while True:
        (i, *others) = np.unique(producers[channels])
        step = program.nodes[i]
        alone = len(channels) == len(step.gives) and np.all(readers[step.gives] == 1)
        if others or not alone or not isinstance(step, Convolution):
            return None
        chain.insert(0, step)
        if not isinstance(step, Depthwise):
            return chain if step.groups == node.groups else None
        channels = step.reads[0]
