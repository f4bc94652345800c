"""Layers that only the deployment form has."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from keras_models.layers import Tensor


class RowPadding(keras.layers.Layer):
    """Zero padding, ((top, bottom), (left, right)), in front of a layer other than a convolution.

    XNNPACK folds a PAD into a convolution. Elsewhere it copies the elements behind the last padded
    dimension one pixel at a time, unless a row is one dimension.
    """

    def __init__(self, padding: Sequence[Sequence[int]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.padding = padding

    def call(self, x: Tensor) -> Tensor:
        """Returns (b, top + h + bottom, left + w + right, c)."""
        _, height, width, channels = x.shape
        vertical, (left, right) = self.padding
        rows = tf.reshape(x, (-1, height, width * channels))
        rows = tf.pad(rows, ((0, 0), vertical, (left * channels, right * channels)))
        return tf.reshape(rows, (-1, height + sum(vertical), left + width + right, channels))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments, as Keras stores them."""
        return {**super().get_config(), "padding": self.padding}
