import numpy as np
import pytest
import tf_keras as keras

from keras_models.data import Preprocessing
from keras_models.train import evaluate, sources

IDENTITY = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def model_of(kernel: np.ndarray) -> keras.Model:
    """Logits are the one pixel's channels times `kernel`."""
    inputs = keras.Input((1, 1, 3))
    x = keras.layers.Dense(kernel.shape[1], use_bias=False)(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, x)
    model.set_weights([kernel.astype(np.float32)])
    return model


def split_of(pixels: np.ndarray, labels: np.ndarray) -> sources.Split:
    def read(batches):  # type: ignore[no-untyped-def]
        return ((pixels[b], labels[b]) for b in batches)

    return sources.Split("x", labels, None, "", read)


def test_figures_are_numpys_over_batches_of_all_sizes() -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(0, 0.01, (3, 9))
    pixels = rng.integers(0, 256, (evaluate.BATCH + 37, 1, 1, 3), np.uint8)
    labels = rng.integers(0, 9, len(pixels))
    found = evaluate.evaluate(
        evaluate.forward_of(model_of(kernel), IDENTITY), split_of(pixels, labels)
    )
    logits = pixels[:, 0, 0].astype(np.float64) @ kernel
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
    order = np.argsort(-logits, axis=1)
    assert found.pictures == len(labels)
    assert found.loss == pytest.approx(losses.mean(), rel=1e-5)
    assert found.top1 == pytest.approx(100 * (order[:, 0] == labels).mean())
    assert found.top5 == pytest.approx(100 * (order[:, :5] == labels[:, None]).any(axis=1).mean())


def test_equal_logits_count_for_the_first_class_and_nan_for_none() -> None:
    labels = np.array([0, 1, 2])
    pixels = np.zeros((3, 1, 1, 3), np.uint8)
    for kernel, right in ((np.zeros((3, 3)), 100 / 3), (np.full((3, 3), np.nan), 0)):
        forward = evaluate.forward_of(model_of(kernel), IDENTITY)
        assert evaluate.evaluate(forward, split_of(pixels, labels)).top1 == pytest.approx(right)


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(81, 263, 25.53, 36.62), (15, 148, 6.24, 16.05), (0, 20, 0.0, 16.11), (1, 29, 0.61, 17.18)],
)
def test_interval_is_wilsons(right: int, total: int, low: float, high: float) -> None:
    """The four of R. Newcombe, Statistics in Medicine 17 (1998), Table I, method 3."""
    assert evaluate.interval(right, total) == pytest.approx((low, high), abs=0.006)
