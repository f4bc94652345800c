"""Grouped convolutions, each in the way that a form names."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import tf_keras as keras

from convert.lowering.grouped_as_strided import along_groups
from convert.lowering.ir import Convolution, Depthwise, Each, Node, Program
from convert.lowering.keep_shuffle import shuffled
from convert.lowering.options import Form, Grouped


def rewrite_grouped(program: Program, form: Form) -> Program:
    """Returns the same function with its grouped convolutions as `form` has them.

    What stands between the parts of two convolutions is split likewise, so that their tensors need
    not be joined.
    """
    rewrite = {Grouped.ALONG: along_groups, Grouped.SHUFFLED: shuffled}
    for node in program.nodes:
        if isinstance(node, Convolution) and (way := _way(node, form)) in rewrite:
            program = rewrite[way](program, node)
    nodes: list[Node] = []
    apart: set[int] = set()  # indices of parts
    for node in program.nodes:
        parts = _parts(node, form) if isinstance(node, Convolution) else 0
        if parts > 1:
            apart |= set(range(len(nodes), len(nodes) + parts))
        nodes += _dense(node, parts) if parts else [node]
    program = replace(program, nodes=nodes)
    return _split_between(program, apart) if apart else program


def _way(node: Convolution, form: Form) -> Grouped | None:
    """None: it has no groups, or is along groups already."""
    if type(node) is not Convolution or node.groups == 1:
        return None
    return form.grouped.get(node.side, Grouped.ALONG)


def _parts(node: Convolution, form: Form) -> int:
    """In how many dense convolutions it is computed; 0: it stays as it is."""
    parts = {Grouped.SPLIT: node.groups, Grouped.HALVES: 2, Grouped.DENSE: 1}
    number = parts.get(_way(node, form) or Grouped.ALONG, 0)
    return number if number and node.groups % number == 0 else 0


def _dense(node: Node, parts: int) -> Iterator[Convolution]:
    assert isinstance(node, Convolution)
    together = node.groups // parts  # groups in one part
    reads = node.reads[0].reshape(parts, -1)
    gives = node.gives.reshape(parts, -1)
    kernels = np.split(node.kernel, node.groups, axis=-1)
    biases = node.bias.reshape(parts, -1)
    for i in range(parts):
        yield replace(
            node,
            name=node.name if parts == 1 else f"{node.name}_{i}",
            reads=[reads[i]],
            gives=gives[i],
            config={**node.config, "groups": 1},
            kernel=_block_diagonal(kernels[i * together : (i + 1) * together]),
            bias=biases[i],
        )


def _block_diagonal(kernels: list[np.ndarray]) -> np.ndarray:
    *window, inputs, outputs = kernels[0].shape
    joined = np.zeros((*window, len(kernels) * inputs, len(kernels) * outputs))
    for i, kernel in enumerate(kernels):
        joined[..., i * inputs : (i + 1) * inputs, i * outputs : (i + 1) * outputs] = kernel
    return joined


def _split_between(program: Program, apart: set[int]) -> Program:
    reached = _reached(program, apart)
    producer = np.full(program.size, -1)
    nodes: list[Node] = []
    for node in program.nodes:
        for part in _pieces(node, _kinds(node, reached, producer)):
            producer[part.gives] = len(nodes)
            nodes.append(part)
    return replace(program, nodes=nodes)


def _reached(program: Program, apart: set[int]) -> list[frozenset[int]]:
    """For each channel, the parts that read it, also through layers that keep channels apart."""
    reached: list[frozenset[int]] = [frozenset()] * program.size
    for i in reversed(range(len(program.nodes))):
        node = program.nodes[i]
        if i in apart:
            for c in node.reads[0]:
                reached[c] |= {i}
        elif isinstance(node, Each | Depthwise):
            for read in node.reads:
                for c, given in zip(read, node.gives, strict=True):
                    reached[c] |= reached[given]
    return reached


def _kinds(node: Node, reached: list[frozenset[int]], producer: np.ndarray) -> list[object]:
    """For each channel that the node gives, what tells it from those of other tensors."""
    kinds: list[object] = [0] * len(node.gives)
    if not isinstance(node, Each | Depthwise):
        return kinds
    read = np.stack([producer[channels] for channels in node.reads])
    pairs = np.unique(read, axis=1).shape[1]
    alike = all(len(np.unique(row)) == pairs for row in read)  # inputs that are apart alike
    if alike and (
        len(read) > 1 or (isinstance(node, Each) and isinstance(node.layer, keras.layers.ReLU))
    ):
        kinds = [tuple(column) for column in read.T]
    return [(kind, tuple(sorted(reached[c]))) for kind, c in zip(kinds, node.gives, strict=True)]


def _pieces(node: Node, kinds: list[object]) -> Iterator[Node]:
    distinct = dict.fromkeys(kinds)  # in their order
    if len(distinct) == 1:
        yield node
        return
    for number, kind in enumerate(distinct):
        mask = np.array([k == kind for k in kinds])
        reads = [read[mask] for read in node.reads]
        part = replace(node, name=f"{node.name}_{number}", reads=reads, gives=node.gives[mask])
        if isinstance(part, Depthwise):
            part = replace(part, kernel=part.kernel[:, :, mask], bias=part.bias[mask])
        yield part
