"""AugShuffleNet, https://arxiv.org/abs/2203.06589, and its author's AugShuffleNet-Plus.

Its unit is that of ShuffleNet V2, but the first two convolutions read only `split_ratio` of the
channels; the last one reads half of their outputs and half of the channels that they do not read.
"""

import tf_keras as keras

from keras_models.layers import (
    Blocks,
    ChannelShuffle,
    ChannelSlice,
    Tensor,
    align_channels,
    check_align,
    check_option,
    check_width,
    image_input,
    max_pool,
)
from keras_models.shufflenet_v2 import align_branches, basic_unit, downsampling_unit
from shufflelite.errors import InputError

REPEATS = (4, 8, 4)  # units in stages 2, 3 and 4, the stride-2 unit included
CHANNELS = {  # width: (conv1, stage 2, stage 3, stage 4, conv5)
    0.25: (24, 24, 48, 96, 1024),  # in the Plus code only, without results
    0.5: (24, 48, 96, 192, 1024),
    1.0: (24, 120, 240, 480, 1024),  # not V2's 116, of which 3/8 are no whole number
    1.5: (24, 176, 352, 704, 1024),
}
STEMS = {"imagenet": 32, "cifar": 8}  # stem: total stride of the network
VARIANTS = ("plus", "original")


def augshufflenet(
    *,
    width: float = 1.0,
    split_ratio: float = 0.375,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    stem: str = "imagenet",
    variant: str = "plus",
    first_relu: bool = False,
    padding: str = "same",
    align: int = 1,
    allow_any_width: bool = False,
) -> keras.Model:
    """Builds AugShuffleNet; the output is logits, (b, num_classes) float32.

    Args:
      width: width multiplier.
      split_ratio: share of the channels that a unit of stages 3 and 4 convolves first, at most 0.5;
        in stage 2 it is 0.5.
      input_shape: (height, width, 3), each at least 32; 8 with the CIFAR stem.
      num_classes: length of the logits.
      stem: "imagenet" (stride 2 and max pooling) or "cifar" (stride 1, for 32x32).
      variant: the layout of channels.  "plus" never shuffles: each unit convolves the newest
        channels.  "original" convolves the first ones and shuffles, and its stage 2 has units of
        ShuffleNet V2.  Weights of one variant are wrong in the other.
      first_relu: a ReLU behind a unit's first convolution.  The paper has none; the Plus code had
        it when its published accuracies were measured.
      padding: one of layers.PADDINGS; weights from PyTorch need "symmetric".
      align: rounds the channels of conv1, conv5, each branch and those that a unit convolves first
        up to multiples of it, as in ShuffleNet V2.
      allow_any_width: other widths scale the stages of 1.0 and round them to multiples of 16.

    Raises:
      InputError: unknown width, stem, variant or padding; align below 1, odd or above 256; a
        resolution below the total stride; a ratio that leaves an odd number of channels.
    """
    check_width(width, CHANNELS, allow_any_width=allow_any_width)
    check_align(align)
    if align > 1 and align % 2:
        raise InputError(
            f"Expected align to be 1 or even (a unit exchanges half of its channels), got {align}."
        )
    check_option("stem", stem, STEMS)
    check_option("variant", variant, VARIANTS)
    blocks = Blocks(padding)
    conv1, *stages, conv5 = align_branches(CHANNELS.get(width) or _scaled_channels(width), align)
    _check_split_ratio(split_ratio, stages[1:], align)
    plus = variant == "plus"

    inputs = x = image_input(input_shape, total_stride=STEMS[stem])
    strides = 2 if stem == "imagenet" else 1
    x = blocks.conv_bn(x, conv1, kernel=3, strides=strides, activation="relu", name="conv1")
    if stem == "imagenet":
        x = max_pool(x, padding=padding, name="max_pool")
    for stage, (channels, repeats) in enumerate(zip(stages, REPEATS, strict=True), start=2):
        ratio = 0.5 if stage == 2 else split_ratio
        processed = _processed(ratio, channels, align)
        for unit in range(1, repeats + 1):
            name = f"stage{stage}_unit{unit}"
            if unit == 1:
                half = channels // 2
                x = downsampling_unit(x, channels, left_channels=half, blocks=blocks, name=name)
            elif stage == 2 and not plus:
                x = basic_unit(x, blocks=blocks, name=name)
            else:
                x = _aug_unit(
                    x, processed, plus=plus, first_relu=first_relu, blocks=blocks, name=name
                )
            if not plus:
                groups = 2 if unit == 1 or stage == 2 else 4
                x = ChannelShuffle(groups, name=f"{name}_shuffle")(x)
    x = blocks.conv_bn(x, conv5, activation="relu", name="conv5")
    x = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
    x = keras.layers.Dense(num_classes, name="classifier")(x)
    return keras.Model(inputs, x, name="augshufflenet")


def _aug_unit(
    x: Tensor, processed: int, *, plus: bool, first_relu: bool, blocks: Blocks, name: str
) -> Tensor:
    """Convolves `processed` channels, then exchanges half of them for half of the others."""
    channels = x.shape[-1]
    half, passed = processed // 2, (channels - processed) // 2
    if plus:
        expanded = (channels - processed, channels)
        kept, crossing = (0, passed), (passed, 2 * passed)
    else:
        expanded = (0, processed)
        crossing, kept = (processed, processed + passed), (processed + passed, channels)
    new = ChannelSlice(*expanded, name=f"{name}_split_expanded")(x)
    old_kept = ChannelSlice(*kept, name=f"{name}_split_kept")(x)
    old_crossing = ChannelSlice(*crossing, name=f"{name}_split_crossing")(x)

    activation = "relu" if first_relu else None
    new = blocks.conv_bn(new, processed, activation=activation, name=f"{name}_expand")
    new = blocks.depthwise_bn(new, name=f"{name}_depthwise")
    new_kept = ChannelSlice(0, half, name=f"{name}_depthwise_kept")(new)  # linear: no ReLU follows
    new_crossing = ChannelSlice(half, processed, name=f"{name}_depthwise_crossing")(new)
    mixed = keras.layers.Concatenate(name=f"{name}_crossover")([new_crossing, old_crossing])
    mixed = blocks.conv_bn(mixed, channels // 2, activation="relu", name=f"{name}_project")

    parts = [new_kept, old_kept, mixed] if plus else [mixed, old_kept, new_kept]
    return keras.layers.Concatenate(name=f"{name}_concat")(parts)


def _processed(split_ratio: float, channels: int, align: int) -> int:
    """Truncates as the Plus code does; the margin allows for a ratio with six digits."""
    return align_channels(int(split_ratio * channels + 1e-3), align)


def _check_split_ratio(split_ratio: float, stages: list[int], align: int) -> None:
    """Half of the processed channels and half of the others must be whole numbers."""
    if not 0 < split_ratio <= 0.5:
        raise InputError(f"Expected a split ratio above 0 and at most 0.5, got {split_ratio}.")
    for channels in stages:
        processed = _processed(split_ratio, channels, align)
        if processed == 0 or processed % 2:
            first = stages[0]  # stage 4 has twice its channels, so that its ratios work there too
            below = int(split_ratio * first) // 2 * 2
            near = [f"{k / first:.6g}" for k in (below, below + 2) if 0 < k <= first // 2]
            raise InputError(
                f"Expected a split ratio that gives an even number of channels, got {split_ratio} "
                f"({processed} of {channels}): try {' or '.join(near)}."
            )


def _scaled_channels(width: float) -> tuple[int, ...]:
    """Multiples of 16: 3/8 of them are even, and four groups divide them."""
    conv1, *stages, conv5 = CHANNELS[1.0]
    stage2 = 16 * max(1, round(stages[0] * width / 16))
    return (conv1, stage2, 2 * stage2, 4 * stage2, conv5)
