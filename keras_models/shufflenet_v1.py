"""ShuffleNet V1, https://arxiv.org/abs/1707.01083.  Channels: Table 1; units: Figure 2(b), 2(c)."""

import tf_keras as keras

from keras_models.layers import (
    PADDINGS,
    ChannelShuffle,
    Tensor,
    activate,
    average_pool,
    batch_norm,
    check_option,
    check_width,
    conv,
    depthwise_conv,
    image_input,
    max_pool,
    squeeze_excite,
)

REPEATS = (4, 8, 4)  # units in stages 2, 3 and 4, the first one of each included
CHANNELS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}  # groups: stage 2 at 1x; each stage doubles
# The paper gives conv1 of 1x only; with these its complexities come out, as in the released code.
CONV1 = {0.25: 12, 0.5: 12, 1.0: 24, 1.5: 24, 2.0: 48}  # width: channels
CONV1_OF_8_GROUPS = {0.25: 8, 0.5: 8}  # 12 would leave unit 1 channels that 8 do not divide
CONV1_RELEASED = {(0.5, 8): 16}  # (width, groups), where the released code has others
CONV1_CIFAR = 24  # at any width: the counts of chenhang98/shuffleNet-cifar10
REDUCTION = 16  # of squeeze-and-excite: Section 4.3 cites arXiv:1709.01507 and says no more
STEMS = {"imagenet": 32, "cifar": 4}  # stem: total stride of the network
VARIANTS = ("paper", "megvii")


def shufflenet_v1(
    *,
    width: float = 1.0,
    groups: int = 3,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    stem: str = "imagenet",
    variant: str = "paper",
    shuffle: bool = True,
    squeeze_excite: bool = False,
    padding: str = "same",
    allow_any_width: bool = False,
) -> keras.Model:
    """Builds ShuffleNet V1; the output is logits, (b, num_classes) float32.

    Args:
      width: scale factor s of Table 2.
      groups: groups of the pointwise convolutions: 1, 2, 3, 4 or 8 (Table 1).
      input_shape: (height, width, 3), at least 32 pixels a side; 4 with the CIFAR stem.
      num_classes: length of the logits.
      stem: "imagenet" (stride 2 and max pooling, Table 1) or "cifar" (for 32x32: conv1 and stage 2
        keep the resolution, no max pooling).
      variant: "paper", or "megvii" for the authors' released weights: it shuffles behind the
        depthwise convolution instead of before it and in the inverse order, its stride-2 units
        have their ReLU before the concat, and its classifier has no bias.  Weights of one give
        wrong answers in the other.
      shuffle: without, the groups never meet (the ablation of Table 3).
      squeeze_excite: ends each unit's branch in a squeeze-and-excite module (Section 4.3).
      padding: that of strides, one of layers.PADDINGS; weights from PyTorch need "symmetric".
      allow_any_width: other widths, rounded so that the groups divide all channels.

    Raises:
      InputError: unknown width, groups, stem, variant or padding; a resolution below the strides.
    """
    check_width(width, CONV1, allow_any_width=allow_any_width)
    check_option("groups", groups, CHANNELS)
    check_option("stem", stem, STEMS)
    check_option("variant", variant, VARIANTS)
    check_option("padding", padding, PADDINGS)
    conv1, stage2 = _channels(width, groups, stem=stem, variant=variant)

    inputs = x = image_input(input_shape, total_stride=STEMS[stem])
    strides = 2 if stem == "imagenet" else 1
    x = conv(x, conv1, kernel=3, strides=strides, padding=padding, name="conv1")
    x = activate(_batch_norm(x, name="conv1"), "relu", name="conv1")
    if stem == "imagenet":
        x = max_pool(x, padding=padding, name="max_pool")
    for stage, repeats in enumerate(REPEATS, start=2):
        channels = stage2 * 2 ** (stage - 2)
        for unit in range(1, repeats + 1):
            first = unit == 1
            x = _unit(
                x,
                channels,
                strides=2 if first and (stage > 2 or stem == "imagenet") else 1,
                concat=first,
                reduce_groups=1 if first and stage == 2 else groups,  # Section 3.2: few channels
                groups=groups,
                variant=variant,
                shuffle=shuffle and groups > 1,
                with_squeeze_excite=squeeze_excite,
                padding=padding,
                name=f"stage{stage}_unit{unit}",
            )
    x = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
    x = keras.layers.Dense(num_classes, use_bias=variant != "megvii", name="classifier")(x)
    return keras.Model(inputs, x, name="shufflenet_v1")


def _unit(
    x: Tensor,
    channels: int,
    *,
    strides: int,
    concat: bool,
    reduce_groups: int,
    groups: int,
    variant: str,
    shuffle: bool,
    with_squeeze_excite: bool,
    padding: str,
    name: str,
) -> Tensor:
    """Figure 2(b): adds to its input.  Figure 2(c): at a stage's start, concat instead."""
    shortcut = x
    bottleneck = _nearest_multiple(channels / 4, groups)
    x = conv(x, bottleneck, groups=reduce_groups, name=f"{name}_reduce")
    x = activate(_batch_norm(x, name=f"{name}_reduce"), "relu", name=f"{name}_reduce")
    if shuffle and variant == "paper":
        x = ChannelShuffle(groups, name=f"{name}_shuffle")(x)
    x = depthwise_conv(x, strides=strides, padding=padding, name=f"{name}_depthwise")
    x = _batch_norm(x, name=f"{name}_depthwise")  # no ReLU, as in Xception
    if shuffle and variant == "megvii":
        x = ChannelShuffle(bottleneck // groups, name=f"{name}_shuffle")(x)
    expanded = channels - shortcut.shape[-1] if concat else channels
    x = conv(x, expanded, groups=groups, name=f"{name}_expand")
    x = _batch_norm(x, name=f"{name}_expand")
    if with_squeeze_excite:
        x = squeeze_excite(x, max(1, expanded // REDUCTION), name=name)
    if not concat:
        x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
        return activate(x, "relu", name=name)
    if strides == 2:
        shortcut = average_pool(shortcut, padding=padding, name=f"{name}_shortcut_pool")
    if variant == "megvii":
        x = activate(x, "relu", name=f"{name}_expand")
        return keras.layers.Concatenate(name=f"{name}_concat")([shortcut, x])
    x = keras.layers.Concatenate(name=f"{name}_concat")([shortcut, x])
    return activate(x, "relu", name=name)


def _batch_norm(x: Tensor, *, name: str) -> Tensor:
    return batch_norm(x, epsilon=1e-5, momentum=0.9, name=name)


def _channels(width: float, groups: int, *, stem: str, variant: str) -> tuple[int, int]:
    """Channels of conv1 and of stage 2."""
    if width not in CONV1:  # all multiples of the groups, the bottleneck too
        stage2 = _nearest_multiple(CHANNELS[groups] * width, 4 * groups)
        return _nearest_multiple(24 * width, groups), stage2
    conv1 = CONV1_OF_8_GROUPS.get(width, CONV1[width]) if groups == 8 else CONV1[width]
    if variant == "megvii":
        conv1 = CONV1_RELEASED.get((width, groups), conv1)
    return CONV1_CIFAR if stem == "cifar" else conv1, int(CHANNELS[groups] * width)


def _nearest_multiple(channels: float, divisor: int) -> int:
    return max(1, int(channels / divisor + 0.5)) * divisor
