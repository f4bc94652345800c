"""MobileNet V1, https://arxiv.org/abs/1704.04861.  Layers: Table 1; multipliers: Tables 6, 7."""

from dataclasses import dataclass, replace

import tf_keras as keras

from keras_models.layers import Blocks, check_option, check_width, image_input


@dataclass(frozen=True)
class Unit:
    """A depthwise convolution and the pointwise one behind it: two rows of Table 1."""

    strides: int
    channels: int


CONV1_CHANNELS = 32
UNITS = (
    Unit(1, 64),
    Unit(2, 128),
    Unit(1, 128),
    Unit(2, 256),
    Unit(1, 256),
    Unit(2, 512),
    *5 * (Unit(1, 512),),
    Unit(2, 1024),
    Unit(1, 1024),  # "s2" in Table 1, a misprint: its own output size is that of stride 1
)
WIDTHS = (0.25, 0.5, 0.75, 1.0)  # Table 6
STEMS = {"imagenet": 32, "cifar": 8}  # stem: total stride of the network


def mobilenet_v1(
    *,
    width: float = 1.0,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    stem: str = "imagenet",
    padding: str = "same",
    allow_any_width: bool = False,
) -> keras.Model:
    """Builds MobileNet V1; the output is logits, (b, num_classes) float32.

    Args:
      width: width multiplier alpha of Table 6; scales the channels of every layer.
      input_shape: (height, width, 3), each at least 32; 8 with the CIFAR stem.  It includes the
        paper's resolution multiplier rho: 224, 192, 160, 128 are rho = 1, 6/7, 5/7, 4/7 (Table 7).
      num_classes: length of the logits.
      stem: "imagenet" (Table 1) or "cifar" (for 32x32: the first two strides of 2 are 1).
      padding: one of layers.PADDINGS; Keras' own weights need "bottom_right" at odd resolutions,
        weights from PyTorch "symmetric".
      allow_any_width: widths outside Table 6, rounded to multiples of 8 channels.

    Raises:
      InputError: unknown width, stem or padding; a resolution below the total stride.
    """
    check_width(width, WIDTHS, allow_any_width=allow_any_width)
    check_option("stem", stem, STEMS)
    cifar = stem == "cifar"
    blocks = Blocks(padding, epsilon=1e-3, momentum=0.99)
    conv1_blocks = blocks if padding == "symmetric" else replace(blocks, padding="same")  # Keras'
    inputs = x = image_input(input_shape, total_stride=STEMS[stem])
    # ReLU6 is from the released code, not from the paper; weights trained with it need it.
    x = conv1_blocks.conv_bn(
        x,
        _scaled(CONV1_CHANNELS, width),
        kernel=3,
        strides=1 if cifar else 2,
        activation="relu6",
        name="conv1",
    )
    for i, unit in enumerate(UNITS, start=1):
        x = blocks.depthwise_bn(
            x,
            strides=1 if cifar and i == 2 else unit.strides,
            activation="relu6",
            name=f"unit{i}_depthwise",
        )
        channels = _scaled(unit.channels, width)
        x = blocks.conv_bn(x, channels, activation="relu6", name=f"unit{i}_pointwise")
    x = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
    x = keras.layers.Dense(num_classes, name="classifier")(x)
    return keras.Model(inputs, x, name="mobilenet_v1")


def _scaled(channels: int, width: float) -> int:
    if width in WIDTHS:
        return int(channels * width)
    return max(8, 8 * round(channels * width / 8))
