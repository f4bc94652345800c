"""ShuffleNet V1, https://arxiv.org/abs/1707.01083.  Channels: Table 1; units: Figure 2(b), 2(c)."""

from dataclasses import dataclass

import tf_keras as keras

from keras_models.layers import (
    Blocks,
    ChannelShuffle,
    Tensor,
    activate,
    align_channels,
    average_pool,
    check_align,
    check_option,
    check_width,
    image_input,
    max_pool,
    squeeze_excite,
)

REPEATS = (4, 8, 4)  # units in stages 2, 3 and 4, the first one of each included
CHANNELS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}  # groups: stage 2 at 1x; each stage doubles
# The paper gives conv1 of 1x only; these meet its complexities and are those of the released code.
CONV1 = {0.25: 12, 0.5: 12, 1.0: 24, 1.5: 24, 2.0: 48}  # width: channels
CONV1_OF_8_GROUPS = {0.25: 8, 0.5: 8}  # 8 would not divide what unit 1 adds to 12 channels
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
    classifier_bias: bool | None = None,
    align: int = 1,
    allow_any_width: bool = False,
) -> keras.Model:
    """Builds ShuffleNet V1; the output is logits, (b, num_classes) float32.

    Args:
      width: scale factor s of Table 2.
      groups: groups of the pointwise convolutions: 1, 2, 3, 4 or 8 (Table 1).
      input_shape: (height, width, 3), each at least 32; 4 with the CIFAR stem.
      num_classes: length of the logits.
      stem: "imagenet" (stride 2 and max pooling, Table 1) or "cifar" (for 32x32: conv1 and stage 2
        keep the resolution, no max pooling).
      variant: "paper", or "megvii" for the authors' released weights: the inverse shuffle behind
        the depthwise convolution, a ReLU before the concat, and a classifier without bias.
        Weights of one variant are wrong in the other.
      shuffle: False leaves the groups separate (the ablation of Table 3).
      squeeze_excite: a squeeze-and-excite module at the end of each branch (Section 4.3).
      padding: one of layers.PADDINGS; weights from PyTorch need "symmetric".
      classifier_bias: whether the classifier has a bias; None: unless the variant is megvii.
      align: rounds the bottlenecks up so that each group passes a multiple of it to every group:
        4 fills the kernels that compute grouped convolutions (docs/lowering.md).
      allow_any_width: other widths, rounded so that the groups divide all channels.

    Raises:
      InputError: unknown width, groups, stem, variant or padding; align below 1 or above 256; a
        resolution below the total stride.
    """
    check_width(width, CONV1, allow_any_width=allow_any_width)
    check_align(align)
    check_option("groups", groups, CHANNELS)
    check_option("stem", stem, STEMS)
    check_option("variant", variant, VARIANTS)
    blocks = Blocks(padding)
    conv1, stage2 = _channels(width, groups, stem=stem, variant=variant)
    options = _UnitOptions(
        groups, variant == "megvii", shuffle and groups > 1, align, squeeze_excite
    )

    inputs = x = image_input(input_shape, total_stride=STEMS[stem])
    strides = 2 if stem == "imagenet" else 1
    x = blocks.conv_bn(x, conv1, kernel=3, strides=strides, activation="relu", name="conv1")
    if stem == "imagenet":
        x = max_pool(x, padding=padding, name="max_pool")
    for stage, repeats in enumerate(REPEATS, start=2):
        for unit in range(1, repeats + 1):
            first = unit == 1
            x = _unit(
                x,
                stage2 * 2 ** (stage - 2),
                strides=2 if first and (stage > 2 or stem == "imagenet") else 1,
                reduce_groups=1 if first and stage == 2 else groups,  # Section 3.2: few channels
                options=options,
                blocks=blocks,
                name=f"stage{stage}_unit{unit}",
            )
    x = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
    bias = not options.megvii if classifier_bias is None else classifier_bias
    x = keras.layers.Dense(num_classes, use_bias=bias, name="classifier")(x)
    return keras.Model(inputs, x, name="shufflenet_v1")


@dataclass(frozen=True)
class _UnitOptions:
    """The options that all units share."""

    groups: int
    megvii: bool
    shuffle: bool
    align: int
    squeeze_excite: bool


def _unit(
    x: Tensor,
    channels: int,
    *,
    strides: int,
    reduce_groups: int,
    options: _UnitOptions,
    blocks: Blocks,
    name: str,
) -> Tensor:
    """Figure 2(b): adds to its input.  Figure 2(c): at a stage's start, concat instead."""
    shortcut = x
    groups, megvii = options.groups, options.megvii
    concat = shortcut.shape[-1] < channels
    expanded = channels - shortcut.shape[-1] if concat else channels
    bottleneck = _bottleneck(channels, groups, options.align)
    x = blocks.conv_bn(
        x, bottleneck, groups=reduce_groups, activation="relu", name=f"{name}_reduce"
    )
    if options.shuffle and not megvii:
        x = ChannelShuffle(groups, name=f"{name}_shuffle")(x)
    x = blocks.depthwise_bn(x, strides=strides, name=f"{name}_depthwise")  # no ReLU, as in Xception
    if options.shuffle and megvii:
        x = ChannelShuffle(bottleneck // groups, name=f"{name}_shuffle")(x)
    x = blocks.conv_bn(x, expanded, groups=groups, name=f"{name}_expand")
    if options.squeeze_excite:
        x = squeeze_excite(x, max(1, expanded // REDUCTION), name=name)
    if not concat:
        x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
        return activate(x, "relu", name=name)
    if strides == 2:
        shortcut = average_pool(shortcut, padding=blocks.padding, name=f"{name}_shortcut_pool")
    if megvii:
        x = activate(x, "relu", name=f"{name}_expand")
    x = keras.layers.Concatenate(name=f"{name}_concat")([shortcut, x])
    return x if megvii else activate(x, "relu", name=name)


def _channels(width: float, groups: int, *, stem: str, variant: str) -> tuple[int, int]:
    """Channels of conv1 and of stage 2."""
    if width not in CONV1:  # all multiples of the groups, the bottleneck too
        stage2 = _nearest_multiple(CHANNELS[groups] * width, 4 * groups)
        return _nearest_multiple(24 * width, groups), stage2
    conv1 = CONV1_OF_8_GROUPS.get(width, CONV1[width]) if groups == 8 else CONV1[width]
    if variant == "megvii":
        conv1 = CONV1_RELEASED.get((width, groups), conv1)
    return CONV1_CIFAR if stem == "cifar" else conv1, int(CHANNELS[groups] * width)


def _bottleneck(channels: int, groups: int, align: int) -> int:
    bottleneck = _nearest_multiple(channels / 4, groups)
    return bottleneck if align == 1 else align_channels(bottleneck, align * groups**2)


def _nearest_multiple(channels: float, divisor: int) -> int:
    return max(1, int(channels / divisor + 0.5)) * divisor
