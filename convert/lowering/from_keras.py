"""Training form -> program: one rule for each kind of layer.

Shuffles, splits and concats vanish here: they only renumber channels.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tf_keras as keras

from convert import keras_graph
from convert.lowering.ir import (
    Affine,
    Channels,
    Convolution,
    Depthwise,
    Each,
    Node,
    Program,
    Whole,
    moved,
)
from keras_models.layers import ChannelShuffle, ChannelSlice, HardSigmoid, HardSwish

SAME_FOR_EACH = (
    keras.layers.ReLU,
    keras.layers.Activation,
    keras.layers.Add,
    keras.layers.Multiply,
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling2D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.ZeroPadding2D,
    HardSwish,
)
MOVES = (ChannelShuffle, ChannelSlice, keras.layers.Concatenate)
REWRITTEN = (keras.layers.AveragePooling2D, keras.layers.MaxPooling2D)


def read(
    model: keras.Model, *, integer: bool, plain: bool = False, shuffles: bool = False
) -> Program:
    """Returns the program of a training-form model.

    Args:
      model: The training form.
      integer: Write hard-swish in layers that have fast integer kernels.
      plain: Keep what moves channels, and pooling, as the layers that they are.
      shuffles: Keep what moves channels.
    """
    nodes: list[Node] = []
    size = 0

    def give(layer: keras.layers.Layer) -> dict[str, Any]:
        """A name, a side and new channels for a node that comes of `layer`."""
        nonlocal size
        shape = layer.output.shape
        start, size = size, size + shape[-1]
        side = shape[1] if len(shape) == 4 else 1
        return {"name": layer.name, "gives": np.arange(start, size), "side": side}

    def add(node: Node) -> Channels:
        nodes.append(node)
        return node.gives

    def step(layer: keras.layers.Layer, inputs: list[Channels]) -> Channels:
        if (plain or shuffles) and isinstance(layer, MOVES):
            return add(Whole(reads=inputs, layer=layer, **give(layer)))
        if plain and isinstance(layer, REWRITTEN):
            return add(Each(reads=inputs, layer=layer, **give(layer)))
        return _read_layer(layer, inputs, give, add, integer=integer)

    values = keras_graph.interpret(model, step)
    return Program(
        nodes,
        inputs=model.input_names,
        outputs={name: values[name] for name in model.output_names},
        name=model.name,
    )


def _read_layer(
    layer: keras.layers.Layer,
    inputs: list[Channels],
    give: Callable[..., dict[str, Any]],
    add: Callable[[Node], Channels],
    *,
    integer: bool,
) -> Channels:
    if (channels := moved(layer, inputs)) is not None:
        return channels
    match layer:
        case keras.layers.Dropout():
            return inputs[0]
        case keras.layers.Conv2D() | keras.layers.DepthwiseConv2D() | keras.layers.Dense():
            return add(_convolution(layer, inputs, give(layer)))
        case keras.layers.BatchNormalization(axis=[3] | [1]):
            factor, offset = _factor_and_offset(layer)
            return add(Affine(reads=inputs, factor=factor, offset=offset, **give(layer)))
        case keras.layers.AveragePooling2D(padding="valid"):
            return add(_average_pool(layer, inputs, give(layer)))
        case keras.layers.Activation(activation=keras.activations.swish):
            gate = keras.layers.Activation("sigmoid", name=f"{layer.name}_gate")
            opened = add(Each(reads=inputs, layer=gate, **give(layer) | {"name": gate.name}))
            product = keras.layers.Multiply(name=layer.name)
            return add(Each(reads=[*inputs, opened], layer=product, **give(layer)))
        case HardSigmoid():
            return _hard_sigmoid(layer, inputs, give, add, name=layer.name)
        case HardSwish() if integer:  # XNNPACK has no int8 HARD_SWISH
            gate = _hard_sigmoid(layer, inputs, give, add, name=f"{layer.name}_gate")
            product = keras.layers.Multiply(name=layer.name)
            return add(Each(reads=[*inputs, gate], layer=product, **give(layer)))
        case _ if isinstance(layer, SAME_FOR_EACH):
            return add(Each(reads=inputs, layer=layer, **give(layer)))
        case _:
            return add(Whole(reads=inputs, layer=layer, **give(layer)))


def _convolution(
    layer: keras.layers.Layer, inputs: list[Channels], given: dict[str, Any]
) -> Convolution:
    config = layer.get_config()
    kernel, *biases = (np.asarray(w, np.float64) for w in layer.get_weights())
    bias = biases[0] if biases else np.zeros(len(given["gives"]))
    kind = keras.layers.Dense if isinstance(layer, keras.layers.Dense) else keras.layers.Conv2D
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        if layer.depth_multiplier == 1:
            return Depthwise(
                reads=inputs, kind=type(layer), config=config, kernel=kernel, bias=bias, **given
            )
        channels = kernel.shape[2]  # the same function, whose channels are ordered like others'
        keep = ("padding", "strides", "dilation_rate", "activation")
        config = {name: config[name] for name in keep} | {"groups": channels}
        config |= {"kernel_size": layer.kernel_size}
        kernel = kernel.reshape(*kernel.shape[:2], 1, -1)
    return Convolution(reads=inputs, kind=kind, config=config, kernel=kernel, bias=bias, **given)


def _average_pool(
    layer: keras.layers.Layer, inputs: list[Channels], given: dict[str, Any]
) -> Depthwise:
    """Average pooling as a depthwise convolution: XNNPACK has no int8 average pooling."""
    channels = layer.output.shape[-1]
    pool = keras.layers.DepthwiseConv2D(layer.pool_size, layer.strides, name=layer.name)
    kernel = np.full((*layer.pool_size, channels, 1), 1 / np.prod(layer.pool_size))
    config, bias = pool.get_config() | {"trainable": False}, np.zeros(channels)
    return Depthwise(
        reads=inputs, kind=type(pool), config=config, kernel=kernel, bias=bias, **given
    )


def _hard_sigmoid(
    layer: keras.layers.Layer,
    inputs: list[Channels],
    give: Callable[..., dict[str, Any]],
    add: Callable[[Node], Channels],
    *,
    name: str,
) -> Channels:
    """Gives x / 6 + 1/2, which a convolution can do, clipped to 0..1: in int8 by its range."""
    channels = layer.output.shape[-1]
    sixth, half = np.full(channels, 1 / 6), np.full(channels, 1 / 2)
    named = {"name": f"{name}_scale"}
    scaled = add(Affine(reads=inputs, factor=sixth, offset=half, **give(layer) | named))
    clip = keras.layers.ReLU(1.0, name=name)
    return add(Each(reads=[scaled], layer=clip, **give(layer) | {"name": name}))


def _factor_and_offset(batch_norm: keras.layers.Layer) -> tuple[np.ndarray, np.ndarray]:
    gamma, beta, mean, variance = (
        np.asarray(w, np.float64)
        for w in (
            batch_norm.gamma if batch_norm.scale else np.ones(batch_norm.moving_mean.shape),
            batch_norm.beta if batch_norm.center else 0.0,
            batch_norm.moving_mean,
            batch_norm.moving_variance,
        )
    )
    factor = gamma / np.sqrt(variance + batch_norm.epsilon)
    return factor, beta - mean * factor
