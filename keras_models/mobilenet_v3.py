"""MobileNet V3, https://arxiv.org/abs/1905.02244.  Units: Tables 1 (large) and 2 (small)."""

from dataclasses import dataclass

import tf_keras as keras

from keras_models.layers import (
    Blocks,
    Tensor,
    activate,
    check_option,
    check_rate,
    check_width,
    image_input,
    round_channels,
    squeeze_excite,
)


@dataclass(frozen=True)
class Unit:
    """A row "bneck" of the tables."""

    kernel: int
    expanded: int
    channels: int
    squeeze_excite: bool
    activation: str
    strides: int


CONV1_CHANNELS = 16
UNITS = {
    "large": (
        Unit(3, 16, 16, False, "relu", 1),
        Unit(3, 64, 24, False, "relu", 2),
        Unit(3, 72, 24, False, "relu", 1),
        Unit(5, 72, 40, True, "relu", 2),
        Unit(5, 120, 40, True, "relu", 1),
        Unit(5, 120, 40, True, "relu", 1),
        Unit(3, 240, 80, False, "hard_swish", 2),
        Unit(3, 200, 80, False, "hard_swish", 1),
        Unit(3, 184, 80, False, "hard_swish", 1),
        Unit(3, 184, 80, False, "hard_swish", 1),
        Unit(3, 480, 112, True, "hard_swish", 1),
        Unit(3, 672, 112, True, "hard_swish", 1),
        Unit(5, 672, 160, True, "hard_swish", 2),
        Unit(5, 960, 160, True, "hard_swish", 1),
        Unit(5, 960, 160, True, "hard_swish", 1),
    ),
    "small": (
        Unit(3, 16, 16, True, "relu", 2),
        Unit(3, 72, 24, False, "relu", 2),
        Unit(3, 88, 24, False, "relu", 1),
        Unit(5, 96, 40, True, "hard_swish", 2),
        Unit(5, 240, 40, True, "hard_swish", 1),
        Unit(5, 240, 40, True, "hard_swish", 1),
        Unit(5, 120, 48, True, "hard_swish", 1),
        Unit(5, 144, 48, True, "hard_swish", 1),
        Unit(5, 288, 96, True, "hard_swish", 2),
        Unit(5, 576, 96, True, "hard_swish", 1),
        Unit(5, 576, 96, True, "hard_swish", 1),
    ),
}
# The same at any width: so the paper's 1.25 has its 7.5 M parameters.  Keras widens fc1 above 1 and
# never scales conv1, torchvision always scales fc1; all agree at 1.0, and Keras at 0.75 too.
FC1_CHANNELS = {"large": 1280, "small": 1024}
WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.25)  # Figure 4; weights of 0.75 and 1.0 are released


def mobilenet_v3(
    *,
    variant: str = "large",
    width: float = 1.0,
    minimalistic: bool = False,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    dropout: float = 0.2,
    padding: str = "same",
    bn_epsilon: float = 1e-3,
    fc1: bool = True,
    allow_any_width: bool = False,
) -> keras.Model:
    """Builds MobileNet V3; the output is logits, (b, num_classes) float32.

    Args:
      variant: "large" (Table 1) or "small" (Table 2).
      width: width multiplier; scales the channels of all layers but fc1.
      minimalistic: no squeeze-excite, hard-swish and 5x5 kernels, for processors that are slow at
        them; released by the authors, not in the paper.
      input_shape: (height, width, 3), each at least 32.
      num_classes: length of the logits.
      dropout: rate in front of the classifier while training.
      padding: one of layers.PADDINGS; weights from PyTorch need "symmetric".
      bn_epsilon: of the batch norms.
      fc1: the layer before the classifier; networks that others trained from Keras' without its top
        do not have it.
      allow_any_width: other widths, rounded to multiples of 8 channels.

    Raises:
      InputError: unknown variant, width or padding, a rate outside [0, 1), or a resolution
        below the total stride.
    """
    check_option("variant", variant, UNITS)
    check_width(width, WIDTHS, allow_any_width=allow_any_width)
    check_rate("dropout", dropout)
    blocks = Blocks(padding, epsilon=bn_epsilon, momentum=0.99)
    last = "relu" if minimalistic else "hard_swish"
    inputs = x = image_input(input_shape, total_stride=32)
    conv1 = round_channels(CONV1_CHANNELS * width)
    x = blocks.conv_bn(x, conv1, kernel=3, strides=2, activation=last, name="conv1")
    table_channels = CONV1_CHANNELS
    for i, unit in enumerate(UNITS[variant], start=1):
        x = _inverted_residual(
            x,
            Unit(
                kernel=3 if minimalistic else unit.kernel,
                expanded=round_channels(unit.expanded * x.shape[-1] / table_channels),
                channels=round_channels(unit.channels * width),
                squeeze_excite=unit.squeeze_excite and not minimalistic,
                activation="relu" if minimalistic else unit.activation,
                strides=unit.strides,
            ),
            blocks=blocks,
            name=f"unit{i}",
        )
        table_channels = unit.channels
    x = blocks.conv_bn(x, round_channels(6 * x.shape[-1]), activation=last, name="conv2")
    x = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
    if fc1:
        x = keras.layers.Dense(FC1_CHANNELS[variant], name="fc1")(x)
        x = activate(x, last, name="fc1")
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    x = keras.layers.Dense(num_classes, name="classifier")(x)
    return keras.Model(inputs, x, name=f"mobilenet_v3_{variant}")


def _inverted_residual(inputs: Tensor, unit: Unit, *, blocks: Blocks, name: str) -> Tensor:
    """Figure 4: squeeze-excite follows the activation of the depthwise convolution."""
    x = inputs
    if unit.expanded != inputs.shape[-1]:
        x = blocks.conv_bn(x, unit.expanded, activation=unit.activation, name=f"{name}_expand")
    x = blocks.depthwise_bn(
        x,
        kernel=unit.kernel,
        strides=unit.strides,
        activation=unit.activation,
        name=f"{name}_depthwise",
    )
    if unit.squeeze_excite:
        reduced = round_channels(unit.expanded / 4)
        x = squeeze_excite(x, reduced, gate="hard_sigmoid", name=name)
    x = blocks.conv_bn(x, unit.channels, name=f"{name}_project")
    if unit.strides == 1 and inputs.shape[-1] == unit.channels:
        x = keras.layers.Add(name=f"{name}_add")([inputs, x])
    return x
