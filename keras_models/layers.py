"""The blocks and layers that the networks share.  Tensors are NHWC."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import tf_keras as keras

from shufflelite.errors import InputError

Tensor = Any  # Keras has no types


@keras.utils.register_keras_serializable(package="shufflelite")
class ChannelShuffle(keras.layers.Layer):
    """Spreads the channels of each group over all groups (ShuffleNet V1, Figure 1c).

    Reshapes the channels to (groups, c / groups) and transposes them.  Shuffling by g and then by
    c / g is the identity.
    """

    def __init__(self, groups: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.groups = groups

    def build(self, input_shape: Any) -> None:
        """Raises InputError if the groups do not divide the channels."""
        if input_shape[-1] % self.groups:
            raise InputError(f"{input_shape[-1]} channels do not divide into {self.groups} groups.")
        super().build(input_shape)

    def call(self, x: Tensor) -> Tensor:
        """Keeps the shape, (b, h, w, c)."""
        _, h, w, c = x.shape
        x = keras.backend.reshape(x, (-1, h * w, self.groups, c // self.groups))
        x = keras.backend.permute_dimensions(x, (0, 1, 3, 2))
        return keras.backend.reshape(x, (-1, h, w, c))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments, for saved models."""
        return {**super().get_config(), "groups": self.groups}


@keras.utils.register_keras_serializable(package="shufflelite")
class ChannelSlice(keras.layers.Layer):
    """Keeps channels start to stop, (b, h, w, c) -> (b, h, w, stop - start): half of a split."""

    def __init__(self, start: int, stop: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start = start
        self.stop = stop

    def call(self, x: Tensor) -> Tensor:
        """Changes the number of channels alone."""
        return x[..., self.start : self.stop]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments, for saved models."""
        return {**super().get_config(), "start": self.start, "stop": self.stop}


@keras.utils.register_keras_serializable(package="shufflelite")
class HardSigmoid(keras.layers.Layer):
    """relu6(x + 3) / 6 (MobileNet V3, Section 5.2); Keras' hard sigmoid has another slope."""

    def call(self, x: Tensor) -> Tensor:
        """Keeps the shape."""
        return keras.backend.relu(x + 3.0, max_value=6.0) * (1.0 / 6.0)


@keras.utils.register_keras_serializable(package="shufflelite")
class HardSwish(keras.layers.Layer):
    """x * relu6(x + 3) / 6 (MobileNet V3, Section 5.2)."""

    def call(self, x: Tensor) -> Tensor:
        """Keeps the shape."""
        return x * (keras.backend.relu(x + 3.0, max_value=6.0) * (1.0 / 6.0))


PADDINGS = ("same", "symmetric", "bottom_right")
ACTIVATIONS: dict[str, Callable[[str], keras.layers.Layer]] = {
    "relu": lambda name: keras.layers.ReLU(name=f"{name}_relu"),
    "relu6": lambda name: keras.layers.ReLU(6.0, name=f"{name}_relu"),
    "swish": lambda name: keras.layers.Activation("swish", name=f"{name}_swish"),
    "sigmoid": lambda name: keras.layers.Activation("sigmoid", name=f"{name}_sigmoid"),
    "hard_swish": lambda name: HardSwish(name=f"{name}_hard_swish"),
    "hard_sigmoid": lambda name: HardSigmoid(name=f"{name}_hard_sigmoid"),
}


def conv(
    x: Tensor,
    filters: int,
    *,
    kernel: int = 1,
    strides: int = 1,
    groups: int = 1,
    use_bias: bool = False,
    padding: str = "same",
    name: str,
) -> Tensor:
    """Convolution, by default without bias: a batch norm follows."""
    x, mode = _pad(x, kernel=kernel, strides=strides, padding=padding, name=name)
    return keras.layers.Conv2D(
        filters,
        kernel,
        strides,
        padding=mode,
        groups=groups,
        use_bias=use_bias,
        kernel_initializer="he_uniform",
        name=name,
    )(x)


def depthwise_conv(
    x: Tensor, *, kernel: int = 3, strides: int = 1, padding: str = "same", name: str
) -> Tensor:
    """Depthwise convolution without bias: a batch norm follows."""
    x, mode = _pad(x, kernel=kernel, strides=strides, padding=padding, name=name)
    return keras.layers.DepthwiseConv2D(
        kernel,
        strides,
        padding=mode,
        use_bias=False,
        depthwise_initializer="he_uniform",
        name=name,
    )(x)


def max_pool(x: Tensor, *, padding: str = "same", name: str) -> Tensor:
    """3x3 max pooling at stride 2 of values that are not negative."""
    x, mode = _pad(x, kernel=3, strides=2, padding=padding, name=name)
    return keras.layers.MaxPooling2D(3, 2, padding=mode, name=name)(x)


def average_pool(x: Tensor, *, padding: str = "same", name: str) -> Tensor:
    """3x3 average pooling at stride 2; zeros beyond the border count, as in Caffe and PyTorch."""
    x = _zero_padding(x, kernel=3, strides=2, padding=padding, name=name)
    return keras.layers.AveragePooling2D(3, 2, name=name)(x)


def _pad(x: Tensor, *, kernel: int, strides: int, padding: str, name: str) -> tuple[Tensor, str]:
    """Adds explicit zeros where Keras cannot pad; returns the padding mode left to Keras.

    The three differ only at strides above 1.  "same" is TensorFlow's: an even resolution gets its
    odd zero at the bottom and right.  "symmetric" is PyTorch's: kernel // 2 on all sides.
    "bottom_right" is that of Keras' own MobileNet: like "same", but at odd resolutions too.
    """
    if strides == 1 or padding == "same":
        return x, "same"
    return _zero_padding(x, kernel=kernel, strides=strides, padding=padding, name=name), "valid"


def _zero_padding(x: Tensor, *, kernel: int, strides: int, padding: str, name: str) -> Tensor:
    pads = tuple(
        _pads(size, kernel=kernel, strides=strides, padding=padding) for size in x.shape[1:3]
    )
    return keras.layers.ZeroPadding2D(pads, name=f"{name}_pad")(x)


def _pads(size: int, *, kernel: int, strides: int, padding: str) -> tuple[int, int]:
    if padding == "symmetric":
        return kernel // 2, kernel // 2
    if padding == "bottom_right":
        return 0, kernel - strides
    total = max((math.ceil(size / strides) - 1) * strides + kernel - size, 0)
    return total // 2, total - total // 2


def batch_norm(x: Tensor, *, epsilon: float, momentum: float, name: str) -> Tensor:
    """Batch norm of the layer `name`."""
    return keras.layers.BatchNormalization(epsilon=epsilon, momentum=momentum, name=f"{name}_bn")(x)


def activate(x: Tensor, activation: str, *, name: str) -> Tensor:
    """One of ACTIVATIONS, for the layer `name`."""
    return ACTIVATIONS[activation](name)(x)


@dataclass(frozen=True)
class Blocks:
    """The blocks of one network, with the settings that all of them share.

    Padding and epsilon depend on the origin of trained weights.  The builder applies them: a
    rewrite of the finished model would build every layer twice.

    Attributes:
      padding: one of PADDINGS, for layers with strides.
      epsilon: of the batch norms.
      momentum: of the batch norms.
    """

    padding: str = "same"
    epsilon: float = 1e-5
    momentum: float = 0.9

    def __post_init__(self) -> None:
        check_option("padding", self.padding, PADDINGS)

    def conv_bn(
        self,
        x: Tensor,
        filters: int,
        *,
        kernel: int = 1,
        strides: int = 1,
        groups: int = 1,
        activation: str | None = None,
        name: str,
    ) -> Tensor:
        """Convolution, batch norm, and one of ACTIVATIONS or none."""
        x = conv(
            x,
            filters,
            kernel=kernel,
            strides=strides,
            groups=groups,
            padding=self.padding,
            name=name,
        )
        return self._batch_norm(x, activation, name)

    def depthwise_bn(
        self,
        x: Tensor,
        *,
        kernel: int = 3,
        strides: int = 1,
        activation: str | None = None,
        name: str,
    ) -> Tensor:
        """Depthwise convolution, batch norm, and one of ACTIVATIONS or none."""
        x = depthwise_conv(x, kernel=kernel, strides=strides, padding=self.padding, name=name)
        return self._batch_norm(x, activation, name)

    def _batch_norm(self, x: Tensor, activation: str | None, name: str) -> Tensor:
        x = batch_norm(x, epsilon=self.epsilon, momentum=self.momentum, name=name)
        return activate(x, activation, name=name) if activation else x


def squeeze_excite(
    x: Tensor, reduced: int, *, activation: str = "relu", gate: str = "sigmoid", name: str
) -> Tensor:
    """Scales each channel by a gate computed from all of them (arXiv:1709.01507).

    `reduced` is the number of channels between its two convolutions.
    """
    channels = x.shape[-1]
    s = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_se_pool")(x)
    s = conv(s, reduced, use_bias=True, name=f"{name}_se_reduce")
    s = activate(s, activation, name=f"{name}_se_reduce")
    s = conv(s, channels, use_bias=True, name=f"{name}_se_expand")
    s = activate(s, gate, name=f"{name}_se_expand")
    return keras.layers.Multiply(name=f"{name}_se_scale")([x, s])


def stochastic_depth(x: Tensor, rate: float, *, name: str) -> Tensor:
    """While training, drops the branch of an example with probability `rate` (arXiv:1603.09382)."""
    if rate == 0:
        return x
    return keras.layers.Dropout(rate, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(x)


def channel_split(x: Tensor, *, name: str) -> tuple[Tensor, Tensor]:
    """Splits the channels into a left and a right half."""
    channels = x.shape[-1]
    left = ChannelSlice(0, channels // 2, name=f"{name}_left")(x)
    right = ChannelSlice(channels // 2, channels, name=f"{name}_right")(x)
    return left, right


def image_input(input_shape: tuple[int, int, int], *, total_stride: int) -> Tensor:
    """The network's input; raises InputError for a resolution below the total stride."""
    smallest = min(input_shape[:2])
    if smallest < total_stride:
        raise InputError(
            f"Expected a resolution of at least {total_stride} (the network's total stride), "
            f"got {smallest}."
        )
    return keras.Input(input_shape, name="image")


def check_width(width: float, known: Collection[float], *, allow_any_width: bool) -> None:
    """Raises InputError for a width multiplier that is not in the paper."""
    if allow_any_width and not 0 < width < math.inf:
        raise InputError(f"Expected a width multiplier above 0, got {width}.")
    if not allow_any_width and width not in known:
        raise InputError(
            f"Expected a width multiplier of {', '.join(map(str, sorted(known)))}, got {width}: "
            "allow_any_width takes others."
        )


def check_align(align: int) -> None:
    """Raises InputError for a number of which channels cannot be multiples."""
    if not 1 <= align <= 256:
        raise InputError(f"Expected align to be 1 to 256, got {align}.")


def check_option(name: str, value: object, known: Collection[object]) -> None:
    """Raises InputError for a value that is not one of the `known` ones."""
    if value not in known:
        *others, last = map(str, known)
        expected = f"{', '.join(others)} or {last}" if others else last
        raise InputError(f"Expected {name} to be {expected}, got {value!r}.")


def check_rate(name: str, rate: float) -> None:
    """Raises InputError for a rate that dropout cannot have."""
    if not 0 <= rate < 1:
        raise InputError(f"Expected {name} to be at least 0 and below 1, got {rate}.")


def align_channels(channels: int, align: int) -> int:
    """The least multiple of `align` that is not below `channels`."""
    return -(-channels // align) * align


def round_channels(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, not below 90 % of `channels` (MobileNet V2's code)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor
