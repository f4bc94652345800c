"""Who is right: top-1, top-5 and their intervals, against the textbook's."""

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from keras_models import accuracy
from keras_models.accuracy import NONE, Classifier, Predictions, judge
from keras_models.images.datasets import Batch, Pictures
from shufflelite.errors import InputError

# Newcombe 1998, Statistics in Medicine 17, 2635-2650, Table III: the cells e, f, g and h and the
# limits of method 10.  Of the row 1, 97, 1, 1 the paper prints 0.8736, where eh < fg and so method
# 10 is method 8, of which it prints 0.8737.
NEWCOMBE = [
    ((36, 12, 2, 0), (0.0569, 0.3404)),
    ((20, 12, 2, 16), (0.0562, 0.3292)),
    ((18, 12, 2, 18), (0.0562, 0.3290)),
    ((36, 14, 0, 0), (0.1528, 0.4167)),
    ((35, 14, 0, 1), (0.1461, 0.4175)),
    ((18, 14, 0, 18), (0.1441, 0.3963)),
    ((2, 97, 1, 0), (0.8721, 0.9854)),
    ((1, 97, 1, 1), (0.8737, 0.9850)),
    ((0, 29, 1, 0), (0.6666, 0.9882)),
    ((2, 98, 0, 0), (0.9178, 0.9945)),
    ((1, 98, 0, 1), (0.9171, 0.9916)),
    ((0, 30, 0, 0), (0.8395, 1.0)),
    ((54, 0, 0, 0), (-0.0664, 0.0664)),
    ((53, 0, 0, 1), (-0.0729, 0.0729)),
    ((30, 0, 0, 24), (-0.0358, 0.0358)),
    ((29, 0, 0, 25), (-0.0354, 0.0354)),
    ((28, 0, 0, 26), (-0.0352, 0.0352)),
    ((27, 0, 0, 27), (-0.0351, 0.0351)),
]


def split_of(pixels: np.ndarray, labels: np.ndarray) -> Pictures:
    return Pictures("x", pixels, labels, None, sha256="")


def read_by(read: Callable[[Iterable[np.ndarray]], Iterator[Batch]], split: Pictures) -> Pictures:
    """Pictures that `read` reads."""

    class ReadBy(Pictures):
        def read(self, batches: Iterable[np.ndarray]) -> Iterator[Batch]:
            return read(batches)

    return ReadBy(split.origin, split.pixels, split.labels, None, sha256="")


def linear(kernel: np.ndarray) -> Classifier:
    """Logits are the one pixel's channels times `kernel`."""
    return lambda pictures: pictures[:, 0, 0].astype(np.float32) @ kernel.astype(np.float32)


def drawn(count: int, classes: int, *, seed: int = 0) -> tuple[Pictures, np.ndarray]:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, 1, 1, 3), np.uint8)
    return split_of(pixels, rng.integers(0, classes, count)), rng.normal(0, 0.01, (3, classes))


def fields(answers: Predictions) -> list[Any]:
    return [getattr(answers, field.name) for field in dataclasses.fields(answers)]


def test_figures_are_numpys_over_batches_of_all_sizes() -> None:
    split, kernel = drawn(accuracy.BATCH + 37, 9)
    answers = accuracy.accuracy(linear(kernel), split)
    (pixels, labels), *_ = split.read([np.arange(len(split))])
    logits = pixels[:, 0, 0].astype(np.float64) @ kernel
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
    order = np.argsort(-logits, axis=1)
    found = answers.accuracy
    assert found.pictures == len(labels) == len(answers)
    assert found.loss == pytest.approx(losses.mean(), rel=1e-5)
    assert found.top1 == pytest.approx(100 * (order[:, 0] == labels).mean())
    assert found.top5 == pytest.approx(100 * (order[:, :5] == labels[:, None]).any(axis=1).mean())
    np.testing.assert_array_equal(answers.best, order[:, 0])
    np.testing.assert_array_equal(answers.ranks, np.argmax(order == labels[:, None], axis=1))


def test_equal_logits_count_for_the_first_class_and_nan_for_none() -> None:
    labels = np.array([0, 1, 2])
    ties = judge(np.zeros((3, 3), np.float32), labels)
    assert ties.best.tolist() == [0, 0, 0]
    assert ties.ranks.tolist() == [0, 1, 2]
    assert ties.losses == pytest.approx([math.log(3)] * 3)
    for column in range(3):  # NaN as the right logit, before it and behind it
        logits = np.eye(3, dtype=np.float32)
        logits[:, column] = np.nan
        answers = judge(logits, labels)
        assert answers.best.tolist() == [NONE] * 3
        assert (answers.ranks > 0).all()
        assert answers.accuracy.top1 == 0
        assert answers.confusion.sum() == 0
        assert accuracy.compare(answers, answers).agreement == 0  # there is nothing to agree on


def test_losses_of_any_size_are_finite() -> None:
    answers = judge(np.array([[1e4, 0.0], [-1e4, 3e4]], np.float32), np.array([0, 0]))
    assert answers.losses == pytest.approx([0.0, 4e4])


def test_confusion_is_counted_as_by_hand() -> None:
    split, kernel = drawn(200, 4)
    answers = accuracy.accuracy(linear(kernel), split)
    counts = [[0] * 4 for _ in range(4)]
    for label, best in zip(answers.labels, answers.best, strict=True):
        counts[label][best] += 1
    assert answers.confusion.tolist() == counts


def test_two_networks_are_compared_picture_by_picture() -> None:
    """Right are: both on 4 pictures, the reference alone on 3, the other alone on 1, none on 2."""
    labels = np.zeros(10, np.int64)
    said = [
        np.eye(3)[[0, 0, 0, 0, 0, 0, 0, 1, 1, 2]],  # the reference
        np.eye(3)[[0, 0, 0, 0, 1, 1, 2, 0, 1, 1]],
    ]
    reference, other = (judge(logits.astype(np.float32), labels) for logits in said)
    found = accuracy.compare(other, reference)
    assert (found.only_reference, found.only_this) == (3, 1)
    assert found.points == pytest.approx(-20)
    assert found.agreement == pytest.approx(50)  # four right, and one alike wrong
    assert found.interval == accuracy.paired_interval(4, 1, 3, 2)
    back = accuracy.compare(reference, other)
    assert back.interval == pytest.approx((-found.interval[1], -found.interval[0]))


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(81, 263, 25.53, 36.62), (15, 148, 6.24, 16.05), (0, 20, 0.0, 16.11), (1, 29, 0.61, 17.18)],
)
def test_interval_is_wilsons(right: int, total: int, low: float, high: float) -> None:
    """The four of R. Newcombe, Statistics in Medicine 17 (1998), Table I, method 3."""
    assert accuracy.interval(right, total) == pytest.approx((low, high), abs=0.006)


@pytest.mark.parametrize(("cells", "limits"), NEWCOMBE)
def test_interval_of_pairs_is_newcombes(
    cells: tuple[int, int, int, int], limits: tuple[float, float]
) -> None:
    expected = [100 * limit for limit in limits]
    assert accuracy.paired_interval(*cells) == pytest.approx(expected, abs=0.0051)


def test_interval_of_pairs_is_that_of_other_books() -> None:
    """Cavo 2012, in Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables."""
    found = accuracy.paired_interval(59, 6, 16, 80)
    assert found == pytest.approx((-11.86, -0.46), abs=0.006)


@pytest.mark.parametrize(
    ("one", "other"), [(400, 550), (55, 40), (4000, 4000)], ids=["worse", "better", "alike"]
)
def test_interval_of_many_pairs_is_that_of_the_normal_distribution(one: int, other: int) -> None:
    both, neither = 40_000, 10_000 - one - other
    total = both + one + other + neither
    deviation = math.sqrt(one + other - (one - other) ** 2 / total) / total
    points = 100 * (one - other) / total
    low, high = accuracy.paired_interval(both, one, other, neither)
    assert low == pytest.approx(points - 196 * deviation, abs=4 * deviation)
    assert high == pytest.approx(points + 196 * deviation, abs=4 * deviation)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
def test_answers_do_not_depend_on_batches_and_threads(batch: int, threads: int) -> None:
    split, kernel = drawn(200, 5)
    kernel = np.round(1000 * kernel)  # whole numbers, which are exact in any order
    classifiers = [linear(kernel), linear(-kernel)]
    expected = [accuracy.accuracy(classifier, split) for classifier in classifiers]
    sizes, steps = [], []

    def slow(pictures: np.ndarray) -> np.ndarray:
        sizes.append(len(pictures))
        time.sleep(np.random.default_rng(int(pictures.sum())).uniform(0, 0.002))
        return classifiers[0](pictures)

    found = accuracy.measure(
        [slow, classifiers[1]],
        split,
        batch=batch,
        threads=threads,
        on_step=lambda done, total: steps.append((done, total)),
    )
    for one, other in zip(found, expected, strict=True):
        for ours, theirs in zip(fields(one), fields(other), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert (sum(sizes), max(sizes)) == (200, min(batch, 200))
    parts = math.ceil(200 / batch)
    assert steps == [(done, parts) for done in range(1, parts + 1)]


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_work_at_the_same_time_and_reading_does_not_run_ahead(threads: int) -> None:
    split, kernel = drawn(40, 5)
    lock, together = threading.Lock(), threading.Barrier(threads)
    read, begun, answered, ahead = 0, 0, 0, []

    def counted(batches: Iterable[np.ndarray]) -> Iterator[Batch]:
        nonlocal read
        for batch in split.read(batches):
            with lock:
                read += 1
                ahead.append(read - answered)
            yield batch

    def meet(pictures: np.ndarray) -> np.ndarray:
        nonlocal begun, answered
        with lock:
            begun += 1
            waits = begun <= 30
        if waits:
            together.wait(timeout=20)  # breaks unless all threads come
        with lock:
            answered += 1
        return linear(kernel)(pictures)

    accuracy.measure([meet], read_by(counted, split), batch=1, threads=threads)
    assert max(ahead) <= threads + 2


def test_a_label_beyond_the_classes_is_told() -> None:
    split, kernel = drawn(20, 5)
    message = r"^Expected labels below 3, the network's number of classes, got 4\.$"
    with pytest.raises(InputError, match=message):
        accuracy.accuracy(linear(kernel[:, :3]), split)


@pytest.mark.parametrize("fails", ["classifier", "picture"])
def test_what_fails_stops_the_others(fails: str) -> None:
    split, kernel = drawn(1000, 5)
    asked = 0

    def read(batches: Iterable[np.ndarray]) -> Iterator[Batch]:
        for number, batch in enumerate(split.read(batches)):
            if fails == "picture" and number == 10:
                raise InputError("x.png: cannot be decoded")
            yield batch

    def ask(pictures: np.ndarray) -> np.ndarray:
        nonlocal asked
        asked += 1
        if fails == "classifier" and asked == 10:
            raise RuntimeError("no memory")
        return linear(kernel)(pictures)

    with pytest.raises(InputError if fails == "picture" else RuntimeError):
        accuracy.measure([ask], read_by(read, split), batch=1, threads=2)
    assert asked < 20


def test_top5_can_be_wrong_with_more_than_five_classes_only() -> None:
    for classes in (2, 5, 6, 10):
        always_last = judge(-np.eye(classes), np.arange(classes))
        assert (always_last.accuracy.top5 < 100) is accuracy.has_top5(classes)
