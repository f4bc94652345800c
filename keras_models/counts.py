"""Parameters and multiply-adds of each layer, counted as the papers do.

Multiply-adds are those of convolutions and fully connected layers at batch 1.  Parameters are the
trainable ones: a batch norm's moving statistics do not count.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import tf_keras as keras


@dataclass(frozen=True)
class LayerCount:
    """One layer's cost; `output_shape` is without the batch."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    params: int
    multiply_adds: int
    operator: str  # kind, and for convolutions kernel and grouping: "Conv2D 3x3 grouped"


@dataclass(frozen=True)
class StageCount:
    """One row of the paper's table: its units, and the sums of their layers."""

    name: str
    output_shape: tuple[int, ...]
    units: int
    layers: int
    params: int
    multiply_adds: int


@dataclass(frozen=True)
class LayerTypeCount:
    """The sums of all layers of one operator."""

    name: str
    layers: int
    params: int
    multiply_adds: int


def count(model: keras.Model) -> list[LayerCount]:
    """Counts every layer of a built model, in its order."""
    return [
        LayerCount(
            name=layer.name,
            kind=type(layer).__name__,
            output_shape=tuple(layer.output.shape[1:]),
            params=sum(math.prod(w.shape) for w in layer.trainable_weights),
            multiply_adds=_multiply_adds(layer),
            operator=_operator(layer),
        )
        for layer in model.layers
    ]


def total(counts: Iterable[LayerCount | StageCount]) -> tuple[int, int]:
    """The sums of parameters and of multiply-adds."""
    pairs = [(c.params, c.multiply_adds) for c in counts]
    return sum(params for params, _ in pairs), sum(madds for _, madds in pairs)


def by_stage(counts: Iterable[LayerCount]) -> list[StageCount]:
    """Groups the layers by the rows of the paper's table.

    A layer's name begins with its row, a numbered word, and its unit if the row has several:
    conv1_bn, unit13_pointwise, stage2_unit1_expand.  Any other name is a row of its own: max_pool,
    classifier.
    """
    rows: dict[str, list[LayerCount]] = {}
    for c in counts:
        rows.setdefault(_row_and_unit(c.name)[0], []).append(c)
    return [
        StageCount(
            name,
            layers[-1].output_shape,
            len({_row_and_unit(c.name)[1] for c in layers}),
            len(layers),
            *total(layers),
        )
        for name, layers in rows.items()
    ]


def by_operator(counts: Iterable[LayerCount]) -> list[LayerTypeCount]:
    """Groups the layers by operator, the most multiply-adds first."""
    operators: dict[str, list[LayerCount]] = {}
    for c in counts:
        operators.setdefault(c.operator, []).append(c)
    rows = [LayerTypeCount(name, len(same), *total(same)) for name, same in operators.items()]
    return sorted(rows, key=lambda row: (-row.multiply_adds, -row.layers, row.name))


def _row_and_unit(name: str) -> tuple[str, str | None]:
    match = re.match(r"([a-z]+\d+)(?:_unit(\d+))?(?:_|$)", name)
    return (match[1], match[2]) if match else (name, None)


def _operator(layer: keras.layers.Layer) -> str:
    kind = type(layer).__name__
    if not isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
        return kind
    words = kind, "x".join(map(str, layer.kernel_size)), "grouped" if layer.groups > 1 else ""
    return " ".join(filter(None, words))


def _multiply_adds(layer: keras.layers.Layer) -> int:
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        kernel = layer.depthwise_kernel
    elif isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
        kernel = layer.kernel
    else:
        return 0
    positions = math.prod(layer.output.shape[1:-1])
    return positions * math.prod(kernel.shape)
