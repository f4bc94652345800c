"""A network as a function of pictures."""

from typing import Any

import numpy as np
import pytest
import tf_keras as keras

from keras_models import classifier
from keras_models.classifier import classifier_of
from keras_models.images.decode import Preprocessing

BGR = Preprocessing((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), channel_order="bgr")


@pytest.fixture
def network() -> Any:
    inputs = keras.Input((2, 3, 3))
    x = keras.layers.BatchNormalization(name="norm")(inputs)
    x = keras.layers.Dense(4)(keras.layers.Dropout(0.9)(keras.layers.Flatten()(x)))
    return keras.Model(inputs, x)


def test_logits_are_the_networks_for_any_number_of_pictures(
    network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "PIXELS", 5 * 2 * 3)
    ask = classifier_of(network, BGR)
    pictures = np.random.default_rng(0).integers(0, 256, (12, 2, 3, 3), np.uint8)
    blue_first = (pictures[..., ::-1] - np.array([1, 2, 3])) / np.array([4, 5, 6])
    expected = network(blue_first.astype(np.float32), training=False)
    for count in (1, 5, 12):
        found = ask(pictures[:count])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected[:count], rtol=1e-5, atol=1e-5)


def test_weights_are_those_of_the_call(network: Any) -> None:
    ask = classifier_of(network, BGR)
    pictures = np.full((1, 2, 3, 3), 200, np.uint8)
    before = ask(pictures)
    network.set_weights([3 * weight for weight in network.get_weights()])
    assert not np.allclose(ask(pictures), before)
    np.testing.assert_allclose(
        ask(pictures), network(BGR.to_input(pictures), training=False), rtol=1e-5
    )
