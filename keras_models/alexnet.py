"""AlexNet, Krizhevsky et al. 2012, https://papers.nips.cc/paper/4824, Section 3.5 and Figure 2.

ShuffleNet's 13x speed-up is over this network (arXiv:1707.01083, Table 8: 720 M multiply-adds).
"""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf
import tf_keras as keras

from keras_models.layers import Tensor, conv, image_input


@keras.utils.register_keras_serializable(package="shufflelite")
class LocalResponseNorm(keras.layers.Layer):
    """Divides each value by a sum over its channel and the two on either side (Section 3.3).

    TFLite has this operator for float alone: an int8 file computes it in float.
    """

    def call(self, x: Tensor) -> Tensor:
        """Divides by (2 + 1e-4 * sum of five squares) ** 0.75; Caffe divides that 1e-4 by five."""
        return tf.nn.local_response_normalization(x, depth_radius=2, bias=2, alpha=1e-4, beta=0.75)


@dataclass(frozen=True)
class Conv:
    """A convolution with ReLU, and what follows it."""

    filters: int
    kernel: int
    strides: int = 1
    groups: int = 1  # 2: each half of the channels was on a GPU of its own
    norm: bool = False
    pool: bool = False


CONVS = (  # Section 3.5
    Conv(96, 11, strides=4, norm=True, pool=True),
    Conv(256, 5, groups=2, norm=True, pool=True),
    Conv(384, 3),
    Conv(384, 3, groups=2),
    Conv(256, 3, groups=2, pool=True),
)
FULLY_CONNECTED = (4096, 4096)
DROPOUT = 0.5


def alexnet(
    *,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    local_response_norm: bool = True,
) -> keras.Model:
    """Builds AlexNet; the output is logits, (b, num_classes) float32.

    Args:
      input_shape: (height, width, 3), at least 32.  fc6 reads the whole map, 6x6 at 224 and 227, so
        that its parameters grow with the image.  The paper says 224, but conv1 makes its 55x55
        outputs from 227, as in Caffe; at 227 the network has 724 M multiply-adds.
      num_classes: length of the logits.
      local_response_norm: False omits Section 3.3, which a network of int8 alone cannot have.

    Raises:
      InputError: a resolution below the total stride.
    """
    inputs = x = image_input(input_shape, total_stride=32)
    for i, row in enumerate(CONVS, start=1):
        x = _conv_relu(x, row, name=f"conv{i}")
        if row.norm and local_response_norm:
            x = LocalResponseNorm(name=f"conv{i}_norm")(x)
        if row.pool:
            x = _max_pool(x, name=f"pool{i}")
    x = keras.layers.Flatten(name="flatten")(x)
    for i, units in enumerate(FULLY_CONNECTED, start=6):
        x = keras.layers.Dense(units, name=f"fc{i}")(x)
        x = keras.layers.ReLU(name=f"fc{i}_relu")(x)
        x = keras.layers.Dropout(DROPOUT, name=f"fc{i}_dropout")(x)
    x = keras.layers.Dense(num_classes, name="classifier")(x)
    return keras.Model(inputs, x, name="alexnet")


def _conv_relu(x: Tensor, row: Conv, *, name: str) -> Tensor:
    options: dict[str, Any] = {"kernel": row.kernel, "groups": row.groups, "use_bias": True}
    if row.strides == 1:
        x = conv(x, row.filters, **options, name=name)
    else:  # conv1 has no padding
        x = keras.layers.Conv2D(
            row.filters, row.kernel, row.strides, kernel_initializer="he_uniform", name=name
        )(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _max_pool(x: Tensor, *, name: str) -> Tensor:
    # Caffe's windows may exceed the bottom and right; TensorFlow's "same" shifts odd sizes.
    # The values are not negative, so zeros add nothing.
    pads = tuple((0, max(1 - size % 2, 3 - size)) for size in x.shape[1:3])
    if pads != ((0, 0), (0, 0)):
        x = keras.layers.ZeroPadding2D(pads, name=f"{name}_pad")(x)
    return keras.layers.MaxPooling2D(3, 2, name=name)(x)
