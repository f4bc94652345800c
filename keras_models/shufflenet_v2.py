"""ShuffleNet V2, https://arxiv.org/abs/1807.11164.  Widths: Table 5; units: Figures 3(c), 3(d)."""

import tf_keras as keras

from keras_models.errors import InputError
from keras_models.layers import (
    ChannelShuffle,
    Tensor,
    channel_split,
    check_width,
    conv,
    depthwise_conv,
    image_input,
)

REPEATS = (4, 8, 4)  # units in stages 2, 3 and 4, the stride-2 unit included
CHANNELS = {  # width: (conv1, stage 2, stage 3, stage 4, conv5)
    0.5: (24, 48, 96, 192, 1024),
    1.0: (24, 116, 232, 464, 1024),
    1.5: (24, 176, 352, 704, 1024),
    2.0: (24, 244, 488, 976, 2048),
}
STEMS = {"imagenet": 32, "cifar": 4}  # stem: total stride of the network
VARIANTS = ("torchvision", "megvii")


def shufflenet_v2(
    *,
    width: float = 1.0,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    stem: str = "imagenet",
    variant: str = "torchvision",
    allow_any_width: bool = False,
) -> keras.Model:
    """Builds ShuffleNet V2; the output is logits, (b, num_classes) float32.

    Args:
      width: width multiplier of Table 5.
      input_shape: (height, width, 3), divisible by 32; by 4 with the CIFAR stem.
      num_classes: length of the logits.
      stem: "imagenet" (stride 2 and max pooling, Table 5) or "cifar" (stride 1, for 32x32).
      variant: where channels are shuffled.  "torchvision" shuffles at the end of a unit and splits
        in halves; "megvii" (the authors' code) splits even and odd channels at the start of one,
        and its classifier has no bias.  One function up to a permutation of channels, so weights
        of one give wrong answers in the other.
      allow_any_width: widths outside Table 5 scale the stages of 1.0 and round them to even.

    Raises:
      InputError: unknown width, stem or variant; a resolution the strides do not divide.
    """
    check_width(width, CHANNELS, allow_any_width=allow_any_width)
    if stem not in STEMS:
        raise InputError(f"Expected a stem of {' or '.join(STEMS)}, got {stem!r}.")
    if variant not in VARIANTS:
        raise InputError(f"Expected a variant of {' or '.join(VARIANTS)}, got {variant!r}.")
    conv1, *stages, conv5 = CHANNELS.get(width) or _scaled_channels(width)

    inputs = x = image_input(input_shape, total_stride=STEMS[stem])
    x = _conv_bn_relu(x, conv1, kernel=3, strides=2 if stem == "imagenet" else 1, name="conv1")
    if stem == "imagenet":
        x = keras.layers.MaxPooling2D(3, 2, padding="same", name="max_pool")(x)
    for stage, (channels, repeats) in enumerate(zip(stages, REPEATS, strict=True), start=2):
        x = _downsampling_unit(x, channels, variant=variant, name=f"stage{stage}_unit1")
        for unit in range(2, repeats + 1):
            x = _basic_unit(x, channels, variant=variant, name=f"stage{stage}_unit{unit}")
    x = _conv_bn_relu(x, conv5, name="conv5")
    x = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
    x = keras.layers.Dense(num_classes, use_bias=variant != "megvii", name="classifier")(x)
    return keras.Model(inputs, x, name="shufflenet_v2")


def _basic_unit(x: Tensor, channels: int, *, variant: str, name: str) -> Tensor:
    """Figure 3(c): one half passes, the other is convolved."""
    if variant == "megvii":  # even channels to the left, odd ones to the right
        x = ChannelShuffle(channels // 2, name=f"{name}_shuffle")(x)
    left, right = channel_split(x, name=f"{name}_split")
    right = _conv_bn_relu(right, channels // 2, name=f"{name}_expand")
    right = _depthwise_bn(right, name=f"{name}_depthwise")
    right = _conv_bn_relu(right, channels // 2, name=f"{name}_project")
    return _join(left, right, variant=variant, name=name)


def _downsampling_unit(x: Tensor, channels: int, *, variant: str, name: str) -> Tensor:
    """Figure 3(d): both branches take all channels, at stride 2."""
    left = _depthwise_bn(x, strides=2, name=f"{name}_left_depthwise")
    left = _conv_bn_relu(left, channels // 2, name=f"{name}_left_project")
    right = _conv_bn_relu(x, channels // 2, name=f"{name}_expand")
    right = _depthwise_bn(right, strides=2, name=f"{name}_depthwise")
    right = _conv_bn_relu(right, channels // 2, name=f"{name}_project")
    return _join(left, right, variant=variant, name=name)


def _join(left: Tensor, right: Tensor, *, variant: str, name: str) -> Tensor:
    x = keras.layers.Concatenate(name=f"{name}_concat")([left, right])
    if variant == "torchvision":
        x = ChannelShuffle(2, name=f"{name}_shuffle")(x)
    return x


def _conv_bn_relu(
    x: Tensor, filters: int, *, kernel: int = 1, strides: int = 1, name: str
) -> Tensor:
    x = conv(x, filters, kernel=kernel, strides=strides, name=name)
    x = _batch_norm(name)(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _depthwise_bn(x: Tensor, *, strides: int = 1, name: str) -> Tensor:
    x = depthwise_conv(x, strides=strides, name=name)
    return _batch_norm(name)(x)


def _batch_norm(name: str) -> keras.layers.Layer:
    return keras.layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name=f"{name}_bn")


def _scaled_channels(width: float) -> tuple[int, ...]:
    conv1, *stages, conv5 = CHANNELS[1.0]
    return (conv1, *(max(2, 2 * round(c * width / 2)) for c in stages), conv5)
