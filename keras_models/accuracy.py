"""Top-1, top-5 and loss with confidence intervals, and paired comparisons of two networks.

Ties go to the first class. If a logit is NaN, the picture has no best class and counts as wrong.
"""

import collections
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from keras_models.images.datasets import Pictures
from shufflelite.errors import InputError
from shufflelite.progress import Step

BATCH = 250
NONE = -1  # no best class
Z_95 = 1.959964  # standard deviations of a normal distribution that contain 95 %

Classifier = Callable[[np.ndarray], np.ndarray]  # uint8 pictures (b, h, w, 3) -> (b, classes)
Interval = tuple[float, float]


@dataclass(frozen=True)
class Accuracy:
    """Top-1 and top-5 in percent; `interval` is top-1's 95 % confidence interval (Wilson's)."""

    pictures: int
    loss: float  # mean cross-entropy of the logits
    top1: float
    top5: float
    interval: Interval


@dataclass(frozen=True)
class Difference:
    """A network compared with a reference on the same pictures."""

    points: float  # top-1 minus that of the reference
    interval: Interval  # of `points`, at 95 % confidence; see `paired_interval`
    agreement: float  # percent of pictures with the same best class
    only_reference: int  # pictures that only the reference classifies correctly
    only_this: int  # pictures that only this network classifies correctly


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of a network for labelled pictures, (n,) each."""

    classes: int
    labels: np.ndarray  # int64
    best: np.ndarray  # int64, the best class or NONE
    ranks: np.ndarray  # int64, number of classes ranked above the label
    losses: np.ndarray  # float64, cross-entropy

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def accuracy(self) -> Accuracy:
        """The figures over all pictures."""
        total = len(self)
        top1, top5 = (int(np.count_nonzero(self.ranks < k)) for k in (1, 5))
        return Accuracy(
            pictures=total,
            loss=float(self.losses.sum() / total),
            top1=100 * top1 / total,
            top5=100 * top5 / total,
            interval=interval(top1, total),
        )

    @property
    def confusion(self) -> np.ndarray:
        """(class, best class): number of pictures; those without a best class are left out."""
        decided = self.best != NONE
        pairs = self.labels[decided] * self.classes + self.best[decided]
        counts = np.bincount(pairs, minlength=self.classes**2)
        return counts.reshape(self.classes, self.classes)


def has_top5(classes: int) -> bool:
    """Whether top-5 can be wrong."""
    return classes > 5


def probabilities(logits: np.ndarray) -> np.ndarray:
    """The softmax of the logits of one picture, (classes,)."""
    exponents = np.exp(logits - logits.max())
    return exponents / exponents.sum()


def accuracy(
    classifier: Classifier, split: Pictures, on_step: Step = lambda done, total: None
) -> Predictions:
    """Classifies all pictures of `split`."""
    (predictions,) = measure([classifier], split, on_step=on_step)
    return predictions


def measure(
    classifiers: Sequence[Classifier],
    split: Pictures,
    *,
    batch: int = BATCH,
    threads: int = 1,
    on_step: Step = lambda done, total: None,
) -> list[Predictions]:
    """Classifies the same pictures, which are read once, with several classifiers.

    Args:
      classifiers: Functions of a batch; several threads call them at the same time.
      split: The pictures.
      batch: Size of a batch.
      threads: Batches processed at the same time; the predictions do not depend on it.
      on_step: Called with the number of batches done and the total.

    Raises:
      InputError: a label is not a class of a classifier, or a picture cannot be read.
    """
    total = len(split)
    batches = [np.arange(start, min(start + batch, total)) for start in range(0, total, batch)]

    def predict(pictures: np.ndarray, labels: np.ndarray) -> list[Predictions]:
        return [judge(classifier(pictures), labels) for classifier in classifiers]

    predictions: list[list[Predictions]] = []
    pending: collections.deque[Future[list[Predictions]]] = collections.deque()

    def collect() -> None:
        predictions.append(pending.popleft().result())
        on_step(len(predictions), len(batches))

    with ThreadPoolExecutor(threads) as pool:
        try:
            for pictures, labels in split.read(batches):
                pending.append(pool.submit(predict, pictures, labels))
                if len(pending) > threads:  # one more, so that no thread waits
                    collect()
            while pending:
                collect()
        finally:
            pool.shutdown(cancel_futures=True)
    return [_concatenate(batches) for batches in zip(*predictions, strict=True)]


def judge(logits: np.ndarray, labels: np.ndarray) -> Predictions:
    """Compares logits, (n, classes), with the labels, (n,).

    Raises:
      InputError: a label has no logit.
    """
    count, classes = logits.shape
    if labels.max() >= classes:
        raise InputError(
            f"Expected labels below {classes}, the network's number of classes, got {labels.max()}."
        )
    target = logits[np.arange(count), labels][:, None]
    behind = (logits < target) | ((logits == target) & (np.arange(classes) >= labels[:, None]))
    with np.errstate(invalid="ignore", over="ignore"):  # logits may be NaN or infinite
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(count), labels]
    return Predictions(
        classes=classes,
        labels=labels,
        best=best_classes(logits),
        ranks=classes - np.count_nonzero(behind, axis=1),
        losses=losses,
    )


def best_classes(logits: np.ndarray) -> np.ndarray:
    """The best class of each row; NONE if a logit is NaN."""
    return np.where(np.isnan(logits).any(axis=1), NONE, logits.argmax(axis=1))


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Percent of pictures with the same best class."""
    return 100 * float(np.mean((one == other) & (one != NONE)))


def compare(predictions: Predictions, reference: Predictions) -> Difference:
    """Compares the predictions of a network with those of a reference for the same pictures."""
    right, right_before = predictions.ranks == 0, reference.ranks == 0
    both = int(np.count_nonzero(right & right_before))
    this = int(np.count_nonzero(right & ~right_before))
    that = int(np.count_nonzero(~right & right_before))
    total = len(predictions)
    return Difference(
        points=100 * (this - that) / total,
        interval=paired_interval(both, this, that, total - both - this - that),
        agreement=agreement(predictions.best, reference.best),
        only_reference=that,
        only_this=this,
    )


def interval(right: int, total: int) -> Interval:
    """Wilson score interval of a rate, in percent."""
    rate, z2 = right / total, Z_95**2 / total
    center = (rate + z2 / 2) / (1 + z2)
    half = Z_95 / (1 + z2) * math.sqrt(rate * (1 - rate) / total + z2 / (4 * total))
    return 100 * max(0.0, center - half), 100 * min(1.0, center + half)


def paired_interval(both: int, one: int, other: int, neither: int) -> Interval:
    """Confidence interval of the difference of two rates over the same n cases, in points.

    Method 10 of R. Newcombe, Statistics in Medicine 17 (1998) 2635: combines the Wilson intervals
    of the two rates by their correlation. It is valid for few cases and for rates near 0 and 1.

    Args:
      both: Cases in which both are right.
      one: Cases in which only the first is right.
      other: Cases in which only the second is right.
      neither: Cases in which both are wrong.
    """
    total = both + one + other + neither
    rates = [100 * (both + alone) / total for alone in (one, other)]
    limits = [interval(both + alone, total) for alone in (one, other)]
    (below, above), (other_below, other_above) = (
        (rate - low, high - rate) for rate, (low, high) in zip(rates, limits, strict=True)
    )
    covariance = float(both * neither - one * other)
    if covariance > 0:  # continuity correction: half a case
        covariance = max(covariance - total / 2, 0.0)
    variances = (both + one) * (other + neither) * (both + other) * (one + neither)
    phi = covariance / math.sqrt(variances) if variances else 0.0

    def width(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    points = 100 * (one - other) / total
    return points - width(below, other_above), points + width(above, other_below)


def _concatenate(batches: Sequence[Predictions]) -> Predictions:
    arrays = {
        name: np.concatenate([getattr(batch, name) for batch in batches])
        for name in ("labels", "best", "ranks", "losses")
    }
    return Predictions(batches[0].classes, **arrays)
