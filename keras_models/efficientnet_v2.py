"""EfficientNetV2, https://arxiv.org/abs/2104.00298.  S: Table 4; units: Figure 2."""

import math
from dataclasses import dataclass

import tf_keras as keras

from keras_models.layers import (
    Blocks,
    Tensor,
    check_option,
    check_rate,
    check_width,
    image_input,
    squeeze_excite,
    stochastic_depth,
)
from shufflelite.errors import InputError


@dataclass(frozen=True)
class Stage:
    """A row of Table 4: Fused-MBConv units, or MBConv units, which alone have squeeze-excite."""

    fused: bool
    expansion: int
    channels: int
    repeats: int
    strides: int  # of the first unit


@dataclass(frozen=True)
class Variant:
    """A network; the paper prints only S, the others are in the released code."""

    conv1: int  # channels of the first convolution
    stages: tuple[Stage, ...]  # the rows between conv1 and conv2
    resolution: int  # height and width at evaluation
    dropout: float  # rate in front of the classifier
    width: float = 1.0  # width coefficient; scales all channels, those of conv2 too
    depth: float = 1.0  # depth coefficient; scales the repeats


_S = (
    Stage(True, 1, 24, 2, 1),
    Stage(True, 4, 48, 4, 2),
    Stage(True, 4, 64, 4, 2),
    Stage(False, 4, 128, 6, 2),
    Stage(False, 6, 160, 9, 1),
    Stage(False, 6, 256, 15, 2),
)
_M = (
    Stage(True, 1, 24, 3, 1),
    Stage(True, 4, 48, 5, 2),
    Stage(True, 4, 80, 5, 2),
    Stage(False, 4, 160, 7, 2),
    Stage(False, 6, 176, 14, 1),
    Stage(False, 6, 304, 18, 2),
    Stage(False, 6, 512, 5, 1),
)
_L = (
    Stage(True, 1, 32, 4, 1),
    Stage(True, 4, 64, 7, 2),
    Stage(True, 4, 96, 7, 2),
    Stage(False, 4, 192, 10, 2),
    Stage(False, 6, 224, 19, 1),
    Stage(False, 6, 384, 25, 2),
    Stage(False, 6, 640, 7, 1),
)
_XL = (
    Stage(True, 1, 32, 4, 1),
    Stage(True, 4, 64, 8, 2),
    Stage(True, 4, 96, 8, 2),
    Stage(False, 4, 192, 16, 2),
    Stage(False, 6, 256, 24, 1),
    Stage(False, 6, 512, 32, 2),
    Stage(False, 6, 640, 8, 1),
)
_B = (
    Stage(True, 1, 16, 1, 1),
    Stage(True, 4, 32, 2, 2),
    Stage(True, 4, 48, 2, 2),
    Stage(False, 4, 96, 3, 2),
    Stage(False, 6, 112, 5, 1),
    Stage(False, 6, 192, 8, 2),
)
VARIANTS = {
    "s": Variant(24, _S, 384, 0.2),
    "m": Variant(24, _M, 480, 0.3),
    "l": Variant(32, _L, 480, 0.4),
    "xl": Variant(32, _XL, 512, 0.4),
    "b0": Variant(32, _B, 224, 0.2),
    "b1": Variant(32, _B, 240, 0.2, depth=1.1),
    "b2": Variant(32, _B, 260, 0.3, width=1.1, depth=1.2),
    "b3": Variant(32, _B, 300, 0.3, width=1.2, depth=1.4),
}
CONV2_CHANNELS = 1280  # as released, where S has 21.5 M parameters; Table 4 prints 1792


def efficientnet_v2(
    *,
    variant: str = "s",
    width: float | None = None,
    depth: float | None = None,
    input_shape: tuple[int, int, int] | None = None,
    num_classes: int = 1000,
    dropout: float | None = None,
    stochastic_depth: float = 0.2,
    padding: str = "same",
    bn_epsilon: float = 1e-3,
    allow_any_width: bool = False,
) -> keras.Model:
    """Builds EfficientNetV2; the output is logits, (b, num_classes) float32.

    Args:
      variant: one of VARIANTS.
      width: width coefficient; None is the variant's own.
      depth: depth coefficient; None is the variant's own.
      input_shape: (height, width, 3), each at least 32; None is the variant's resolution.
      num_classes: length of the logits.
      dropout: rate in front of the classifier while training; None is the variant's own.
      stochastic_depth: rate at which units are skipped while training; it grows linearly from 0 at
        the first unit.
      padding: one of layers.PADDINGS; weights from PyTorch need "symmetric".
      bn_epsilon: of the batch norms.
      allow_any_width: other coefficients than the variant's own.

    Raises:
      InputError: unknown variant, coefficient or padding, a rate outside [0, 1), or a resolution
        below the total stride.
    """
    check_option("variant", variant, VARIANTS)
    own = VARIANTS[variant]
    width = own.width if width is None else width
    depth = own.depth if depth is None else depth
    dropout = own.dropout if dropout is None else dropout
    check_width(width, {own.width}, allow_any_width=allow_any_width)
    _check_depth(depth, own.depth, allow_any_width=allow_any_width)
    check_rate("dropout", dropout)
    check_rate("stochastic_depth", stochastic_depth)
    blocks = Blocks(padding, epsilon=bn_epsilon, momentum=0.99)

    inputs = x = image_input(input_shape or (own.resolution, own.resolution, 3), total_stride=32)
    conv1 = _round(own.conv1 * width)
    x = blocks.conv_bn(x, conv1, kernel=3, strides=2, activation="swish", name="conv1")
    units = [
        (f"stage{i}_unit{unit}", stage, stage.strides if unit == 1 else 1)
        for i, stage in enumerate(own.stages, start=1)
        for unit in range(1, math.ceil(stage.repeats * depth) + 1)
    ]
    for index, (name, stage, strides) in enumerate(units):
        x = _unit(
            x,
            _round(stage.channels * width),
            stage=stage,
            strides=strides,
            drop_rate=stochastic_depth * index / len(units),
            blocks=blocks,
            name=name,
        )
    x = blocks.conv_bn(x, _round(CONV2_CHANNELS * width), activation="swish", name="conv2")
    x = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    x = keras.layers.Dense(num_classes, name="classifier")(x)
    return keras.Model(inputs, x, name=f"efficientnet_v2_{variant}")


def _unit(
    inputs: Tensor,
    channels: int,
    *,
    stage: Stage,
    strides: int,
    drop_rate: float,
    blocks: Blocks,
    name: str,
) -> Tensor:
    branch = _fused_mbconv if stage.fused else _mbconv
    expanded = stage.expansion * inputs.shape[-1]
    x = branch(inputs, expanded, channels, strides=strides, blocks=blocks, name=name)
    if strides == 1 and inputs.shape[-1] == channels:
        x = stochastic_depth(x, drop_rate, name=name)
        x = keras.layers.Add(name=f"{name}_add")([inputs, x])
    return x


def _mbconv(
    inputs: Tensor, expanded: int, channels: int, *, strides: int, blocks: Blocks, name: str
) -> Tensor:
    """Figure 2, left; squeeze-excite is reduced from the channels before the expansion."""
    x = blocks.conv_bn(inputs, expanded, activation="swish", name=f"{name}_expand")
    x = blocks.depthwise_bn(x, strides=strides, activation="swish", name=f"{name}_depthwise")
    x = squeeze_excite(x, inputs.shape[-1] // 4, activation="swish", name=name)
    return blocks.conv_bn(x, channels, name=f"{name}_project")


def _fused_mbconv(
    inputs: Tensor, expanded: int, channels: int, *, strides: int, blocks: Blocks, name: str
) -> Tensor:
    """Figure 2, right; without expansion a single convolution, and activated."""
    if expanded == inputs.shape[-1]:
        return blocks.conv_bn(
            inputs,
            channels,
            kernel=3,
            strides=strides,
            activation="swish",
            name=f"{name}_project",
        )
    x = blocks.conv_bn(
        inputs, expanded, kernel=3, strides=strides, activation="swish", name=f"{name}_expand"
    )
    return blocks.conv_bn(x, channels, name=f"{name}_project")


def _round(channels: float) -> int:
    # Without MobileNet V2's rule of 90 %: B3's 19.2 channels become 16.
    return max(8, int(channels + 4) // 8 * 8)


def _check_depth(depth: float, own: float, *, allow_any_width: bool) -> None:
    usable = 0 < depth < math.inf
    if not usable or (depth != own and not allow_any_width):
        raise InputError(
            f"Expected a depth coefficient of {own}, got {depth}"
            + (": allow_any_width takes others." if usable else ".")
        )
