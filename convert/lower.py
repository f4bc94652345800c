"""Training form -> deployment form: the same function, in the layers that TFLite runs best.

The training form's Keras graph is read layer by layer, with one rule for each kind of layer.  What
may still change waits: a convolution for its batch norm and activation, zeros at the border for the
window that reads them, a concat for the ReLU that its inputs can do themselves.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from convert import graph
from keras_models.layers import HardSigmoid, HardSwish, Tensor


class RowPadding(keras.layers.Layer):
    """Zeros around a map, ((top, bottom), (left, right)), for readers that are no convolution.

    XNNPACK merges a PAD into a convolution, else it copies what lies behind the last dimension that
    is padded: pixel by pixel, unless rows are one dimension.
    """

    def __init__(self, padding: Sequence[Sequence[int]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.padding = padding

    def call(self, x: Tensor) -> Tensor:
        """Gives (b, top + h + bottom, left + w + right, c)."""
        _, height, width, channels = x.shape
        vertical, (left, right) = self.padding
        rows = tf.reshape(x, (-1, height, width * channels))
        rows = tf.pad(rows, ((0, 0), vertical, (left * channels, right * channels)))
        return tf.reshape(rows, (-1, height + sum(vertical), left + width + right, channels))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments, as Keras stores them."""
        return {**super().get_config(), "padding": self.padding}


@dataclass(frozen=True)
class _Convolution:
    """A convolution or fully connected layer that may still absorb what follows it."""

    kind: type[keras.layers.Layer]
    config: Mapping[str, Any]
    inputs: Tensor
    kernel: np.ndarray
    bias: np.ndarray

    def scaled(self, factor: np.ndarray, offset: np.ndarray) -> "_Convolution":
        """Gives `factor` times as much, and `offset` more; each is (channels,)."""
        depthwise = issubclass(self.kind, keras.layers.DepthwiseConv2D)
        per_kernel = factor.reshape(self.kernel.shape[2:]) if depthwise else factor
        return replace(self, kernel=self.kernel * per_kernel, bias=self.bias * factor + offset)

    def activated(self, activation: str) -> "_Convolution":
        return replace(self, config={**self.config, "activation": activation})

    @property
    def is_linear(self) -> bool:
        return self.config["activation"] == "linear"

    @cached_property
    def tensor(self) -> Tensor:
        """The layer in the deployment form, and what comes out of it."""
        layer = self.kind.from_config({**self.config, "use_bias": True})
        tensor = layer(self.inputs)
        layer.set_weights([self.kernel, self.bias])
        return tensor


@dataclass(frozen=True)
class _Padded:
    """A tensor with zeros around it that are not there yet."""

    layer: keras.layers.Layer
    inputs: Tensor

    @cached_property
    def tensor(self) -> Tensor:
        """The tensor with its zeros, which cost an operator."""
        return graph.copy(self.layer, [self.inputs])


@dataclass(frozen=True)
class _Concat:
    """A concat of values that nothing else reads."""

    layer: keras.layers.Layer
    inputs: list[Any]

    def rectified(self, relu: keras.layers.Layer) -> "_Concat":
        """What is rectified before a concat need not be behind it."""
        inputs = []
        for i, value in enumerate(self.inputs):
            if _is_open(value):
                inputs.append(value.activated(_fused_name(relu)))
            else:
                config = relu.get_config() | {"name": f"{relu.name}_{i}"}
                inputs.append(keras.layers.ReLU.from_config(config)(_tensor(value)))
        return replace(self, inputs=inputs)

    @cached_property
    def tensor(self) -> Tensor:
        """The concat in the deployment form."""
        return graph.copy(self.layer, [_tensor(value) for value in self.inputs])


def lower(model: keras.Model, *, integer: bool = False) -> keras.Model:
    """Returns the deployment form of a training-form model, weights included.

    Layers keep their names; a folded batch norm or ReLU disappears into the layer before it, and
    what only training needs (dropout) disappears altogether.

    Args:
      model: The training form.
      integer: Write hard-swish in layers that have fast integer kernels.

    Raises:
      ValueError: a batch norm has no convolution to fold into.
    """
    reads = graph.sources(model)
    readers = Counter(name for names in reads.values() for name in names)

    def step(layer: keras.layers.Layer, inputs: list[Any]) -> Any:
        only_reader = all(readers[name] == 1 for name in reads[layer.name])
        return _lower_layer(layer, inputs, only_reader=only_reader, integer=integer)

    values = graph.interpret(model, step)
    inputs, outputs = (_tensor(values[name]) for name in (*model.input_names, *model.output_names))
    return keras.Model(inputs, outputs, name=model.name)


def _lower_layer(
    layer: keras.layers.Layer, inputs: list[Any], *, only_reader: bool, integer: bool
) -> Any:
    value: Any = inputs[0] if inputs else None
    open_end = only_reader and _is_open(value)
    match layer:
        case keras.layers.ZeroPadding2D():
            return _Padded(layer, _tensor(value))
        case keras.layers.Conv2D() | keras.layers.DepthwiseConv2D() | keras.layers.Dense():
            return _convolution(layer, value)
        case keras.layers.BatchNormalization():
            if not open_end:
                raise ValueError(f"Batch norm {layer.name!r} has no convolution to fold into.")
            return value.scaled(*_factor_and_offset(layer))
        case keras.layers.ReLU() if open_end and _fuses(layer):
            return value.activated(_fused_name(layer))
        case keras.layers.Concatenate() if only_reader:
            return _Concat(layer, inputs)
        case keras.layers.ReLU() if only_reader and isinstance(value, _Concat) and _fuses(layer):
            return value.rectified(layer)
        case keras.layers.AveragePooling2D(padding="valid"):
            return _average_pool(layer, value)
        case keras.layers.MaxPooling2D() if isinstance(value, _Padded):
            inputs, padding = _read(layer, value)
            if padding == "valid":
                zeros = value.layer.padding
                inputs = RowPadding(zeros, name=value.layer.name)(value.inputs)
            return type(layer).from_config(layer.get_config() | {"padding": padding})(inputs)
        case keras.layers.Activation(activation=keras.activations.swish):
            gate = keras.layers.Activation("sigmoid", name=f"{layer.name}_gate")(_tensor(value))
            return keras.layers.Multiply(name=layer.name)([_tensor(value), gate])
        case HardSigmoid() if open_end:
            return _hard_sigmoid(value, name=layer.name)
        case HardSwish() if integer:
            return _integer_hard_swish(layer, _tensor(value))
        case keras.layers.Dropout():
            return value if only_reader else _tensor(value)
        case _:
            return graph.copy(layer, [_tensor(v) for v in inputs])


def _convolution(layer: keras.layers.Layer, value: Any) -> _Convolution:
    config = layer.get_config()
    inputs = _tensor(value) if "padding" not in config else None
    if inputs is None:
        inputs, config["padding"] = _read(layer, value)
    kernel, *bias = (np.asarray(w, np.float64) for w in layer.get_weights())
    bias = bias or [np.zeros(layer.output.shape[-1])]
    return _Convolution(type(layer), config, inputs, kernel, *bias)


def _average_pool(layer: keras.layers.Layer, value: Any) -> _Convolution:
    """Average pooling as a depthwise convolution: XNNPACK has no int8 average pooling."""
    inputs, padding = _read(layer, value)
    channels = layer.output.shape[-1]
    pool = keras.layers.DepthwiseConv2D(layer.pool_size, layer.strides, padding, name=layer.name)
    kernel = np.full((*layer.pool_size, channels, 1), 1 / np.prod(layer.pool_size))
    return _Convolution(type(pool), pool.get_config(), inputs, kernel, np.zeros(channels))


def _read(window: keras.layers.Layer, value: Any) -> tuple[Tensor, str]:
    """What a convolution or pooling reads in the deployment form, and with which padding.

    TensorFlow's own padding costs nothing; an explicit one is an operator, though one that XNNPACK
    merges into the convolution behind it.
    """
    if isinstance(value, _Padded) and window.padding == "valid":
        size = getattr(window, "kernel_size", None) or window.pool_size
        dilation = getattr(window, "dilation_rate", (1, 1))
        sides = zip(
            value.inputs.shape[1:3],
            value.layer.padding,
            size,
            window.strides,
            dilation,
            strict=True,
        )
        if all(_is_same_padding(*side) for side in sides):
            return value.inputs, "same"
    return _tensor(value), window.padding


def _is_same_padding(
    side: int, zeros: tuple[int, int], kernel: int, stride: int, dilation: int
) -> bool:
    reach = dilation * (kernel - 1) + 1
    outputs = -(-side // stride)
    missing = max((outputs - 1) * stride + reach - side, 0)
    return zeros[0] == missing // 2 and outputs == (side + sum(zeros) - reach) // stride + 1


def _hard_sigmoid(value: _Convolution, *, name: str) -> Tensor:
    """Gives x / 6 + 1/2, which a convolution can do, clipped to 0..1: in int8 by its range."""
    channels = len(value.bias)
    gate = value.scaled(np.full(channels, 1 / 6), np.full(channels, 1 / 2))
    return keras.layers.ReLU(1.0, name=name)(gate.tensor)


def _integer_hard_swish(layer: keras.layers.Layer, x: Tensor) -> Tensor:
    """Gives x times its hard-sigmoid: XNNPACK has no int8 HARD_SWISH."""
    *_, channels = shape = x.shape[1:]
    if len(shape) == 1:
        x = keras.layers.Reshape((1, 1, channels), name=f"{layer.name}_pixel")(x)
    same = keras.layers.DepthwiseConv2D(1, name=f"{layer.name}_scale")
    ones, zeros = np.ones((1, 1, channels, 1)), np.zeros(channels)
    gate = _Convolution(type(same), same.get_config(), x, ones, zeros)
    x = keras.layers.Multiply(name=layer.name)([x, _hard_sigmoid(gate, name=f"{layer.name}_gate")])
    if len(shape) == 1:
        x = keras.layers.Reshape((channels,), name=f"{layer.name}_vector")(x)
    return x


def _is_open(value: Any) -> bool:
    return isinstance(value, _Convolution) and value.is_linear


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


def _fuses(relu: keras.layers.ReLU) -> bool:
    return relu.max_value in (None, 6.0) and not relu.negative_slope and not relu.threshold


def _fused_name(relu: keras.layers.ReLU) -> str:
    return "relu6" if relu.max_value else "relu"


def _tensor(value: Any) -> Tensor:
    return value.tensor if isinstance(value, _Convolution | _Padded | _Concat) else value
