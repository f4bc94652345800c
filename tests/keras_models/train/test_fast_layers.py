"""Fast layers against Keras' own: outputs, gradients and weights of the network."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from keras_models import registry
from keras_models.train.fast_layers import Randomness, with_fast_layers


def randomness(step: int = 0) -> Randomness:
    return Randomness(0, tf.Variable(step, dtype=tf.int64))


@pytest.fixture
def float64() -> Iterator[None]:
    keras.backend.set_floatx("float64")
    yield
    keras.backend.set_floatx("float32")


def gradients(model: Any, images: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        loss = tf.reduce_sum(logits**2)
    return logits.numpy(), [g.numpy() for g in tape.gradient(loss, model.trainable_variables)]


@pytest.mark.usefixtures("float64")
def test_fast_layers_has_the_outputs_and_gradients_of_the_network(
    toy: Any, randomize: Callable[[Any], Any]
) -> None:
    fast = with_fast_layers(randomize(toy), randomness())
    images = np.random.default_rng(0).normal(size=(5, 8, 8, 3))
    expected, expected_gradients = gradients(toy, images)
    actual, actual_gradients = gradients(fast, images)
    np.testing.assert_allclose(actual, expected, rtol=1e-9)
    for variable, a, e in zip(
        toy.trainable_variables, actual_gradients, expected_gradients, strict=True
    ):
        scale = np.abs(e).max()
        np.testing.assert_allclose(a, e, rtol=0, atol=1e-9 * scale, err_msg=variable.name)


def test_batch_norm_of_any_channels_remembers_what_keras_does(
    toy: Any, randomize: Callable[[Any], Any]
) -> None:
    fast = with_fast_layers(randomize(toy), randomness())
    assert type(fast.get_layer("grouped_bn")) is not keras.layers.BatchNormalization
    images = np.random.default_rng(0).normal(size=(5, 8, 8, 3)).astype(np.float32)
    for model in (toy, fast):
        model(images, training=True)
    for a, e in zip(fast.weights, toy.weights, strict=True):
        np.testing.assert_allclose(a.numpy(), e.numpy(), rtol=1e-5, atol=1e-6, err_msg=e.name)
    actual, expected = (model(images, training=False).numpy() for model in (fast, toy))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["shufflenet_v1", "shufflenet_v2", "augshufflenet"])
def test_fast_layers_keeps_names_and_order_of_the_weights(name: str) -> None:
    model = registry.create(name, stem="cifar", input_shape=(16, 16, 3), num_classes=10)
    fast = with_fast_layers(model, randomness())
    assert [(w.name, w.shape) for w in fast.weights] == [(w.name, w.shape) for w in model.weights]
    assert [w.name for w in fast.trainable_weights] == [w.name for w in model.trainable_weights]


def test_dropout_depends_on_the_step_and_nothing_else() -> None:
    x = np.ones((1000, 1, 1, 10), np.float32)

    def dropped(step: int, layer: int = 0) -> np.ndarray:
        inputs = keras.Input((1, 1, 10))
        out = keras.layers.Dropout(0.0)(inputs)
        for _ in range(layer):
            out = keras.layers.Dropout(0.0)(out)
        out = keras.layers.Dropout(0.3, noise_shape=(None, 1, 1, 1))(out)
        return with_fast_layers(keras.Model(inputs, out), randomness(step))(
            x, training=True
        ).numpy()

    first = dropped(7)
    np.testing.assert_array_equal(dropped(7), first)
    for other in (dropped(8), dropped(7, layer=1)):
        assert 0.3 < (other != first).mean() < 0.55  # of independent draws 0.42 differ
    assert (first == first[..., :1]).all(), "an example's channels go together"
    assert 0.25 < (first == 0).mean() < 0.35
    np.testing.assert_allclose(np.unique(first), [0, 1 / 0.7], rtol=1e-6)


@pytest.mark.parametrize(("precision", "tolerance"), [("bfloat16", 3e-2), ("float16", 3e-3)])
def test_mixed_precision_keeps_weights_and_logits_in_float32(
    precision: str, tolerance: float, toy: Any, randomize: Callable[[Any], Any]
) -> None:
    fast = with_fast_layers(randomize(toy), randomness(), precision=precision)
    images = np.random.default_rng(0).normal(size=(5, 8, 8, 3)).astype(np.float32)
    actual, expected = fast(images), toy(images)
    assert fast.get_layer("concat").output.dtype == precision
    assert actual.dtype == "float32"
    assert {w.dtype for w in fast.weights} == {tf.float32}
    scale = np.abs(expected).max()  # the formats round by 2**-9 and 2**-12
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


def test_a_grouped_convolution_keeps_its_activation() -> None:
    image = keras.Input((4, 4, 6))
    model = keras.Model(image, keras.layers.Conv2D(4, 1, groups=2, activation="relu")(image))
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 6)).astype(np.float32)
    expected = model(x).numpy()
    assert expected.min() == 0
    np.testing.assert_allclose(with_fast_layers(model)(x), expected, rtol=1e-5, atol=1e-6)
