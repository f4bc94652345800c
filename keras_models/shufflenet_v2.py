"""ShuffleNet V2, https://arxiv.org/abs/1807.11164.  Widths: Table 5; units: Figures 3(c), 3(d)."""

import tf_keras as keras

from keras_models.layers import (
    Blocks,
    ChannelShuffle,
    Tensor,
    activate,
    align_channels,
    channel_split,
    check_align,
    check_option,
    check_width,
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
    classifier_bias: bool | None = None,
    align: int = 1,
    allow_any_width: bool = False,
) -> keras.Model:
    """Builds ShuffleNet V2; the output is logits, (b, num_classes) float32.

    Args:
      width: width multiplier of Table 5.
      input_shape: (height, width, 3), each at least 32; 8 with the CIFAR stem.
      num_classes: length of the logits.
      stem: "imagenet" (stride 2 and max pooling, Table 5) or "cifar" (stride 1, for 32x32).
      variant: where channels are shuffled.  "torchvision" shuffles at the end of a unit and splits
        in halves; "megvii" (the authors' code) splits even and odd channels at the start of one,
        its first unit has branches of unequal widths, and its classifier has no bias.
      squeeze_excite: ends each unit's right branch in a squeeze-and-excite module (Section 4.2).
      residual: adds the right branch's input to its output where the stride is 1 (Section 4.2).
      padding: one of layers.PADDINGS; weights from PyTorch need "symmetric".
      classifier_bias: whether the classifier has a bias; None: unless the variant is megvii.
      align: rounds the channels of conv1, conv5 and each branch up to multiples of it: 16 fills the
        tiles of channels that XNNPACK's kernels compute at once (docs/lowering.md).
      allow_any_width: widths outside Table 5; they scale the stages of 1.0, rounded to even.

    Raises:
      InputError: unknown width, stem, variant or padding; align below 1 or above 256; a resolution
        below the total stride.
    """
    check_width(width, CHANNELS, allow_any_width=allow_any_width)
    check_align(align)
    check_option("stem", stem, STEMS)
    check_option("variant", variant, VARIANTS)
    blocks = Blocks(padding)
    conv1, *stages, conv5 = align_branches(CHANNELS.get(width) or _scaled_channels(width), align)
    megvii = variant == "megvii"

    inputs = x = image_input(input_shape, total_stride=STEMS[stem])
    strides = 2 if stem == "imagenet" else 1
    x = blocks.conv_bn(x, conv1, kernel=3, strides=strides, activation="relu", name="conv1")
    if stem == "imagenet":
        x = max_pool(x, padding=padding, name="max_pool")
    for stage, (channels, repeats) in enumerate(zip(stages, REPEATS, strict=True), start=2):
        for unit in range(1, repeats + 1):
            name = f"stage{stage}_unit{unit}"
            if unit == 1:
                # The authors' left branch keeps its channels, in stage 2 fewer than half.
                left = x.shape[-1] if megvii else channels // 2
                x = downsampling_unit(
                    x,
                    channels,
                    left_channels=left,
                    with_squeeze_excite=squeeze_excite,
                    blocks=blocks,
                    name=name,
                )
            else:
                if megvii:  # even channels to the left, odd ones to the right
                    x = ChannelShuffle(channels // 2, name=f"{name}_shuffle")(x)
                x = basic_unit(
                    x,
                    with_squeeze_excite=squeeze_excite,
                    residual=residual,
                    blocks=blocks,
                    name=name,
                )
            if not megvii:
                x = ChannelShuffle(2, name=f"{name}_shuffle")(x)
    x = blocks.conv_bn(x, conv5, activation="relu", name="conv5")
    x = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
    bias = not megvii if classifier_bias is None else classifier_bias
    x = keras.layers.Dense(num_classes, use_bias=bias, name="classifier")(x)
    return keras.Model(inputs, x, name="shufflenet_v2")


def basic_unit(
    x: Tensor,
    *,
    with_squeeze_excite: bool = False,
    residual: bool = False,
    blocks: Blocks,
    name: str,
) -> Tensor:
    """Figure 3(c) without the shuffle: one half passes, the other is convolved."""
    left, right = channel_split(x, name=f"{name}_split")
    half = right.shape[-1]
    shortcut = right
    right = blocks.conv_bn(right, half, activation="relu", name=f"{name}_expand")
    right = blocks.depthwise_bn(right, name=f"{name}_depthwise")
    activation = None if residual else "relu"
    right = blocks.conv_bn(right, half, activation=activation, name=f"{name}_project")
    if with_squeeze_excite:  # as many neurons as half of the unit's channels: appendix, Table 2
        right = squeeze_excite(right, half, name=name)
    if residual:  # appendix, Figure 2
        right = keras.layers.Add(name=f"{name}_add")([shortcut, right])
        right = activate(right, "relu", name=name)
    return keras.layers.Concatenate(name=f"{name}_concat")([left, right])


def downsampling_unit(
    x: Tensor,
    channels: int,
    *,
    left_channels: int,
    with_squeeze_excite: bool = False,
    blocks: Blocks,
    name: str,
) -> Tensor:
    """Figure 3(d) without the shuffle: both branches take all channels, at stride 2."""
    left = blocks.depthwise_bn(x, strides=2, name=f"{name}_left_depthwise")
    left = blocks.conv_bn(left, left_channels, activation="relu", name=f"{name}_left_project")
    right = blocks.conv_bn(x, channels // 2, activation="relu", name=f"{name}_expand")
    right = blocks.depthwise_bn(right, strides=2, name=f"{name}_depthwise")
    right_channels = channels - left_channels
    right = blocks.conv_bn(right, right_channels, activation="relu", name=f"{name}_project")
    if with_squeeze_excite:
        right = squeeze_excite(right, right_channels, name=name)
    return keras.layers.Concatenate(name=f"{name}_concat")([left, right])


def align_branches(channels: tuple[int, ...], align: int) -> tuple[int, ...]:
    """Rounds a row of CHANNELS up to multiples of `align`; stages have two branches each."""
    conv1, *stages, conv5 = channels
    halves = (align_channels(stage // 2, align) for stage in stages)
    return (
        align_channels(conv1, align),
        *(2 * half for half in halves),
        align_channels(conv5, align),
    )


def _scaled_channels(width: float) -> tuple[int, ...]:
    conv1, *stages, conv5 = CHANNELS[1.0]
    return (conv1, *(max(2, 2 * round(c * width / 2)) for c in stages), conv5)
