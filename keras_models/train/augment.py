"""Augmentation of a whole batch by TensorFlow's own operators.

What is drawn depends on seed, step and a picture's place in the batch of all workers together:
neither a resumed run nor another number of workers changes it.
"""

import math
from dataclasses import dataclass

import tensorflow as tf

from keras_models.images.decode import Preprocessing
from keras_models.layers import Tensor
from keras_models.train.randaugment import randaugment
from keras_models.train.settings import Augment

GREY = 128  # of what lies outside of a picture


@dataclass(frozen=True)
class Draw:
    """Random numbers for the pictures `first` to `first + local` of a batch of `total`."""

    seed: Tensor  # (2,) int64
    total: int
    first: Tensor | int
    local: int

    def uniform(self, number: int, *shape: int) -> Tensor:
        """The draw `number` of this step, in [0, 1), (local, *shape)."""
        seed = tf.random.fold_in(self.seed, number)
        every = tf.random.stateless_uniform((self.total, *shape), seed)
        return self._own(every)

    def integer(self, number: int, limit: int) -> Tensor:
        """Below `limit`, (local,) int32."""
        return tf.cast(self.uniform(number) * limit, tf.int32)

    def beta(self, number: int, alpha: float) -> Tensor:
        """Of the beta distribution with `alpha` twice, (local,)."""
        seeds = [tf.random.fold_in(self.seed, number + i) for i in range(2)]
        a, b = (tf.random.stateless_gamma((self.total,), seed, alpha) for seed in seeds)
        return self._own(a / (a + b))

    def _own(self, every: Tensor) -> Tensor:
        own = every[self.first : self.first + self.local]
        return tf.ensure_shape(own, (self.local, *every.shape[1:]))


def augment(images: Tensor, settings: Augment, size: int, draw: Draw) -> Tensor:
    """Crops, flips, distorts and covers: uint8 (b, h, w, 3) -> float32 (b, size, size, 3)."""
    flip = draw.integer(0, 2) if settings.flip else tf.zeros(draw.local, tf.int32)
    if settings.crop == "resized":
        images = _resized_crop(images, settings.min_area, flip, size, draw)
    else:
        images = _shift(images, settings.pad if settings.crop == "pad" else 0, flip, size, draw)
    for layer in range(settings.randaugment_layers):
        images = randaugment(
            images,
            magnitude=settings.randaugment_magnitude,
            operation=draw.uniform(100 + 2 * layer),
            negative=draw.uniform(101 + 2 * layer) < 0.5,
        )
    if settings.cutout:
        images = _cutout(images, settings.cutout, draw)
    return images


def normalize(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """What Preprocessing.to_input computes, of uint8 or float32 pixels."""
    images = tf.cast(images, tf.float32)
    if preprocessing.channel_order == "bgr":
        images = images[..., ::-1]
    return (images - tf.constant(preprocessing.mean)) / tf.constant(preprocessing.std)


def mixup(images: Tensor, targets: Tensor, alpha: float, draw: Draw) -> tuple[Tensor, Tensor]:
    """Mixes each picture and its target, (b, classes), with those of another (arXiv:1710.09412).

    The other is its neighbour in a pair, which workers with even shares of the batch never part.
    """
    if not alpha:
        return images, targets
    other = [min(i ^ 1, draw.local - 1) for i in range(draw.local)]
    part = draw.beta(10, alpha)[:, None]
    targets = part * targets + (1 - part) * tf.gather(targets, other)
    part = part[:, :, None, None]
    return part * images + (1 - part) * tf.gather(images, other), targets


def _shift(images: Tensor, pad: int, flip: Tensor, size: int, draw: Draw) -> Tensor:
    """Takes `size` pixels from somewhere within `pad` pixels around the picture."""
    if images.shape[1] != size:
        images = tf.image.resize(images, (size, size), antialias=True)
    if pad:
        padding = ((0, 0), (pad, pad), (pad, pad), (0, 0))
        images = tf.pad(images, padding, constant_values=tf.constant(GREY, images.dtype))
    rows, columns = (
        draw.integer(number, 2 * pad + 1)[:, None] + tf.range(size)[None] for number in (1, 2)
    )
    columns = tf.where(flip[:, None] == 1, columns[:, ::-1], columns)
    images = tf.gather(images, rows, axis=1, batch_dims=1)
    return tf.cast(tf.gather(images, columns, axis=2, batch_dims=1), tf.float32)


def _resized_crop(images: Tensor, min_area: float, flip: Tensor, size: int, draw: Draw) -> Tensor:
    """Takes a part of at least `min_area` and an aspect of 3/4 to 4/3, resized (Inception)."""
    area = min_area + (1 - min_area) * draw.uniform(1)
    aspect = tf.exp((2 * draw.uniform(2) - 1) * math.log(4 / 3))
    height = tf.minimum(tf.sqrt(area / aspect), 1.0)
    width = tf.minimum(tf.sqrt(area * aspect), 1.0)
    top, left = draw.uniform(3) * (1 - height), draw.uniform(4) * (1 - width)
    right = left + width
    left, right = tf.where(flip == 1, right, left), tf.where(flip == 1, left, right)
    boxes = tf.stack([top, left, top + height, right], axis=1)
    return tf.image.crop_and_resize(images, boxes, tf.range(draw.local), (size, size))


def _cutout(images: Tensor, side: int, draw: Draw) -> Tensor:
    """Covers a square that may reach over the border (arXiv:1708.04552)."""
    size = images.shape[1]
    inside = []
    for number in (5, 6):
        start = draw.integer(number, size)[:, None] - side // 2
        place = tf.range(size)[None] - start
        inside.append((place >= 0) & (place < side))
    covered = inside[0][:, :, None, None] & inside[1][:, None, :, None]
    return tf.where(covered, tf.constant(GREY, images.dtype), images)
