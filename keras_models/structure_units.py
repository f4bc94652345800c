"""ShuffleNet V1's baselines at equal cost, https://arxiv.org/abs/1707.01083, Section 4.2, Table 4.

The network of Table 1 with VGG-like, ResNet, Xception-like or ResNeXt units in stages 2 to 4, and
with as many channels as give it the cost of ShuffleNet.
"""

import functools
from collections.abc import Callable

import tf_keras as keras

from keras_models.layers import (
    Blocks,
    Tensor,
    activate,
    average_pool,
    check_option,
    image_input,
    max_pool,
)

REPEATS = (4, 8, 4)  # units in stages 2, 3 and 4, the stride-2 unit included
CONV1_CHANNELS = {13: 12, 38: 12, 140: 24, 524: 48}  # 24: Table 1; the others are ours
# From the paper: stage 4 at 38 M (Section 4.2), and Xception-like except at 524 M, which is
# ShuffleNet with one group (Table 1, scaled).  The rest is ours and follows its rule: a stage has
# about twice the channels of the one before, and the network the stated complexity.
CHANNELS = {  # unit: million multiply-adds: (stage 2, stage 3, stage 4)
    "vgg": {13: (6, 13, 25), 38: (12, 25, 50), 140: (24, 49, 99), 524: (48, 96, 192)},
    "resnet": {13: (24, 48, 96), 38: (48, 96, 192), 140: (96, 188, 376), 524: (184, 372, 744)},
    "xception": {
        13: (36, 72, 144),
        38: (72, 144, 288),
        140: (144, 288, 576),
        524: (280, 560, 1120),
    },
    "resnext": {13: (24, 48, 96), 38: (48, 96, 192), 140: (96, 176, 384), 524: (184, 352, 680)},
}
CARDINALITY = 16  # groups of the 3x3 convolution in the ResNeXt unit


def structure_units(
    *,
    unit: str,
    mflops: int = 140,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    padding: str = "same",
) -> keras.Model:
    """Builds Table 1 with another unit; the output is logits, (b, num_classes) float32.

    Args:
      unit: "vgg", "resnet", "xception" or "resnext".
      mflops: complexity in million multiply-adds at 224 with 1000 classes: those of Table 4, and
        524, that of ShuffleNet 2x.
      input_shape: (height, width, 3), at least 32.
      num_classes: length of the logits.
      padding: one of layers.PADDINGS, for layers with strides.

    Raises:
      InputError: unknown unit, complexity or padding; a resolution below the total stride.
    """
    check_option("unit", unit, CHANNELS)
    check_option("mflops", mflops, CONV1_CHANNELS)
    blocks = Blocks(padding)
    inputs = x = image_input(input_shape, total_stride=32)
    conv1 = CONV1_CHANNELS[mflops]
    x = blocks.conv_bn(x, conv1, kernel=3, strides=2, activation="relu", name="conv1")
    x = max_pool(x, padding=padding, name="max_pool")
    for stage, (channels, repeats) in enumerate(
        zip(CHANNELS[unit][mflops], REPEATS, strict=True), start=2
    ):
        for i in range(1, repeats + 1):
            strides = 2 if i == 1 else 1
            name = f"stage{stage}_unit{i}"
            x = UNITS[unit](x, channels, strides=strides, blocks=blocks, name=name)
    x = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
    x = keras.layers.Dense(num_classes, name="classifier")(x)
    return keras.Model(inputs, x, name=f"{unit}_like")


def _vgg_unit(x: Tensor, channels: int, *, strides: int, blocks: Blocks, name: str) -> Tensor:
    """Two layers of 3x3 convolutions, here with batch norm; the stride stands for VGG's pooling."""
    x = blocks.conv_bn(
        x, channels, kernel=3, strides=strides, activation="relu", name=f"{name}_conv1"
    )
    return blocks.conv_bn(x, channels, kernel=3, activation="relu", name=f"{name}_conv2")


def _bottleneck_unit(
    x: Tensor,
    channels: int,
    *,
    strides: int,
    ratio: int,
    groups: int,
    blocks: Blocks,
    name: str,
) -> Tensor:
    """arXiv:1512.03385, Figure 5 right, and with groups arXiv:1611.05431, Figure 3(c).

    Stride 2 is in the 3x3 convolution, as in ResNeXt: only so does ResNet with the paper's 192
    channels cost 38 M.
    """
    bottleneck = _whole_groups(channels // ratio, groups)
    shortcut = x
    if strides == 2:
        shortcut = blocks.conv_bn(x, channels, strides=2, name=f"{name}_shortcut")
    x = blocks.conv_bn(x, bottleneck, activation="relu", name=f"{name}_reduce")
    x = blocks.conv_bn(
        x,
        bottleneck,
        kernel=3,
        strides=strides,
        groups=groups,
        activation="relu",
        name=f"{name}_conv",
    )
    x = blocks.conv_bn(x, channels, name=f"{name}_expand")
    x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return activate(x, "relu", name=name)


def _xception_unit(x: Tensor, channels: int, *, strides: int, blocks: Blocks, name: str) -> Tensor:
    """ShuffleNet's unit with one group: dense 1x1 convolutions need no shuffle."""
    branch = channels - x.shape[-1] if strides == 2 else channels
    shortcut = x
    x = blocks.conv_bn(x, channels // 4, activation="relu", name=f"{name}_reduce")
    x = blocks.depthwise_bn(x, strides=strides, name=f"{name}_depthwise")
    x = blocks.conv_bn(x, branch, name=f"{name}_expand")
    if strides == 2:
        shortcut = average_pool(shortcut, padding=blocks.padding, name=f"{name}_shortcut_pool")
        x = keras.layers.Concatenate(name=f"{name}_concat")([shortcut, x])
    else:
        x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return activate(x, "relu", name=name)


UNITS: dict[str, Callable[..., Tensor]] = {  # bottleneck ratios and cardinality: Section 4.2
    "vgg": _vgg_unit,
    "resnet": functools.partial(_bottleneck_unit, ratio=4, groups=1),
    "xception": _xception_unit,
    "resnext": functools.partial(_bottleneck_unit, ratio=2, groups=CARDINALITY),
}


def _whole_groups(channels: int, groups: int) -> int:
    # Half of 192 / 4 channels are not 16 groups: the nearest multiple, of two the smaller.
    return max(groups, (channels + (groups - 1) // 2) // groups * groups)
