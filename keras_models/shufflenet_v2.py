"""ShuffleNet V2, https://arxiv.org/abs/1807.11164.  Widths: Table 5; units: Figures 3(c), 3(d)."""

import tf_keras as keras

from keras_models.layers import (
    PADDINGS,
    ChannelShuffle,
    Tensor,
    activate,
    batch_norm,
    channel_split,
    check_option,
    check_width,
    conv,
    depthwise_conv,
    image_input,
    max_pool,
    squeeze_excite,
)

REPEATS = (4, 8, 4)  # units in stages 2, 3 and 4, the stride-2 unit included
CHANNELS = {  # width: (conv1, stage 2, stage 3, stage 4, conv5)
    0.5: (24, 48, 96, 192, 1024),
    1.0: (24, 116, 232, 464, 1024),
    1.5: (24, 176, 352, 704, 1024),
    2.0: (24, 244, 488, 976, 2048),
}
STEMS = {"imagenet": 32, "cifar": 8}  # stem: total stride of the network
VARIANTS = ("torchvision", "megvii")


def shufflenet_v2(
    *,
    width: float = 1.0,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    stem: str = "imagenet",
    variant: str = "torchvision",
    squeeze_excite: bool = False,
    residual: bool = False,
    padding: str = "same",
    allow_any_width: bool = False,
) -> keras.Model:
    """Builds ShuffleNet V2; the output is logits, (b, num_classes) float32.

    Args:
      width: width multiplier of Table 5.
      input_shape: (height, width, 3), at least 32 pixels a side; 8 with the CIFAR stem.
      num_classes: length of the logits.
      stem: "imagenet" (stride 2 and max pooling, Table 5) or "cifar" (stride 1, for 32x32).
      variant: where channels are shuffled.  "torchvision" shuffles at the end of a unit and splits
        in halves; "megvii" (the authors' code) splits even and odd channels at the start of one,
        its first unit has branches of unequal widths, and its classifier has no bias.
      squeeze_excite: ends each unit's right branch in a squeeze-and-excite module (Section 4.2).
      residual: adds the right branch's input to its output where the stride is 1 (Section 4.2).
      padding: that of strides, one of layers.PADDINGS; weights from PyTorch need "symmetric".
      allow_any_width: widths outside Table 5 scale the stages of 1.0 and round them to even.

    Raises:
      InputError: unknown width, stem, variant or padding; a resolution below the strides.
    """
    check_width(width, CHANNELS, allow_any_width=allow_any_width)
    check_option("stem", stem, STEMS)
    check_option("variant", variant, VARIANTS)
    check_option("padding", padding, PADDINGS)
    conv1, *stages, conv5 = CHANNELS.get(width) or _scaled_channels(width)

    inputs = x = image_input(input_shape, total_stride=STEMS[stem])
    strides = 2 if stem == "imagenet" else 1
    x = _conv_bn_relu(x, conv1, kernel=3, strides=strides, padding=padding, name="conv1")
    if stem == "imagenet":
        x = max_pool(x, padding=padding, name="max_pool")
    for stage, (channels, repeats) in enumerate(zip(stages, REPEATS, strict=True), start=2):
        x = _downsampling_unit(
            x,
            channels,
            variant=variant,
            with_squeeze_excite=squeeze_excite,
            padding=padding,
            name=f"stage{stage}_unit1",
        )
        for unit in range(2, repeats + 1):
            x = _basic_unit(
                x,
                channels,
                variant=variant,
                with_squeeze_excite=squeeze_excite,
                residual=residual,
                name=f"stage{stage}_unit{unit}",
            )
    x = _conv_bn_relu(x, conv5, name="conv5")
    x = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
    x = keras.layers.Dense(num_classes, use_bias=variant != "megvii", name="classifier")(x)
    return keras.Model(inputs, x, name="shufflenet_v2")


def _basic_unit(
    x: Tensor,
    channels: int,
    *,
    variant: str,
    with_squeeze_excite: bool,
    residual: bool,
    name: str,
) -> Tensor:
    """Figure 3(c): one half passes, the other is convolved."""
    if variant == "megvii":  # even channels to the left, odd ones to the right
        x = ChannelShuffle(channels // 2, name=f"{name}_shuffle")(x)
    left, right = channel_split(x, name=f"{name}_split")
    shortcut = right if residual else None
    right = _conv_bn_relu(right, channels // 2, name=f"{name}_expand")
    right = _depthwise_bn(right, name=f"{name}_depthwise")
    right = _project(
        right,
        channels // 2,
        shortcut=shortcut,
        with_squeeze_excite=with_squeeze_excite,
        name=name,
    )
    return _join(left, right, variant=variant, name=name)


def _downsampling_unit(
    x: Tensor,
    channels: int,
    *,
    variant: str,
    with_squeeze_excite: bool,
    padding: str,
    name: str,
) -> Tensor:
    """Figure 3(d): both branches take all channels, at stride 2."""
    # The authors' left branch keeps as many channels as it reads, in stage 2 fewer than half.
    left_channels = x.shape[-1] if variant == "megvii" else channels // 2
    left = _depthwise_bn(x, strides=2, padding=padding, name=f"{name}_left_depthwise")
    left = _conv_bn_relu(left, left_channels, name=f"{name}_left_project")
    right = _conv_bn_relu(x, channels // 2, name=f"{name}_expand")
    right = _depthwise_bn(right, strides=2, padding=padding, name=f"{name}_depthwise")
    right = _project(
        right,
        channels - left_channels,
        shortcut=None,
        with_squeeze_excite=with_squeeze_excite,
        name=name,
    )
    return _join(left, right, variant=variant, name=name)


def _project(
    x: Tensor, filters: int, *, shortcut: Tensor | None, with_squeeze_excite: bool, name: str
) -> Tensor:
    """The end of the right branch, with what Figure 2 of the appendix may add to it."""
    x = conv(x, filters, name=f"{name}_project")
    x = _batch_norm(x, name=f"{name}_project")
    if shortcut is None:
        x = activate(x, "relu", name=f"{name}_project")
    if with_squeeze_excite:  # as many neurons as half of the unit's channels: appendix, Table 2
        x = squeeze_excite(x, filters, name=name)
    if shortcut is None:
        return x
    x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return activate(x, "relu", name=name)


def _join(left: Tensor, right: Tensor, *, variant: str, name: str) -> Tensor:
    x = keras.layers.Concatenate(name=f"{name}_concat")([left, right])
    if variant == "torchvision":
        x = ChannelShuffle(2, name=f"{name}_shuffle")(x)
    return x


def _conv_bn_relu(
    x: Tensor,
    filters: int,
    *,
    kernel: int = 1,
    strides: int = 1,
    padding: str = "same",
    name: str,
) -> Tensor:
    x = conv(x, filters, kernel=kernel, strides=strides, padding=padding, name=name)
    return activate(_batch_norm(x, name=name), "relu", name=name)


def _depthwise_bn(x: Tensor, *, strides: int = 1, padding: str = "same", name: str) -> Tensor:
    return _batch_norm(depthwise_conv(x, strides=strides, padding=padding, name=name), name=name)


def _batch_norm(x: Tensor, *, name: str) -> Tensor:
    return batch_norm(x, epsilon=1e-5, momentum=0.9, name=name)


def _scaled_channels(width: float) -> tuple[int, ...]:
    conv1, *stages, conv5 = CHANNELS[1.0]
    return (conv1, *(max(2, 2 * round(c * width / 2)) for c in stages), conv5)
