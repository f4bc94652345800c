"""Reads a Keras functional model as a graph: which layer reads which."""

from collections.abc import Callable, Sequence
from typing import Any

import tf_keras as keras

from keras_models.layers import Tensor


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


def copy(layer: keras.layers.Layer, inputs: Sequence[Tensor]) -> Tensor:
    """Applies a layer of the same configuration and weights to `inputs`."""
    if isinstance(layer, keras.layers.InputLayer):
        return keras.Input(layer.input_shape[0][1:], name=layer.name)
    clone = type(layer).from_config(layer.get_config())
    tensor = clone(inputs if len(inputs) > 1 else inputs[0])
    clone.set_weights(layer.get_weights())
    return tensor
