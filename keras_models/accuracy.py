"""How often a network is right, how sure that is, and how it differs from another.

Of equal logits the first class is the best; where one is NaN there is none, and the network wrong.
"""

import collections
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from keras_models.images.datasets import Split
from shufflelite.errors import InputError
from shufflelite.progress import Step

BATCH = 250
NONE = -1  # in place of a best class
Z_95 = 1.959964  # of the normal distribution: 95 % lie within so many standard deviations

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
    """How a network differs from a reference on the same pictures."""

    points: float  # its top-1 less the reference's
    interval: Interval  # of `points`, at 95 % confidence; see `paired_interval`
    agreement: float  # percent of the pictures that both give the same best class
    only_reference: int  # pictures that the reference alone gets right
    only_this: int


@dataclass(frozen=True, eq=False)
class Answers:
    """What a network says to labelled pictures, (n,) each."""

    classes: int
    labels: np.ndarray  # int64
    best: np.ndarray  # int64, class or NONE
    ranks: np.ndarray  # int64, how many classes it puts before the right one
    losses: np.ndarray  # float64, cross-entropy

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def accuracy(self) -> Accuracy:
        """The figures of all pictures together."""
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
        """How many pictures of each class (row) have which best class (column), where any."""
        decided = self.best != NONE
        pairs = self.labels[decided] * self.classes + self.best[decided]
        counts = np.bincount(pairs, minlength=self.classes**2)
        return counts.reshape(self.classes, self.classes)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """The softmax of the logits of one picture, (classes,)."""
    exponents = np.exp(logits - logits.max())
    return exponents / exponents.sum()


def accuracy(
    classifier: Classifier, split: Split, on_step: Step = lambda done, total: None
) -> Answers:
    """Asks a classifier for all pictures of `split`."""
    (answers,) = measure([classifier], split, on_step=on_step)
    return answers


def measure(
    classifiers: Sequence[Classifier],
    split: Split,
    *,
    batch: int = BATCH,
    threads: int = 1,
    on_step: Step = lambda done, total: None,
) -> list[Answers]:
    """Asks several classifiers for the same pictures, which are read once.

    Args:
      classifiers: Functions of a batch; with several threads they are called from all of them.
      split: The pictures.
      batch: How many a call is given.
      threads: How many batches are worked on at the same time; the answers do not depend on it.
      on_step: Is told batches done and in all.

    Raises:
      InputError: a label that a classifier has no class for, or a picture that cannot be read.
    """
    total = len(split)
    parts = [np.arange(start, min(start + batch, total)) for start in range(0, total, batch)]

    def ask(pictures: np.ndarray, labels: np.ndarray) -> list[Answers]:
        return [judge(classifier(pictures), labels) for classifier in classifiers]

    answers: list[list[Answers]] = []
    pending: collections.deque[Future[list[Answers]]] = collections.deque()

    def collect() -> None:
        answers.append(pending.popleft().result())
        on_step(len(answers), len(parts))

    with ThreadPoolExecutor(threads) as pool:
        try:
            for pictures, labels in split.read(parts):
                pending.append(pool.submit(ask, pictures, labels))
                if len(pending) > threads:  # one waits, so that no thread does
                    collect()
            while pending:
                collect()
        finally:
            pool.shutdown(cancel_futures=True)
    return [_joined(of_one) for of_one in zip(*answers, strict=True)]


def judge(logits: np.ndarray, labels: np.ndarray) -> Answers:
    """Compares logits, (n, classes), with the right classes, (n,).

    Raises:
      InputError: a label that there is no logit for.
    """
    count, classes = logits.shape
    if labels.max() >= classes:
        raise InputError(
            f"Expected labels below {classes}, the network's number of classes, got {labels.max()}."
        )
    right = logits[np.arange(count), labels][:, None]
    behind = (logits < right) | ((logits == right) & (np.arange(classes) >= labels[:, None]))
    with np.errstate(invalid="ignore", over="ignore"):  # of logits that are no numbers
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(count), labels]
    return Answers(
        classes=classes,
        labels=labels,
        best=best_classes(logits),
        ranks=classes - np.count_nonzero(behind, axis=1),
        losses=losses,
    )


def best_classes(logits: np.ndarray) -> np.ndarray:
    """The best class of each row, or NONE."""
    return np.where(np.isnan(logits).any(axis=1), NONE, logits.argmax(axis=1))


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Percent of pictures with the same best class."""
    return 100 * float(np.mean((one == other) & (one != NONE)))


def compare(answers: Answers, reference: Answers) -> Difference:
    """Holds a network against a reference that was asked for the same pictures."""
    right, wanted = answers.ranks == 0, reference.ranks == 0
    both, this, that = (
        int(np.count_nonzero(where)) for where in (right & wanted, right & ~wanted, ~right & wanted)
    )
    total = len(answers)
    return Difference(
        points=100 * (this - that) / total,
        interval=paired_interval(both, this, that, total - both - this - that),
        agreement=agreement(answers.best, reference.best),
        only_reference=that,
        only_this=this,
    )


def interval(right: int, total: int) -> Interval:
    """Wilson's score interval of a rate, in percent."""
    rate, z2 = right / total, Z_95**2 / total
    center = (rate + z2 / 2) / (1 + z2)
    half = Z_95 / (1 + z2) * math.sqrt(rate * (1 - rate) / total + z2 / (4 * total))
    return 100 * max(0.0, center - half), 100 * min(1.0, center + half)


def paired_interval(both: int, one: int, other: int, neither: int) -> Interval:
    """Interval of the difference of two rates over the same n cases, in points.

    Method 10 of R. Newcombe, Statistics in Medicine 17 (1998) 2635: Wilson's intervals of the two
    rates, put together by how they correlate.  It holds for few cases and for rates near 0 and 1.

    Args:
      both: Cases in which both are right.
      one: In which the first alone is right.
      other: In which the second alone is right.
      neither: In which both are wrong.
    """
    total = both + one + other + neither
    rates = [100 * (both + alone) / total for alone in (one, other)]
    limits = [interval(both + alone, total) for alone in (one, other)]
    (below, above), (other_below, other_above) = (
        (rate - low, high - rate) for rate, (low, high) in zip(rates, limits, strict=True)
    )
    covariance = float(both * neither - one * other)
    if covariance > 0:  # continuity: half a case less
        covariance = max(covariance - total / 2, 0.0)
    variances = (both + one) * (other + neither) * (both + other) * (one + neither)
    phi = covariance / math.sqrt(variances) if variances else 0.0

    def width(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    points = 100 * (one - other) / total
    return points - width(below, other_above), points + width(above, other_below)


def _joined(parts: Sequence[Answers]) -> Answers:
    def all_of(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    return Answers(
        parts[0].classes, all_of("labels"), all_of("best"), all_of("ranks"), all_of("losses")
    )
