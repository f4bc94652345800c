"""Layers that train faster on CPUs than Keras' own: same names, weights, outputs and gradients."""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf
import tf_keras as keras

from keras_models.layers import ChannelSlice, Tensor


@dataclass(frozen=True, eq=False)
class Randomness:
    """Random numbers of layers, determined by seed, step and an example's index in the batch.

    So a resumed run, or several replicas together, draw the same numbers.
    A plain object: Keras makes a weight of a variable that is a layer's attribute.
    """

    seed: int
    step: tf.Variable  # () int64

    def uniform(self, shape: Tensor, layer: int) -> Tensor:
        """Numbers in [0, 1) for that layer, this step and the examples of this replica."""
        context = tf.distribute.get_replica_context()
        seed = tf.stack([tf.constant(self.seed, tf.int64), self.step])
        batch_shape = [shape[0] * context.num_replicas_in_sync, *shape[1:]]
        batch = tf.random.stateless_uniform(batch_shape, tf.random.fold_in(seed, layer))
        first = context.replica_id_in_sync_group * shape[0]
        return batch[first : first + shape[0]]


class _Slice(ChannelSlice):
    """A slice whose gradient is a concat with zeros: TensorFlow's takes half of a step's time."""

    def call(self, x: Tensor) -> Tensor:
        left, right = self.start, x.shape[-1] - self.stop

        @tf.custom_gradient
        def sliced(x: Tensor) -> tuple[Tensor, Any]:
            def gradient(dy: Tensor) -> Tensor:
                zeros = [
                    tf.zeros([*tf.unstack(tf.shape(dy)[:-1]), n], dy.dtype) for n in (left, right)
                ]
                return tf.concat([zeros[0], dy, zeros[1]], axis=-1)

            return x[..., self.start : self.stop], gradient

        return sliced(x)


class _GroupedConv(keras.layers.Conv2D):
    """A dense convolution with zeros between the groups.

    Keras compiles grouped convolutions with XLA, whose gradients are 20 times slower on CPUs.
    """

    def dense_kernel(self) -> Tensor:
        """The kernel of all groups, (height, width, channels, filters)."""
        height, width, per_group, filters = self.kernel.shape
        groups = self.groups
        kernel = tf.reshape(
            self.kernel, (height, width, 1, per_group, groups, filters // groups)
        ) * tf.reshape(tf.eye(groups, dtype=self.kernel.dtype), (groups, 1, groups, 1))
        return tf.reshape(kernel, (height, width, groups * per_group, filters))

    def call(self, x: Tensor) -> Tensor:
        x = self.convolution_op(x, self.dense_kernel())
        return self.activation(tf.nn.bias_add(x, self.bias) if self.use_bias else x)


class _PointwiseConv(_GroupedConv):
    """A matrix product: oneDNN's gradient of 1x1 kernels is up to three times slower."""

    def convolution_op(self, x: Tensor, kernel: Tensor) -> Tensor:
        rows = tf.reshape(x, (-1, x.shape[-1]))
        y = tf.matmul(rows, tf.reshape(kernel, kernel.shape[2:]))
        return tf.reshape(y, tf.concat([tf.shape(x)[:-1], [self.filters]], axis=0))


class _BatchNorm(keras.layers.BatchNormalization):
    """Matrix products: oneDNN takes five times as long if 4 does not divide the channels."""

    def call(self, x: Tensor, training: Any = None) -> Tensor:
        """Normalizes by the statistics of the batch in training, else by the moving ones."""
        if not training:
            return super().call(x, training=False)
        rows = tf.reshape(x, (-1, x.shape[-1]))
        count = tf.cast(tf.shape(rows)[0], x.dtype)
        y, mean, variance = _normalize(rows, self.gamma, self.beta, self.epsilon)
        for moving, value in (
            (self.moving_mean, mean),
            (self.moving_variance, variance * count / (count - 1)),  # of the sample, as Keras'
        ):
            moving.assign_sub((1 - self.momentum) * (moving - value))
        return tf.reshape(y, tf.shape(x))


def _normalize(rows: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> Any:
    """Batch norm of (n, c); also returns mean and variance."""

    @tf.custom_gradient
    def normalized(rows: Tensor, gamma: Tensor, beta: Tensor) -> Any:
        count = tf.cast(tf.shape(rows)[0], rows.dtype)
        averaging = tf.ones((1, tf.shape(rows)[0]), rows.dtype) / count
        mean = tf.matmul(averaging, rows)[0]
        centered = rows - mean
        variance = tf.matmul(averaging, centered * centered)[0]
        inverse = tf.math.rsqrt(variance + epsilon)

        def gradient(dy: Tensor, *_: Tensor) -> Any:
            mean_dy = tf.matmul(averaging, dy)[0]
            mean_dy_x = tf.matmul(averaging, dy * centered)[0]
            dx = (dy - mean_dy - centered * (inverse**2 * mean_dy_x)) * (gamma * inverse)
            return dx, mean_dy_x * inverse * count, mean_dy * count

        return (centered * (gamma * inverse) + beta, mean, variance), gradient

    return normalized(rows, gamma, beta)


class _Dropout(keras.layers.Dropout):
    def __init__(self, randomness: Randomness, number: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.randomness = randomness
        self.number = number

    def call(self, x: Tensor, training: Any = None) -> Tensor:
        """Drops values with probability `rate`, and scales the others."""
        if not training:
            return x
        sizes = zip(self.noise_shape or x.shape, tf.unstack(tf.shape(x)), strict=True)
        shape = [actual if size is None else size for size, actual in sizes]
        kept = self.randomness.uniform(shape, self.number) >= self.rate
        return x * tf.cast(kept, x.dtype) / (1 - self.rate)


def with_fast_layers(
    model: keras.Model,
    randomness: Randomness | None = None,
    *,
    precision: str = "float32",
    synchronized: bool = False,
) -> keras.Model:
    """Clones `model`, with its names and values, from layers that train fast.

    Args:
      model: A network of the registry.
      randomness: Source of dropout; None: Keras' own, which no run repeats.
      precision: Of all layers but the last: "float32", "bfloat16" or "float16".
      synchronized: Batch norms compute the statistics of all replicas together.
    """
    dropouts = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    mixed = precision != "float32"

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        kind, config = type(layer), layer.get_config()
        if mixed and layer is not model.layers[-1]:
            config["dtype"] = keras.mixed_precision.Policy(f"mixed_{precision}")
        if kind is keras.layers.Dropout and randomness:
            return _Dropout(randomness, dropouts.index(layer.name), **config)
        if kind is ChannelSlice:
            kind = _Slice
        elif kind is keras.layers.Conv2D and layer.kernel_size == layer.strides == (1, 1):
            kind = _PointwiseConv
        elif kind is keras.layers.Conv2D and layer.groups > 1:
            kind = _GroupedConv
        elif kind is keras.layers.BatchNormalization and synchronized:
            config["synchronized"] = True
        elif kind is keras.layers.BatchNormalization and layer.gamma.shape[0] % 4 and not mixed:
            kind = _BatchNorm
        return kind.from_config(config)

    cloned = keras.models.clone_model(model, clone_function=clone)
    cloned.set_weights(model.get_weights())
    return cloned
