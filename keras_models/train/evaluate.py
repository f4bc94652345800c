"""Accuracy over a whole test set."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from keras_models.data import Preprocessing
from keras_models.progress import Step
from keras_models.train.augment import normalize
from keras_models.train.sources import Split

BATCH = 250
Forward = Callable[[Any, Any], tuple[Any, Any]]
Z_95 = 1.959964  # of the normal distribution: 95 % lie within so many standard deviations


@dataclass(frozen=True)
class Accuracy:
    """Top-1 and top-5 in percent; `interval` is top-1's 95 % confidence interval (Wilson's)."""

    pictures: int
    loss: float
    top1: float
    top5: float
    interval: tuple[float, float]


def evaluate(forward: Forward, split: Split, on_step: Step = lambda done, total: None) -> Accuracy:
    """Runs all pictures of `split` through what `forward_of` made."""
    total = len(split)
    parts = [np.arange(start, min(start + BATCH, total)) for start in range(0, total, BATCH)]
    loss, top1, top5 = 0.0, 0, 0
    for number, (images, labels) in enumerate(split.read(parts), start=1):
        losses, ranks = forward(images, labels)
        loss += float(np.sum(losses.numpy(), dtype=np.float64))
        top1 += int((ranks.numpy() < 1).sum())
        top5 += int((ranks.numpy() < 5).sum())
        on_step(number, len(parts))
    return Accuracy(
        total, loss / total, 100 * top1 / total, 100 * top5 / total, interval(top1, total)
    )


def interval(right: int, total: int) -> tuple[float, float]:
    """Wilson's score interval of a rate, in percent."""
    rate, z2 = right / total, Z_95**2 / total
    center = (rate + z2 / 2) / (1 + z2)
    half = Z_95 / (1 + z2) * math.sqrt(rate * (1 - rate) / total + z2 / (4 * total))
    return 100 * (center - half), 100 * (center + half)


def forward_of(model: Any, preprocessing: Preprocessing) -> Forward:
    """Makes of a model a function: uint8 pictures, labels -> losses, classes before the right one.

    Both (b,).  It is compiled once, so keep it.
    """

    @tf.function(reduce_retracing=True)
    def forward(images: Any, labels: Any) -> Any:
        logits = tf.cast(model(normalize(images, preprocessing), training=False), tf.float32)
        right = tf.gather(logits, labels, batch_dims=1)[:, None]
        classes = tf.range(logits.shape[1], dtype=labels.dtype)[None]
        # Of equal logits the first class wins, as in argmax; NaN is never right.
        behind = (logits < right) | ((logits == right) & (classes >= labels[:, None]))
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return losses, tf.reduce_sum(tf.cast(~behind, tf.int32), axis=1)

    return forward
