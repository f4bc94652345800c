"""Second-order rounding: rounds the weights of a layer together, so that their errors cancel.

The mean square error of an output is e' H e: e are the errors of its weights, H the covariance of
the inputs that they multiply, measured on calibration inputs. Each weight is first rounded in turn,
with its error passed on to those behind it (GPTQ, arXiv:2210.17323, Section 3). Then single weights
move by whole steps for as long as that lowers the error. The mean of the error goes into the bias
(bias correction, arXiv:1906.04721, Section 4.2).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tf_keras as keras

from convert import keras_graph
from convert.calibration_data import Inputs
from convert.quantization.tfmot_config import CONVOLVING, kernel_quantizer

POSITIONS = 15_000  # of a layer's output, whose inputs its covariance is measured on
RIDGE = 0.01  # of the mean variance, added to each: directions that no input has still count
ROWS = 2048  # of inputs that are multiplied at once, and
COVARIANCES = 16 << 20  # numbers in covariances that are measured at once: memory is bounded
BLOCK = 64  # weights whose changes reach all others in one matrix product
SWEEPS = 100  # far more than needed: the error falls with each, but only in exact arithmetic
MOST = 127  # steps of a weight


def round_weights(model: keras.Model, inputs: Inputs, *, per_channel: bool) -> keras.Model:
    """Returns a deployment form whose kernels are whole steps, with biases that belong to them.

    The largest weight of each scale stays at 127 steps, so that it is found again from the kernel,
    and weights that are zero stay zero: the deployment form has no connection there.

    Args:
      model: The deployment form; it is not changed.
      inputs: Calibration inputs.
      per_channel: Weights have one scale per output channel, else per tensor.
    """
    rounded = keras_graph.copy_model(model)
    layers = [layer for layer in model.layers if isinstance(layer, CONVOLVING)]
    for some in _batches(layers):
        for layer, moments in zip(some, _measure(model, some, inputs), strict=True):
            kernel, bias = layer.get_weights()
            if not (np.isfinite(kernel).all() and np.isfinite(moments.covariance).all()):
                continue  # left to `observe`, which says so
            step = kernel_quantizer(layer, per_channel=per_channel).step(kernel).numpy()
            groups, size = moments.mean.shape
            steps = (kernel / step).reshape(size, groups, -1).transpose(1, 0, 2)
            whole = round_steps(steps, moments.covariance)
            rounded_kernel = whole.transpose(1, 0, 2).reshape(kernel.shape) * step
            error = (kernel - rounded_kernel).reshape(size, groups, -1)
            shift = np.einsum("gi,igo->go", moments.mean, error)
            rounded.get_layer(layer.name).set_weights([rounded_kernel, bias + shift.ravel()])
    return rounded


def round_steps(weights: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Rounds weights to whole steps, from -127 to 127, with a small error of the outputs.

    The mean square error of each output on the inputs of `covariance` is never above that of
    rounding to the nearest step. Weights of zero and of 127 steps stay.

    Args:
      weights: In steps, (groups, inputs, outputs of a group).
      covariance: Of the inputs, (groups, inputs, inputs).

    Returns:
      Whole numbers in float64, in the shape of `weights`.
    """
    # Large variances first: those behind can still make up for them.
    order = np.argsort(-np.diagonal(covariance, axis1=1, axis2=2), axis=1, kind="stable")
    covariance = np.take_along_axis(covariance, order[:, :, None], axis=1)
    covariance = np.take_along_axis(covariance, order[:, None, :], axis=2)
    # Any ridge keeps the promise: nearest rounding has the least errors, weight by weight.
    size = covariance.shape[-1]
    ridge = RIDGE * np.trace(covariance, axis1=1, axis2=2) / size
    covariance += np.where(ridge > 0, ridge, 1)[:, None, None] * np.eye(size)
    weights = np.take_along_axis(weights.astype(np.float64), order[:, :, None], axis=1)

    nearest = np.rint(weights)
    free = (weights != 0) & (np.abs(weights) < MOST - 1e-3)
    greedy = _round_in_turn(weights, nearest, free, covariance)
    better = _error(greedy - weights, covariance) < _error(nearest - weights, covariance)
    whole = np.where(better, greedy, nearest)
    _descend(whole, weights, free, covariance)
    restored = np.empty_like(whole)
    np.put_along_axis(restored, order[:, :, None], whole, axis=1)
    return restored


def _round_in_turn(
    weights: np.ndarray, nearest: np.ndarray, free: np.ndarray, covariance: np.ndarray
) -> np.ndarray:
    """GPTQ: what each rounded weight lacks is passed on to those behind it."""
    # inverse(covariance) = upper' upper: from the Cholesky factor of the covariance in reverse
    factor = tf.linalg.cholesky(covariance[:, ::-1, ::-1])
    identity = tf.eye(covariance.shape[-1], batch_shape=[len(covariance)], dtype=tf.float64)
    upper = tf.linalg.triangular_solve(factor, identity).numpy()[:, ::-1, ::-1]
    remaining, whole = weights.copy(), nearest.copy()
    size = weights.shape[1]
    for start in range(0, size, BLOCK):
        end = min(start + BLOCK, size)
        errors = np.empty_like(weights[:, start:end])
        for i in range(start, end):
            candidate = np.clip(np.rint(remaining[:, i]), -MOST, MOST)
            whole[:, i] = np.where(free[:, i], candidate, nearest[:, i])
            error = (remaining[:, i] - whole[:, i]) / upper[:, i, i, None]
            remaining[:, i + 1 : end] -= upper[:, i, i + 1 : end, None] * error[:, None]
            errors[:, i - start] = error
        behind = upper[:, start:end, end:].transpose(0, 2, 1)
        remaining[:, end:] -= _product(behind, errors)
    return whole


def _descend(
    whole: np.ndarray, weights: np.ndarray, free: np.ndarray, covariance: np.ndarray
) -> None:
    """Moves single weights of `whole` by whole steps until no move lowers an output's error."""
    variances = np.diagonal(covariance, axis1=1, axis2=2)
    columns = np.arange(weights.shape[2])  # outputs that the last sweep changed
    for _ in range(SWEEPS):
        steps, movable = whole[:, :, columns], free[:, :, columns]
        slopes = _product(covariance, steps - weights[:, :, columns])
        has_moved = np.zeros(len(columns), bool)
        for start in range(0, weights.shape[1], BLOCK):
            block = slice(start, start + BLOCK)
            before = steps[:, block].copy()
            for i in range(start, min(start + BLOCK, weights.shape[1])):
                wanted = np.rint(slopes[:, i] / -variances[:, i, None])  # halves in between: stay
                moved = np.clip(steps[:, i] + wanted, -MOST, MOST) - steps[:, i]
                moved *= movable[:, i]
                if moved.any():
                    steps[:, i] += moved
                    slopes[:, block] += covariance[:, block, i, None] * moved[:, None]
            change = steps[:, block] - before
            if change.any():
                has_moved |= change.any(axis=(0, 1))
                behind = slice(start + BLOCK, None)  # those before it come in the next sweep
                slopes[:, behind] += _product(covariance[:, behind, block], change)
        whole[:, :, columns] = steps
        columns = columns[has_moved]
        if not len(columns):
            break


def _error(errors: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Mean square error of each output, (groups, 1, outputs of a group)."""
    return np.sum(errors * _product(covariance, errors), axis=1, keepdims=True)


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The matrix product, by TensorFlow: `convert` fixes its number of threads, and so its sums."""
    return tf.linalg.matmul(a, b).numpy()


@dataclass(frozen=True, eq=False)
class _Moments:
    """Of a layer's inputs: `mean` is (groups, inputs), `covariance` (groups, inputs, inputs)."""

    mean: np.ndarray
    covariance: np.ndarray


def _batches(layers: Sequence[keras.layers.Layer]) -> Iterator[list[keras.layers.Layer]]:
    """The layers, as many at once as memory holds covariances of."""
    some: list[keras.layers.Layer] = []
    total = 0
    for layer in layers:
        groups, size = _groups(layer), _group_inputs(layer)
        if some and total + groups * size**2 > COVARIANCES:
            yield some
            some, total = [], 0
        some.append(layer)
        total += groups * size**2
    if some:
        yield some


def _measure(
    model: keras.Model, layers: Sequence[keras.layers.Layer], inputs: Inputs
) -> list[_Moments]:
    probe = keras.Model(model.inputs, [layer.input for layer in layers])
    generators = [np.random.default_rng(model.layers.index(layer)) for layer in layers]
    counts = [0] * len(layers)
    shapes = [(_groups(layer), _group_inputs(layer)) for layer in layers]
    sums = [np.zeros((groups, size)) for groups, size in shapes]
    products = [np.zeros((groups, size, size)) for groups, size in shapes]
    for tensors in inputs.outputs_of(probe):
        for number, (layer, x) in enumerate(zip(layers, tensors, strict=True)):
            for rows in _rows(layer, x, -(-POSITIONS // len(inputs)), generators[number]):
                counts[number] += rows.shape[1]
                sums[number] += rows.sum(axis=1, dtype=np.float64)
                products[number] += _product(rows.transpose(0, 2, 1), rows)
    moments = []
    with np.errstate(over="ignore", invalid="ignore"):  # see `round_weights`
        for count, total, product in zip(counts, sums, products, strict=True):
            mean = total / count
            product /= count
            product -= mean[:, :, None] * mean[:, None, :]
            moments.append(_Moments(mean, product))
    return moments


def _rows(
    layer: keras.layers.Layer, x: np.ndarray, positions: int, generator: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yields what a layer multiplies its weights with, (groups, rows, inputs of a group).

    Args:
      layer: A convolution or dense layer.
      x: Its input, (batch, height, width, channels) or (batch, channels).
      positions: Of its output, in each picture; where it has more, random ones.
      generator: Draws them.
    """
    if isinstance(layer, keras.layers.Dense):
        yield x.reshape(1, -1, x.shape[-1])
        return
    strides, dilations, kernel = layer.strides, layer.dilation_rate, layer.kernel_size
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    sizes = layer.output_shape[1:3]
    if layer.padding == "same":
        missing = [
            max((size - 1) * stride + span - length, 0)
            for size, stride, span, length in zip(sizes, strides, spans, x.shape[1:3], strict=True)
        ]
        around = [(count // 2, count - count // 2) for count in missing]
        x = np.pad(x, ((0, 0), *around, (0, 0)))
    drawn = generator.random((len(x), math.prod(sizes)))
    chosen = np.argsort(drawn, axis=1, kind="stable")[:, :positions]
    pictures = np.repeat(np.arange(len(x)), chosen.shape[1])
    tops, lefts = np.divmod(chosen.ravel(), sizes[1])
    tops, lefts = tops * strides[0], lefts * strides[1]
    groups = _groups(layer)
    for start in range(0, len(pictures), ROWS):
        some = slice(start, start + ROWS)
        pixels = [
            x[pictures[some], tops[some] + row * dilations[0], lefts[some] + column * dilations[1]]
            for row in range(kernel[0])
            for column in range(kernel[1])
        ]
        windows = np.stack(pixels).reshape(len(pixels), len(pixels[0]), groups, -1)
        yield windows.transpose(2, 1, 0, 3).reshape(groups, len(pixels[0]), -1)


def _groups(layer: keras.layers.Layer) -> int:
    """Parts of the input channels that share no output; a depthwise layer has one each."""
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return layer.input_shape[-1]
    return 1 if isinstance(layer, keras.layers.Dense) else layer.groups


def _group_inputs(layer: keras.layers.Layer) -> int:
    """Values that each output of a layer is a sum of."""
    pixels = 1 if isinstance(layer, keras.layers.Dense) else math.prod(layer.kernel_size)
    return pixels * layer.input_shape[-1] // _groups(layer)
