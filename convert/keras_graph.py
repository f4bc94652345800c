"""Reads a Keras functional model as a graph: which layer reads which; copies its layers."""

from collections.abc import Callable
from typing import Any

import tf_keras as keras


def sources(model: keras.Model) -> dict[str, list[str]]:
    """Layer name -> names of the layers it reads, for models that use each layer once."""
    return {
        layer["name"]: [entry[0] for node in layer["inbound_nodes"] for entry in node]
        for layer in model.get_config()["layers"]
    }


def interpret(
    model: keras.Model, step: Callable[[keras.layers.Layer, list[Any]], Any]
) -> dict[str, Any]:
    """Calls `step(layer, values of the layers it reads)` in order; the values, by layer name."""
    reads = sources(model)
    values: dict[str, Any] = {}
    for layer in model.layers:  # in the order of the graph: Keras sorts them by depth
        values[layer.name] = step(layer, [values[name] for name in reads[layer.name]])
    return values


def clone(
    layer: keras.layers.Layer, kind: type[keras.layers.Layer], config: dict[str, Any]
) -> keras.layers.Layer:
    """A layer of that kind and configuration, which reads what `layer` reads, with its weights."""
    made = kind.from_config(config)
    made.build(layer.input_shape)
    made.set_weights(layer.get_weights())
    return made
