"""AugShuffleNet, https://arxiv.org/abs/2203.06589, and its author's AugShuffleNet-Plus.

Of ShuffleNet V2's unit only `split_ratio` of the channels enter the first two convolutions; half of
what comes out changes places with half of what did not enter before the last convolution sees it.
"""

import tf_keras as keras

from keras_models.layers import (
    PADDINGS,
    ChannelShuffle,
    ChannelSlice,
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
)
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
    allow_any_width: bool = False,
) -> keras.Model:
    """Builds AugShuffleNet; the output is logits, (b, num_classes) float32.

    Args:
      width: width multiplier.
      split_ratio: part of the channels of stages 3 and 4 that a unit convolves first, at most 0.5;
        in stage 2 it is 0.5.
      input_shape: (height, width, 3), at least 32 pixels a side; 8 with the CIFAR stem.
      num_classes: length of the logits.
      stem: "imagenet" (stride 2 and max pooling) or "cifar" (stride 1, for 32x32).
      variant: the order of channels.  "plus" never shuffles: each unit takes the newest channels
        and ages the others.  "original" takes the first ones and shuffles, and its stage 2 has
        units of ShuffleNet V2.  Weights of one give wrong answers in the other.
      first_relu: a ReLU behind a unit's first convolution.  The paper drops it, but the Plus code
        had it when its published accuracies came about.
      padding: that of strides, one of layers.PADDINGS; weights from PyTorch need "symmetric".
      allow_any_width: other widths scale the stages of 1.0 and round them to multiples of 16.

    Raises:
      InputError: unknown width, stem, variant or padding; a resolution below the strides; a ratio
        that leaves an odd number of channels.
    """
    check_width(width, CHANNELS, allow_any_width=allow_any_width)
    check_option("stem", stem, STEMS)
    check_option("variant", variant, VARIANTS)
    check_option("padding", padding, PADDINGS)
    conv1, *stages, conv5 = CHANNELS.get(width) or _scaled_channels(width)
    _check_split_ratio(split_ratio, stages[1:])

    inputs = x = image_input(input_shape, total_stride=STEMS[stem])
    strides = 2 if stem == "imagenet" else 1
    x = _conv_bn_relu(x, conv1, kernel=3, strides=strides, padding=padding, name="conv1")
    if stem == "imagenet":
        x = max_pool(x, padding=padding, name="max_pool")
    for stage, (channels, repeats) in enumerate(zip(stages, REPEATS, strict=True), start=2):
        name = f"stage{stage}_unit1"
        x = _downsampling_unit(x, channels, variant=variant, padding=padding, name=name)
        for unit in range(2, repeats + 1):
            name = f"stage{stage}_unit{unit}"
            if stage > 2:
                processed = _processed(split_ratio, channels)
                x = _aug_unit(x, processed, variant=variant, first_relu=first_relu, name=name)
            elif variant == "plus":
                x = _aug_unit(x, channels // 2, variant=variant, first_relu=first_relu, name=name)
            else:
                x = _shufflenet_v2_unit(x, name=name)
    x = _conv_bn_relu(x, conv5, name="conv5")
    x = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
    x = keras.layers.Dense(num_classes, name="classifier")(x)
    return keras.Model(inputs, x, name="augshufflenet")


def _aug_unit(x: Tensor, processed: int, *, variant: str, first_relu: bool, name: str) -> Tensor:
    """Convolves `processed` channels, half of which then cross over to those that were not."""
    channels = x.shape[-1]
    half, passed = processed // 2, (channels - processed) // 2
    if variant == "plus":
        expanded = (channels - processed, channels)
        kept, crossing = (0, passed), (passed, 2 * passed)
    else:
        expanded = (0, processed)
        crossing, kept = (processed, processed + passed), (processed + passed, channels)
    new = ChannelSlice(*expanded, name=f"{name}_split_expanded")(x)
    old_kept = ChannelSlice(*kept, name=f"{name}_split_kept")(x)
    old_crossing = ChannelSlice(*crossing, name=f"{name}_split_crossing")(x)

    new = _conv_bn(new, processed, name=f"{name}_expand")
    if first_relu:
        new = activate(new, "relu", name=f"{name}_expand")
    new = _depthwise_bn(new, name=f"{name}_depthwise")
    new_kept = ChannelSlice(0, half, name=f"{name}_depthwise_kept")(new)  # linear: no ReLU follows
    new_crossing = ChannelSlice(half, processed, name=f"{name}_depthwise_crossing")(new)
    mixed = keras.layers.Concatenate(name=f"{name}_crossover")([new_crossing, old_crossing])
    mixed = _conv_bn_relu(mixed, channels // 2, name=f"{name}_project")

    if variant == "plus":
        return keras.layers.Concatenate(name=f"{name}_concat")([new_kept, old_kept, mixed])
    x = keras.layers.Concatenate(name=f"{name}_concat")([mixed, old_kept, new_kept])
    return ChannelShuffle(4, name=f"{name}_shuffle")(x)


def _shufflenet_v2_unit(x: Tensor, *, name: str) -> Tensor:
    left, right = channel_split(x, name=f"{name}_split")
    half = right.shape[-1]
    right = _conv_bn_relu(right, half, name=f"{name}_expand")
    right = _depthwise_bn(right, name=f"{name}_depthwise")
    right = _conv_bn_relu(right, half, name=f"{name}_project")
    x = keras.layers.Concatenate(name=f"{name}_concat")([left, right])
    return ChannelShuffle(2, name=f"{name}_shuffle")(x)


def _downsampling_unit(
    x: Tensor, channels: int, *, variant: str, padding: str, name: str
) -> Tensor:
    """ShuffleNet V2's, Figure 3(d): both branches take all channels, at stride 2."""
    left = _depthwise_bn(x, strides=2, padding=padding, name=f"{name}_left_depthwise")
    left = _conv_bn_relu(left, channels // 2, name=f"{name}_left_project")
    right = _conv_bn_relu(x, channels // 2, name=f"{name}_expand")
    right = _depthwise_bn(right, strides=2, padding=padding, name=f"{name}_depthwise")
    right = _conv_bn_relu(right, channels // 2, name=f"{name}_project")
    x = keras.layers.Concatenate(name=f"{name}_concat")([left, right])
    return ChannelShuffle(2, name=f"{name}_shuffle")(x) if variant == "original" else x


def _conv_bn_relu(
    x: Tensor,
    filters: int,
    *,
    kernel: int = 1,
    strides: int = 1,
    padding: str = "same",
    name: str,
) -> Tensor:
    x = _conv_bn(x, filters, kernel=kernel, strides=strides, padding=padding, name=name)
    return activate(x, "relu", name=name)


def _conv_bn(
    x: Tensor,
    filters: int,
    *,
    kernel: int = 1,
    strides: int = 1,
    padding: str = "same",
    name: str,
) -> Tensor:
    x = conv(x, filters, kernel=kernel, strides=strides, padding=padding, name=name)
    return _batch_norm(x, name=name)


def _depthwise_bn(x: Tensor, *, strides: int = 1, padding: str = "same", name: str) -> Tensor:
    return _batch_norm(depthwise_conv(x, strides=strides, padding=padding, name=name), name=name)


def _batch_norm(x: Tensor, *, name: str) -> Tensor:
    return batch_norm(x, epsilon=1e-5, momentum=0.9, name=name)


def _processed(split_ratio: float, channels: int) -> int:
    """The Plus code truncates; the margin forgives a ratio written with six digits."""
    return int(split_ratio * channels + 1e-3)


def _check_split_ratio(split_ratio: float, stages: list[int]) -> None:
    """Half of the processed channels and half of the others must be whole numbers."""
    if not 0 < split_ratio <= 0.5:
        raise InputError(f"Expected a split ratio above 0 and at most 0.5, got {split_ratio}.")
    for channels in stages:
        processed = _processed(split_ratio, channels)
        if processed == 0 or processed % 2:
            first = stages[0]  # stage 4 has twice its channels, so that its ratios work there too
            below = int(split_ratio * first) // 2 * 2
            near = [f"{k / first:.6g}" for k in (below, below + 2) if 0 < k <= first // 2]
            raise InputError(
                f"Expected a split ratio that gives an even number of channels, got {split_ratio} "
                f"({processed} of {channels}): try {' or '.join(near)}."
            )


def _scaled_channels(width: float) -> tuple[int, ...]:
    """Of multiples of 16 channels 3/8 are even, and four groups divide them."""
    conv1, *stages, conv5 = CHANNELS[1.0]
    stage2 = 16 * max(1, round(stages[0] * width / 16))
    return (conv1, stage2, 2 * stage2, 4 * stage2, conv5)
