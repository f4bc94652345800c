"""Parameters and multiply-adds of each layer, counted as the papers do.

Multiply-adds are those of convolutions and fully connected layers, at batch 1; parameters are the
trainable ones, so that a batch norm's moving statistics are left out.
"""

import math
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


def count(model) -> list[LayerCount]:
    """Counts every layer of a built model, in its order."""
    return [
        LayerCount(
            name=layer.name,
            kind=type(layer).__name__,
            output_shape=tuple(layer.output.shape[1:]),
            params=sum(math.prod(w.shape) for w in layer.trainable_weights),
            multiply_adds=_multiply_adds(layer),
        )
        for layer in model.layers
    ]


def total(counts: list[LayerCount]) -> tuple[int, int]:
    """Parameters and multiply-adds of all layers together."""
    return sum(c.params for c in counts), sum(c.multiply_adds for c in counts)


def by_stage(counts: list[LayerCount]) -> list[LayerCount]:
    """Adds up each paper row: the layers that share the first word of their names."""
    stages: dict[str, list[LayerCount]] = {}
    for c in counts:
        stages.setdefault(c.name.split("_unit")[0].split("_", 1)[0], []).append(c)
    return [
        LayerCount(name, layers[0].kind, layers[-1].output_shape, *total(layers))
        for name, layers in stages.items()
    ]


def _multiply_adds(layer) -> int:
    if isinstance(layer, keras.layers.Dense):
        return math.prod(layer.kernel.shape)
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        kernel = layer.depthwise_kernel
    elif isinstance(layer, keras.layers.Conv2D):
        kernel = layer.kernel
    else:
        return 0
    _, height, width, _ = layer.output.shape
    return height * width * math.prod(kernel.shape)
