"""Training form -> graph: one rule for each kind of layer.

Shuffles, splits and concats become index arithmetic: they only renumber channels.
"""

from typing import Any

import numpy as np
import tf_keras as keras

from convert import keras_graph
from convert.lowering.ir import (
    Channels,
    ChannelScaleShift,
    Convolution,
    Depthwise,
    Graph,
    Op,
    Opaque,
    PerChannel,
    permute,
)
from keras_models.layers import ChannelShuffle, ChannelSlice, HardSigmoid, HardSwish

PER_CHANNEL = (
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


def read_graph(
    model: keras.Model, *, integer: bool, plain: bool = False, shuffles: bool = False
) -> Graph:
    """Returns the graph of a training-form model.

    Args:
      model: The training form.
      integer: Write hard-swish in layers that have fast integer kernels.
      plain: Keep layers that move channels, and pooling layers, as they are.
      shuffles: Keep layers that move channels.
    """
    reader = _Reader(integer=integer)

    def step(layer: keras.layers.Layer, inputs: list[Channels]) -> Channels:
        if (plain or shuffles) and isinstance(layer, MOVES):
            return reader.add(Opaque, layer, inputs, layer=layer)
        if plain and isinstance(layer, REWRITTEN):
            return reader.add(PerChannel, layer, inputs, layer=layer)
        return reader.read(layer, inputs)

    values = keras_graph.interpret(model, step)
    return Graph(
        reader.ops,
        inputs=model.input_names,
        outputs={name: values[name] for name in model.output_names},
        name=model.name,
    )


class _Reader:
    def __init__(self, *, integer: bool) -> None:
        self.integer = integer
        self.ops: list[Op] = []
        self.size = 0  # channels numbered so far

    def add(
        self,
        op_type: type[Op],
        source: keras.layers.Layer,
        inputs: list[Channels],
        *,
        name: str | None = None,
        **fields: Any,
    ) -> Channels:
        """Appends an operation shaped like the layer `source`; returns its new channels."""
        shape = source.output.shape
        output = np.arange(self.size, self.size + shape[-1])
        self.size += shape[-1]
        height = shape[1] if len(shape) == 4 else 1
        self.ops.append(op_type(name or source.name, inputs, output, height=height, **fields))
        return output

    def read(self, layer: keras.layers.Layer, inputs: list[Channels]) -> Channels:
        """Appends the operations of a layer; returns the channels of its output."""
        if (channels := permute(layer, inputs)) is not None:
            return channels
        match layer:
            case keras.layers.Dropout():
                return inputs[0]
            case keras.layers.Conv2D() | keras.layers.DepthwiseConv2D() | keras.layers.Dense():
                return self.convolution(layer, inputs)
            case keras.layers.BatchNormalization(axis=[3] | [1]):
                factor, offset = _factor_and_offset(layer)
                return self.add(ChannelScaleShift, layer, inputs, factor=factor, offset=offset)
            case keras.layers.AveragePooling2D(padding="valid"):
                return self.average_pool(layer, inputs)
            case keras.layers.Activation(activation=keras.activations.swish):
                sigmoid = keras.layers.Activation("sigmoid", name=f"{layer.name}_gate")
                gate = self.add(PerChannel, layer, inputs, name=sigmoid.name, layer=sigmoid)
                return self.product(layer, [*inputs, gate])
            case HardSigmoid():
                return self.hard_sigmoid(layer, inputs, name=layer.name)
            case HardSwish() if self.integer:  # XNNPACK has no int8 HARD_SWISH
                gate = self.hard_sigmoid(layer, inputs, name=f"{layer.name}_gate")
                return self.product(layer, [*inputs, gate])
            case _ if isinstance(layer, PER_CHANNEL):
                return self.add(PerChannel, layer, inputs, layer=layer)
            case _:
                return self.add(Opaque, layer, inputs, layer=layer)

    def convolution(self, layer: keras.layers.Layer, inputs: list[Channels]) -> Channels:
        config = layer.get_config()
        kernel, *biases = (np.asarray(w, np.float64) for w in layer.get_weights())
        bias = biases[0] if biases else np.zeros(layer.output.shape[-1])
        op_type: type[Op] = Convolution
        layer_type: Any = keras.layers.Conv2D
        if isinstance(layer, keras.layers.Dense):
            layer_type = keras.layers.Dense
        elif isinstance(layer, keras.layers.DepthwiseConv2D):
            if layer.depth_multiplier == 1:
                op_type, layer_type = Depthwise, type(layer)
            else:  # as a grouped convolution, whose output channels are ordered like any other's
                keep = ("padding", "strides", "dilation_rate", "activation")
                config = {name: config[name] for name in keep}
                config |= {"groups": kernel.shape[2], "kernel_size": layer.kernel_size}
                kernel = kernel.reshape(*kernel.shape[:2], 1, -1)
        return self.add(
            op_type,
            layer,
            inputs,
            layer_type=layer_type,
            config=config,
            kernel=kernel,
            bias=bias,
        )

    def average_pool(self, layer: keras.layers.Layer, inputs: list[Channels]) -> Channels:
        """Average pooling as a depthwise convolution: XNNPACK has no int8 average pooling."""
        channels = layer.output.shape[-1]
        pool = keras.layers.DepthwiseConv2D(layer.pool_size, layer.strides, name=layer.name)
        return self.add(
            Depthwise,
            layer,
            inputs,
            layer_type=type(pool),
            config=pool.get_config() | {"trainable": False},
            kernel=np.full((*layer.pool_size, channels, 1), 1 / np.prod(layer.pool_size)),
            bias=np.zeros(channels),
        )

    def hard_sigmoid(
        self, layer: keras.layers.Layer, inputs: list[Channels], *, name: str
    ) -> Channels:
        """X / 6 + 1/2, which folds into a convolution, clipped to 0..1: in int8 by its range."""
        channels = layer.output.shape[-1]
        scaled = self.add(
            ChannelScaleShift,
            layer,
            inputs,
            name=f"{name}_scale",
            factor=np.full(channels, 1 / 6),
            offset=np.full(channels, 1 / 2),
        )
        clip = keras.layers.ReLU(1.0, name=name)
        return self.add(PerChannel, layer, [scaled], name=name, layer=clip)

    def product(self, layer: keras.layers.Layer, inputs: list[Channels]) -> Channels:
        multiply = keras.layers.Multiply(name=layer.name)
        return self.add(PerChannel, layer, inputs, layer=multiply)


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
