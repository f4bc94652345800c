"""Random weights keep the signal of every network alive."""

from typing import Any

import numpy as np
import pytest
import tf_keras as keras

from keras_models import registry
from keras_models.checkpoints import random_weights
from keras_models.checkpoints.random_weights import randomize

BatchNorm = keras.layers.BatchNormalization
LARGE = [name for name in registry.names("efficientnet_v2_*") if name[-2:] not in ("b0", "_s")]


def build(name: str = "shufflenet_v2", *, width: float | None = 0.5) -> Any:
    return registry.create(name, width=width, input_shape=(64, 64, 3), num_classes=10)


@pytest.mark.parametrize("name", ["shufflenet_v2", "mobilenet_v1"])
def test_batch_norms_store_the_statistics_of_the_batch_that_was_run(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = np.random.default_rng(7).uniform(-1, 1, (8, 64, 64, 3)).astype(np.float32)
    monkeypatch.setattr(random_weights, "_clouds", lambda rng, shape: batch)
    model = build(name)
    momenta = [n.momentum for n in model.layers if isinstance(n, BatchNorm)]
    randomize(model, seed=0)
    norms = [n for n in model.layers if isinstance(n, BatchNorm)]
    assert [norm.momentum for norm in norms] == momenta
    for norm in norms:
        norm.momentum = 1.0  # training mode, in which statistics are the batch's, changes nothing
    probe = keras.Model(model.inputs, [norm.input for norm in norms])
    for norm, read in zip(norms, probe(batch, training=True), strict=True):
        x = read.numpy().reshape(-1, read.shape[-1]).astype(np.float64)
        scale = x.std(0).max()
        mean, variance = norm.moving_mean.numpy(), norm.moving_variance.numpy()
        np.testing.assert_allclose(mean, x.mean(0), atol=1e-4 * scale, err_msg=norm.name)
        # Keras stores a sample's variance
        np.testing.assert_allclose(
            variance, x.var(0, ddof=1), rtol=1e-3, atol=1e-6, err_msg=norm.name
        )


@pytest.mark.parametrize("name", [n for n in registry.names() if n not in LARGE])
def test_logits_are_of_ordinary_size_and_depend_on_the_picture(name: str) -> None:
    model = build(name, width=None)
    randomize(model, seed=0)
    x = random_weights._clouds(np.random.default_rng(3), (64, 64, 3))
    logits = model(x, training=False).numpy()
    assert 0.03 < logits.std() < 30  # fresh Keras weights: 1e-6
    assert logits.std(axis=0).max() > 0.03 * np.abs(logits).max()


def test_the_seed_decides() -> None:
    one, same, other = build(), build(), build()
    for model, seed in ((one, 1), (same, 1), (other, 2)):
        randomize(model, seed=seed)
    for a, b, c in zip(one.weights, same.weights, other.weights, strict=True):
        np.testing.assert_array_equal(a, b)
        assert "bias" in a.name or not np.array_equal(a, c), a.name


def test_clouds_are_as_rough_at_all_scales() -> None:
    clouds = random_weights._clouds(np.random.default_rng(0), (64, 64, 3))
    assert clouds.shape == (random_weights.BATCH, 64, 64, 3)
    assert -1 <= clouds.min() < -0.9 < 0.9 < clouds.max() <= 1
    blocks = clouds.reshape(-1, 8, 8, 8, 8, 3).mean(axis=(2, 4))
    # white noise loses seven eighths of its deviation in means of 8 x 8 pixels
    assert blocks.std() > 0.35 * clouds.std()
