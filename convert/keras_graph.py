"""A Keras functional model as a graph: which layers each layer reads, and copies of layers."""

from collections.abc import Callable
from typing import Any

import tf_keras as keras


def sources(model: keras.Model) -> dict[str, list[str]]:
    """Layer name -> names of the layers it reads, for models that call each layer once."""
    return {
        layer["name"]: [entry[0] for node in layer["inbound_nodes"] for entry in node]
        for layer in model.get_config()["layers"]
    }


def interpret(
    model: keras.Model, step: Callable[[keras.layers.Layer, list[Any]], Any]
) -> dict[str, Any]:
    """Calls `step(layer, values of the layers it reads)` in order; the values, by layer name."""
    inputs = sources(model)
    values: dict[str, Any] = {}
    for layer in model.layers:  # in graph order: Keras sorts layers by depth
        values[layer.name] = step(layer, [values[name] for name in inputs[layer.name]])
    return values


def copy_model(model: keras.Model) -> keras.Model:
    """A copy of a model with its weights."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def clone(
    layer: keras.layers.Layer, layer_type: type[keras.layers.Layer], config: dict[str, Any]
) -> keras.layers.Layer:
    """A layer of this type and configuration, with the input shape and the weights of `layer`."""
    copy = layer_type.from_config(config)
    copy.build(layer.input_shape)
    copy.set_weights(layer.get_weights())
    return copy
