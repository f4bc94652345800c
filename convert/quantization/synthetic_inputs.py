"""Data-free calibration: inputs synthesized from the statistics in the network's batch norms.

As in ZeroQ (https://arxiv.org/abs/2001.00281), an input is optimized until the input of each batch
norm has the mean and variance stored in training. That alone leaves the logits small, and with a
range chosen from them the top classes of a real picture tie. Therefore each input is also optimized
for a class, as in DeepInversion (https://arxiv.org/abs/1912.08795). At the end the inputs are
rounded to those of uint8 pixels, as pictures are.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
import tf_keras as keras

from convert.calibration_data import PIXELS, Inputs
from keras_models.images.decode import Preprocessing
from keras_models.layers import Tensor
from keras_models.train.fast_layers import with_fast_layers
from shufflelite.errors import InputError

VERSION = 1  # of what `synthesize` returns: stored inputs of another version are made again
NOISE = 8
STEPS = 120  # 30 are enough for CIFAR networks, not for ShuffleNet V1 0.5x (ImageNet)
LEARNING_RATE = 0.1
CLASS_WEIGHT = 0.02  # of the cross-entropy, relative to the batch norms' mean error
TEMPERATURE = 2.0  # without it the logits stay smaller than those of pictures


def synthesize(
    model: keras.Model,
    preprocessing: Preprocessing,
    *,
    samples: int | None = None,
    seed: int = 0,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Inputs:
    """Synthesizes `samples` inputs for a training-form model, (samples, h, w, 3) float32.

    Args:
      model: The network; its batch norms must hold statistics of real training.
      preprocessing: Bounds the inputs: black and white pixels are the limits.
      samples: How many inputs to make; None: one batch.
      seed: Seed of the noise to start from and of the classes.
      on_step: Called after each step with the number of steps done and the total.

    Raises:
      InputError: the network has no batch norm to learn from.
    """
    if not any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers):
        raise InputError(
            "Data-free calibration reads batch norms and this network has none: "
            "pass --calibration with a folder of pictures."
        )
    model = with_fast_layers(model)  # has faster gradients
    norms = [n for n in model.layers if isinstance(n, keras.layers.BatchNormalization)]
    rng = np.random.default_rng(seed)
    low, high = preprocessing.input_range
    size = batch_size(model)
    samples = samples or size
    batches = -(-samples // size)
    classes = np.resize(rng.permutation(model.output.shape[-1]), batches * size)
    inputs = tf.Variable(tf.zeros((size, *model.inputs[0].shape[1:])))
    optimizer = keras.optimizers.Adam(LEARNING_RATE)
    optimizer.build([inputs])
    fresh = [tf.identity(v) for v in optimizer.variables]
    step = _make_step(model, norms, inputs, optimizer, low=low, high=high)
    made = []
    for batch in range(batches):
        middle, spread = (low + high) / 2, (high - low) / 4
        inputs.assign(np.clip(rng.normal(middle, spread, inputs.shape), low, high))
        for variable, value in zip(optimizer.variables, fresh, strict=True):
            variable.assign(value)
        labels = tf.constant(classes[batch * size : (batch + 1) * size])
        for i in range(STEPS):
            step(labels)
            on_step(batch * STEPS + i + 1, batches * STEPS)
        made.append(inputs.numpy())
    pixels = to_pixels(np.concatenate(made)[:samples], preprocessing)
    return Inputs("made from the network's batch norms", preprocessing.to_input(pixels))


def batch_size(model: keras.Model) -> int:
    """How many inputs are optimized together: enough for statistics."""
    height, width, _ = model.inputs[0].shape[1:]
    return min(64, max(1, PIXELS // (height * width)))


def to_pixels(inputs: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Returns the uint8 RGB pixels nearest to inputs, (n, h, w, 3); `to_input` turns them back."""
    mean, std = (np.asarray(v, np.float32) for v in (preprocessing.mean, preprocessing.std))
    pixels = np.clip(np.rint(inputs * std + mean), 0, 255).astype(np.uint8)
    return pixels if preprocessing.channel_order == "rgb" else pixels[..., ::-1]


def noise(model: keras.Model, preprocessing: Preprocessing, *, seed: int) -> Inputs:
    """Uniform noise: enough to compare two float networks, never to calibrate one."""
    rng = np.random.default_rng(seed)
    shape = (NOISE, *model.inputs[0].shape[1:])
    return Inputs("noise", rng.uniform(*preprocessing.input_range, shape).astype(np.float32))


def _make_step(
    model: keras.Model,
    norms: Sequence[keras.layers.Layer],
    inputs: tf.Variable,
    optimizer: keras.optimizers.Optimizer,
    *,
    low: float,
    high: float,
) -> Callable[[Tensor], None]:
    probe = keras.Model(model.inputs, [*(n.input for n in norms), model.output])
    means = [tf.constant(n.moving_mean) for n in norms]
    deviations = [tf.sqrt(n.moving_variance + n.epsilon) for n in norms]

    @tf.function(autograph=False)
    def step(labels: Tensor) -> None:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            *norm_inputs, logits = probe(inputs, training=False)
            error = tf.add_n(
                [_distance(*s) for s in zip(norm_inputs, means, deviations, strict=True)]
            ) / len(norms)
            cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels, logits / TEMPERATURE
            )
            loss = error + CLASS_WEIGHT * tf.reduce_mean(cross_entropy)
        optimizer.apply_gradients([(tape.gradient(loss, inputs), inputs)])
        inputs.assign(tf.clip_by_value(inputs, low, high))

    return step


def _distance(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Mean over channels of the squared errors of mean and deviation, in squared deviations."""
    batch_mean, batch_variance = tf.nn.moments(x, [0, 1, 2])
    squared = (batch_mean - mean) ** 2 + (tf.sqrt(batch_variance + 1e-6) - deviation) ** 2
    return tf.reduce_mean(squared / (deviation**2 + 1e-3))  # channels that died in training: ~0
