"""RandAugment, https://arxiv.org/abs/1909.13719, of a whole batch at once.

An operation is a projective transform, a table of 256 values for each channel, or a blend with a
grey or blurred picture.  Each picture passes through one of each kind; at most one changes it.
"""

import math

import tensorflow as tf

from keras_models.layers import Tensor

OPERATIONS = (
    "identity",
    "auto_contrast",
    "equalize",
    "rotate",
    "solarize",
    "color",
    "posterize",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
MAX_ROTATION = math.radians(30)
MAX_SHEAR = 0.3
MAX_TRANSLATION = 150 / 331  # of the resolution: 150 of AutoAugment's 331 pixels
MAX_ENHANCEMENT = 0.9  # color, contrast, brightness and sharpness are 1 plus or minus this
MAX_POSTERIZED = 4  # of the 8 bits
GREY_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R 601
GREY = 128.0


def randaugment(images: Tensor, *, magnitude: float, operation: Tensor, negative: Tensor) -> Tensor:
    """Distorts each picture by one of OPERATIONS.

    Args:
      images: float32 (b, h, w, 3) of pixels 0 to 255.
      magnitude: 0 to 30; at 10 the operations have the strengths above.
      operation: numbers in [0, 1) that choose the operation, (b,).
      negative: whether to rotate, shear, translate or blend in the other direction, (b,) bool.
    """
    chosen = tf.cast(operation * len(OPERATIONS), tf.int32)
    strength = magnitude / 10
    signed = tf.where(negative, -strength, strength)
    images = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=_transforms(chosen, signed, size=images.shape[1]),
        output_shape=images.shape[1:3],
        fill_value=GREY,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    images = _look_up(tf.clip_by_value(tf.round(images), 0, 255), chosen, strength, signed)
    return _blend(images, chosen, 1 + MAX_ENHANCEMENT * signed)


def _pick(chosen: Tensor, name: str, value: Tensor, otherwise: Tensor) -> Tensor:
    mask = chosen == OPERATIONS.index(name)
    return tf.where(tf.reshape(mask, (-1, *(1 for _ in otherwise.shape[1:]))), value, otherwise)


def _transforms(chosen: Tensor, signed: Tensor, *, size: int) -> Tensor:
    """Rows (a, b, c, d, e, f, 0, 0): pixel (x, y) is read at (ax + by + c, dx + ey + f)."""
    zeros = tf.zeros_like(signed)
    angle = _pick(chosen, "rotate", signed * MAX_ROTATION, zeros)
    shear_x = _pick(chosen, "shear_x", signed * MAX_SHEAR, zeros)
    shear_y = _pick(chosen, "shear_y", signed * MAX_SHEAR, zeros)
    move_x = _pick(chosen, "translate_x", signed * MAX_TRANSLATION * size, zeros)
    move_y = _pick(chosen, "translate_y", signed * MAX_TRANSLATION * size, zeros)
    cos, sin = tf.cos(angle), tf.sin(angle)
    center = (size - 1) / 2
    across, down = shear_x - sin, shear_y + sin
    c = center * (1 - cos - across) + move_x
    f = center * (1 - cos - down) + move_y
    return tf.stack([cos, across, c, down, cos, f, zeros, zeros], axis=1)


def _look_up(images: Tensor, chosen: Tensor, strength: float, signed: Tensor) -> Tensor:
    """Replaces pixels by values from a table for each picture and channel, (b, 3, 256)."""
    batch = tf.shape(images)[0]
    first = tf.reshape(tf.range(batch * 3) * 256, (batch, 1, 1, 3))
    index = tf.cast(images, tf.int32) + first
    histogram = tf.reshape(tf.math.bincount(index, minlength=batch * 3 * 256), (batch, 3, 256))
    levels = tf.range(256.0)
    factor = (1 + MAX_ENHANCEMENT * signed)[:, None, None]
    grey = tf.reduce_mean(tf.tensordot(images, GREY_WEIGHTS, 1), axis=(1, 2))[:, None, None]
    step = 2.0 ** min(8, round(strength * MAX_POSTERIZED))
    table = tf.broadcast_to(levels, tf.shape(histogram))
    for name, values in (
        ("auto_contrast", _auto_contrast(images)),
        ("equalize", _equalize(histogram)),
        ("solarize", tf.where(levels < 256 * (1 - strength), levels, 255 - levels)),
        ("posterize", tf.floor(levels / step) * step),
        ("contrast", factor * levels + (1 - factor) * grey),
        ("brightness", factor * levels),
    ):
        table = _pick(chosen, name, values, table)
    return tf.gather(tf.reshape(tf.clip_by_value(table, 0, 255), (-1,)), index)


def _auto_contrast(images: Tensor) -> Tensor:
    low = tf.reduce_min(images, axis=(1, 2))[:, :, None]
    high = tf.reduce_max(images, axis=(1, 2))[:, :, None]
    levels = tf.range(256.0)
    return tf.where(high > low, (levels - low) * 255 / tf.maximum(high - low, 1), levels)


def _equalize(histogram: Tensor) -> Tensor:
    """Pillow's equalize: a level becomes the fraction of pixels below it."""
    below = tf.cumsum(histogram, axis=-1, exclusive=True)
    total = tf.reduce_sum(histogram, axis=-1, keepdims=True)
    brightest = tf.reduce_max(tf.where(histogram > 0, tf.range(256), 0), axis=-1)
    last = tf.gather(histogram, brightest, axis=-1, batch_dims=2)[..., None]
    step = (total - last) // 255
    spread = tf.minimum((below + step // 2) // tf.maximum(step, 1), 255)
    return tf.cast(tf.where(step > 0, spread, tf.range(256)), tf.float32)


def _blend(images: Tensor, chosen: Tensor, factor: Tensor) -> Tensor:
    """Interpolates between the grey or blurred picture (0) and the picture (1), or beyond."""
    ones = tf.ones_like(factor)
    for name, degenerate in (
        ("color", tf.tensordot(images, GREY_WEIGHTS, 1)[..., None]),
        ("sharpness", _blur(images)),
    ):
        by = _pick(chosen, name, factor, ones)[:, None, None, None]
        images = by * images + (1 - by) * degenerate
    return tf.clip_by_value(images, 0, 255)


def _blur(images: Tensor) -> Tensor:
    """Pillow's SMOOTH, which keeps the outermost pixels."""
    kernel = tf.constant([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    kernel = tf.tile(kernel[:, :, None, None], (1, 1, 3, 1))
    inner = tf.nn.depthwise_conv2d(images, kernel, (1, 1, 1, 1), "VALID")
    inside = tf.pad(tf.ones_like(inner), ((0, 0), (1, 1), (1, 1), (0, 0)))
    return tf.where(inside > 0, tf.pad(inner, ((0, 0), (1, 1), (1, 1), (0, 0))), images)
