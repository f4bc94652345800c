"""MobileNet V2, https://arxiv.org/abs/1801.04381.  Stages: Table 2; units: Table 1, Figure 4(d)."""

from dataclasses import dataclass

import tf_keras as keras

from keras_models.layers import (
    Blocks,
    Tensor,
    check_rate,
    check_width,
    image_input,
    round_channels,
)


@dataclass(frozen=True)
class Stage:
    """A row of Table 2: its columns t, c, n and s."""

    expansion: int
    channels: int
    repeats: int
    strides: int  # of the first unit


CONV1_CHANNELS = 32
STAGES = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)
CONV2_CHANNELS = 1280
WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)  # Section 6.1 has 0.35 to 1.4, the released weights these


def mobilenet_v2(
    *,
    width: float = 1.0,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    dropout: float = 0.2,
    padding: str = "same",
    bn_epsilon: float = 1e-3,
    allow_any_width: bool = False,
) -> keras.Model:
    """Builds MobileNet V2; the output is logits, (b, num_classes) float32.

    Args:
      width: width multiplier; scales the channels of every layer, of the last convolution only
        above 1.
      input_shape: (height, width, 3), each at least 32.
      num_classes: length of the logits.
      dropout: rate in front of the classifier while training.
      padding: one of layers.PADDINGS; weights from PyTorch need "symmetric".
      bn_epsilon: of the batch norms; weights from torchvision need 1e-5.
      allow_any_width: other widths, rounded to multiples of 8 channels.

    Raises:
      InputError: unknown width or padding, a rate outside [0, 1), or a resolution below the
        total stride.
    """
    check_width(width, WIDTHS, allow_any_width=allow_any_width)
    check_rate("dropout", dropout)
    blocks = Blocks(padding, epsilon=bn_epsilon, momentum=0.99)
    inputs = x = image_input(input_shape, total_stride=32)
    conv1 = round_channels(CONV1_CHANNELS * width)
    x = blocks.conv_bn(x, conv1, kernel=3, strides=2, activation="relu6", name="conv1")
    for i, stage in enumerate(STAGES, start=1):
        for unit in range(1, stage.repeats + 1):
            x = _inverted_residual(
                x,
                round_channels(stage.channels * width),
                expansion=stage.expansion,
                strides=stage.strides if unit == 1 else 1,
                blocks=blocks,
                name=f"stage{i}_unit{unit}",
            )
    conv2 = round_channels(CONV2_CHANNELS * max(width, 1.0))
    x = blocks.conv_bn(x, conv2, activation="relu6", name="conv2")
    x = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    x = keras.layers.Dense(num_classes, name="classifier")(x)
    return keras.Model(inputs, x, name="mobilenet_v2")


def _inverted_residual(
    inputs: Tensor, channels: int, *, expansion: int, strides: int, blocks: Blocks, name: str
) -> Tensor:
    """Table 1; the last convolution is linear."""
    x = inputs
    if expansion != 1:
        expanded = expansion * inputs.shape[-1]
        x = blocks.conv_bn(x, expanded, activation="relu6", name=f"{name}_expand")
    x = blocks.depthwise_bn(x, strides=strides, activation="relu6", name=f"{name}_depthwise")
    x = blocks.conv_bn(x, channels, name=f"{name}_project")
    if strides == 1 and inputs.shape[-1] == channels:
        x = keras.layers.Add(name=f"{name}_add")([inputs, x])
    return x
