"""The blocks and layers that the networks share.  Tensors are NHWC."""

import math
from collections.abc import Collection
from typing import Any

import tf_keras as keras

from keras_models.errors import InputError

Tensor = Any  # Keras has no types


@keras.utils.register_keras_serializable(package="shufflelite")
class ChannelShuffle(keras.layers.Layer):
    """Spreads the channels of each group over all groups (ShuffleNet V1, Figure 1c).

    Channels seen as (groups, c / groups) become (c / groups, groups).  Shuffling by g and then by
    c / g is the identity.
    """

    def __init__(self, groups: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.groups = groups

    def build(self, input_shape: Any) -> None:
        """Refuses channels that do not divide into the groups."""
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
        """Keeps all but the channels' number."""
        return x[..., self.start : self.stop]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments, for saved models."""
        return {**super().get_config(), "start": self.start, "stop": self.stop}


def conv(x: Tensor, filters: int, *, kernel: int = 1, strides: int = 1, name: str) -> Tensor:
    """Convolution without bias: a batch norm follows."""
    return keras.layers.Conv2D(
        filters,
        kernel,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def depthwise_conv(x: Tensor, *, kernel: int = 3, strides: int = 1, name: str) -> Tensor:
    """Depthwise convolution without bias: a batch norm follows."""
    return keras.layers.DepthwiseConv2D(
        kernel,
        strides,
        padding="same",
        use_bias=False,
        depthwise_initializer="he_normal",
        name=name,
    )(x)


def channel_split(x: Tensor, *, name: str) -> tuple[Tensor, Tensor]:
    """Splits the channels into a left and a right half."""
    channels = x.shape[-1]
    left = ChannelSlice(0, channels // 2, name=f"{name}_left")(x)
    right = ChannelSlice(channels // 2, channels, name=f"{name}_right")(x)
    return left, right


def image_input(input_shape: tuple[int, int, int], *, total_stride: int) -> Tensor:
    """The network's input; raises InputError where the strides do not divide the resolution."""
    height, width, _ = input_shape
    for side in (height, width):
        if side < total_stride or side % total_stride:
            below = side // total_stride * total_stride
            near = [str(r) for r in (below, below + total_stride) if r]
            raise InputError(
                f"Expected a resolution divisible by {total_stride} (the network's total stride), "
                f"got {side}: try {' or '.join(near)}."
            )
    return keras.Input(input_shape, name="image")


def check_width(width: float, known: Collection[float], *, allow_any_width: bool) -> None:
    """Raises InputError for a width multiplier that the paper does not have."""
    usable = 0 < width < math.inf
    if not usable or (width not in known and not allow_any_width):
        raise InputError(
            f"Expected a width multiplier of {', '.join(map(str, sorted(known)))}, got {width}"
            + (": pass --allow_any_width for others." if usable else ".")
        )
