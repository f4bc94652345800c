"""Augmentation of a whole batch by TensorFlow's operators.

Random numbers depend on the seed, the step and a picture's index in the batch of all replicas:
a resumed run, or another number of replicas, draws the same ones.
"""

import math
from dataclasses import dataclass

import tensorflow as tf

from keras_models.images.decode import Preprocessing
from keras_models.layers import Tensor
from keras_models.train.randaugment import randaugment
from keras_models.train.settings import Augment

GREY = 128  # pixels outside of a picture


@dataclass(frozen=True)
class Draw:
    """Random numbers for the pictures `first` to `first + local` of a batch of `total`."""

    seed: Tensor  # (2,) int64
    total: int
    first: Tensor | int
    local: int

    def uniform(self, number: int, *shape: int) -> Tensor:
        """The random numbers `number` of this step, in [0, 1), (local, *shape)."""
        seed = tf.random.fold_in(self.seed, number)
        return self._local_part(tf.random.stateless_uniform((self.total, *shape), seed))

    def integer(self, number: int, limit: int) -> Tensor:
        """Integers below `limit`, (local,) int32."""
        return tf.cast(self.uniform(number) * limit, tf.int32)

    def beta(self, number: int, alpha: float) -> Tensor:
        """Numbers of the distribution Beta(alpha, alpha), (local,)."""
        seeds = [tf.random.fold_in(self.seed, number + i) for i in range(2)]
        a, b = (tf.random.stateless_gamma((self.total,), seed, alpha) for seed in seeds)
        return self._local_part(a / (a + b))

    def _local_part(self, batch: Tensor) -> Tensor:
        part = batch[self.first : self.first + self.local]
        return tf.ensure_shape(part, (self.local, *batch.shape[1:]))


def augment(images: Tensor, settings: Augment, resolution: int, draw: Draw) -> Tensor:
    """Crop, flip, RandAugment, cutout: uint8 (b, h, w, 3) -> float32, resized."""
    flip = draw.integer(0, 2) if settings.flip else tf.zeros(draw.local, tf.int32)
    if settings.crop == "resized":
        images = _resized_crop(images, settings.min_area, flip, resolution, draw)
    else:
        pad = settings.pad if settings.crop == "pad" else 0
        images = _shift(images, pad, flip, resolution, draw)
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
    """Preprocessing.to_input, for uint8 or float32 pixels."""
    images = tf.cast(images, tf.float32)
    if preprocessing.channel_order == "bgr":
        images = images[..., ::-1]
    return (images - tf.constant(preprocessing.mean)) / tf.constant(preprocessing.std)


def mixup(images: Tensor, targets: Tensor, alpha: float, draw: Draw) -> tuple[Tensor, Tensor]:
    """Mixes each picture and its target, (b, classes), with those of another (arXiv:1710.09412).

    The other one is its neighbour in a pair: both are on the same replica if its share is even.
    """
    if not alpha:
        return images, targets
    other = [min(i ^ 1, draw.local - 1) for i in range(draw.local)]
    share = draw.beta(10, alpha)[:, None]
    targets = share * targets + (1 - share) * tf.gather(targets, other)
    share = share[:, :, None, None]
    return share * images + (1 - share) * tf.gather(images, other), targets


def _shift(images: Tensor, pad: int, flip: Tensor, resolution: int, draw: Draw) -> Tensor:
    """Crops `resolution` pixels at random from the picture with `pad` grey pixels around it."""
    if images.shape[1] != resolution:
        images = tf.image.resize(images, (resolution, resolution), antialias=True)
    if pad:
        padding = ((0, 0), (pad, pad), (pad, pad), (0, 0))
        images = tf.pad(images, padding, constant_values=tf.constant(GREY, images.dtype))
    rows, columns = (
        draw.integer(number, 2 * pad + 1)[:, None] + tf.range(resolution)[None] for number in (1, 2)
    )
    columns = tf.where(flip[:, None] == 1, columns[:, ::-1], columns)
    images = tf.gather(images, rows, axis=1, batch_dims=1)
    return tf.cast(tf.gather(images, columns, axis=2, batch_dims=1), tf.float32)


def _resized_crop(
    images: Tensor, min_area: float, flip: Tensor, resolution: int, draw: Draw
) -> Tensor:
    """Inception's crop: at least `min_area` of the picture, aspect ratio 3/4 to 4/3, resized."""
    area = min_area + (1 - min_area) * draw.uniform(1)
    aspect = tf.exp((2 * draw.uniform(2) - 1) * math.log(4 / 3))
    height = tf.minimum(tf.sqrt(area / aspect), 1.0)
    width = tf.minimum(tf.sqrt(area * aspect), 1.0)
    top, left = draw.uniform(3) * (1 - height), draw.uniform(4) * (1 - width)
    right = left + width
    left, right = tf.where(flip == 1, right, left), tf.where(flip == 1, left, right)
    boxes = tf.stack([top, left, top + height, right], axis=1)
    return tf.image.crop_and_resize(images, boxes, tf.range(draw.local), (resolution, resolution))


def _cutout(images: Tensor, square: int, draw: Draw) -> Tensor:
    """Covers a square that may extend beyond the border (arXiv:1708.04552)."""
    resolution = images.shape[1]
    inside = []
    for number in (5, 6):
        start = draw.integer(number, resolution)[:, None] - square // 2
        offset = tf.range(resolution)[None] - start
        inside.append((offset >= 0) & (offset < square))
    covered = inside[0][:, :, None, None] & inside[1][:, None, :, None]
    return tf.where(covered, tf.constant(GREY, images.dtype), images)
