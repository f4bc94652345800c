"""Networks that someone trained for other classes, under whatever names, compute the same here."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_models import checkpoints
from shufflelite.errors import InputError
from tests.keras_models.keras_classifiers import (
    CLASSES,
    LIBRARIES,
    SHAPE,
    Layers,
    assert_same,
    base,
    imported,
    nested,
    pooled,
    randomized,
)

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")


def prepared(keras: Any, x: Any) -> Any:
    return keras.applications.mobilenet.preprocess_input(x)


def sequential(keras: Any) -> Any:
    layers = keras.layers
    return randomized(
        keras.Sequential(
            [
                keras.Input(SHAPE),
                layers.RandomFlip("horizontal"),
                layers.Rescaling(1 / 127.5, offset=-1),
                base(keras),
                layers.GlobalAveragePooling2D(),
                layers.Dropout(0.2),
                layers.Dense(CLASSES, name="my_own"),
            ]
        )
    )


def functional(keras: Any) -> Any:
    return nested(keras, before=prepared)


def inlined(keras: Any) -> Any:
    inputs = keras.Input(SHAPE)
    x = prepared(keras, keras.Sequential([keras.layers.RandomRotation(0.1)])(inputs))
    network = base(keras, input_tensor=x, input_shape=None, pooling="avg")
    return randomized(keras.Model(inputs, keras.layers.Dense(CLASSES)(network.output)))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("build", [sequential, functional, inlined])
def test_a_keras_classifier_computes_the_same(
    build: Callable[[Any], Any], library: str, tmp_path: Path
) -> None:
    model = build(LIBRARIES[library])
    for ending in ("keras", "h5", "weights.h5"):
        path = tmp_path / f"own.{ending}"
        (model.save_weights if ending == "weights.h5" else model.save)(path)
        weights, logits = imported(path)
        assert_same(logits, model)
        if ending != "weights.h5":
            assert weights.resolution == SHAPE[0]
            assert not weights.notes


@pytest.mark.parametrize("ending", ["weights.h5", "keras"])
def test_a_class_of_its_own_computes_the_same(ending: str, tmp_path: Path) -> None:
    keras = LIBRARIES["keras"]

    class Own(keras.Model):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.backbone = base(keras)
            self.pool = keras.layers.GlobalAveragePooling2D()
            self.head = keras.layers.Dense(CLASSES)

        def call(self, inputs: Any) -> Any:
            return self.head(self.pool(self.backbone(inputs / 127.5 - 1)))

    model = Own()
    model(np.zeros((1, *SHAPE), np.float32))
    randomized(model)
    path = tmp_path / f"own.{ending}"
    (model.save if ending == "keras" else model.save_weights)(path)
    weights, logits = imported(path)
    assert_same(logits, model)
    assert bool(weights.notes) == (ending == "keras")  # which says that it is of a class


def convolution(keras: Any, x: Any) -> Any:
    x = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    return keras.layers.Flatten()(keras.layers.Conv2D(CLASSES, 1)(x))


def convolution_before_pooling(keras: Any, x: Any) -> Any:
    return keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(CLASSES, 1)(x))


def without_bias(keras: Any, x: Any) -> Any:
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.layers.Dense(CLASSES, use_bias=False)(x)


@pytest.mark.parametrize("after", [convolution, convolution_before_pooling, without_bias])
def test_other_forms_of_a_classifier_compute_the_same(after: Layers, tmp_path: Path) -> None:
    model = nested(LIBRARIES["keras"], before=prepared, after=after)
    model.save(tmp_path / "own.keras")
    assert_same(imported(tmp_path / "own.keras")[1], model)


def test_scores_are_taken_for_logits(tmp_path: Path) -> None:
    keras = LIBRARIES["keras"]
    logits = nested(keras, before=prepared)
    scores = keras.Model(logits.input, keras.layers.Softmax()(logits.output))
    scores.save(tmp_path / "own.keras")
    assert_same(imported(tmp_path / "own.keras")[1], logits)


def test_a_score_becomes_two_logits(tmp_path: Path) -> None:
    def score(keras: Any, x: Any) -> Any:
        x = keras.layers.GlobalAveragePooling2D()(x)
        return keras.layers.Dense(1, activation="sigmoid")(x)

    model = nested(LIBRARIES["tf_keras"], before=prepared, after=score)
    model.save(tmp_path / "own.keras")
    weights, logits = imported(tmp_path / "own.keras", width=0.25, num_classes=2)
    assert weights.notes == (
        "its one output, the score of a class against another, becomes logits of two",
    )
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert_same(scores[:, 1:], model)


def dense(keras: Any, x: Any, **options: Any) -> Any:
    return keras.layers.Dense(CLASSES, **options)(x)


HEADS = {  # a head that none of our networks has: layers, what the message names
    "two dense layers": (
        lambda keras, x: pooled(keras, keras.layers.Dense(16, "relu", name="extra")(x)),
        r"layers that it does not have \(extra \(256, 16\), dense\S* \(16, 5\)\): expected one",
    ),
    "batch norm": (
        lambda keras, x: pooled(keras, keras.layers.BatchNormalization(name="norm")(x)),
        r"layers that it does not have \(norm, dense\S* \(256, 5\)\): expected one behind",
    ),
    "maximum": (
        lambda keras, x: dense(keras, keras.layers.GlobalMaxPooling2D()(x)),
        "and then Dense for the classes, both once, found GlobalMaxPooling2D, Dense at the end",
    ),
    "flattened": (
        lambda keras, x: dense(keras, keras.layers.Flatten()(x)),
        "found ReLU, Flatten, Dense at the end of the model, which none of our networks has",
    ),
    "both poolings": (
        lambda keras, x: dense(
            keras,
            keras.layers.Add()(
                [keras.layers.GlobalMaxPooling2D()(x), keras.layers.GlobalAveragePooling2D()(x)]
            ),
        ),
        "found Add, Dense at the end of the model",
    ),
    "activation": (
        lambda keras, x: dense(keras, keras.layers.GlobalAveragePooling2D()(x), activation="relu"),
        "found Dense at the end of the model",
    ),
    "activation before": (
        lambda keras, x: dense(
            keras, keras.layers.Activation("tanh")(keras.layers.GlobalAveragePooling2D()(x))
        ),
        "found Activation, Dense at the end of the model",
    ),
}


@pytest.mark.parametrize("head", HEADS)
def test_a_head_that_none_of_our_networks_has_is_named(head: str, tmp_path: Path) -> None:
    after, message = HEADS[head]
    path = tmp_path / "own.keras"
    nested(LIBRARIES["keras"], after=after).save(path)
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: .*{message}") as caught:
        checkpoints.read_weights(path)
    assert "\n" not in str(caught.value)


def test_maximum_pooling_is_seen_in_weights_alone(tmp_path: Path) -> None:
    for library, ending in (("keras", "weights.h5"), ("tf_keras", "h5")):
        path = tmp_path / f"{library}.{ending}"
        nested(LIBRARIES[library], after=HEADS["maximum"][0]).save_weights(path)
        with pytest.raises(InputError, match="its global_max_pooling is not the average pooling"):
            checkpoints.read_weights(path)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_mobilenet_v3_of_keras_has_no_layer_before_the_classifier(
    library: str, tmp_path: Path
) -> None:
    def network(keras: Any) -> Any:
        return keras.applications.MobileNetV3Small(
            SHAPE, include_top=False, weights=None, minimalistic=True
        )

    model = nested(LIBRARIES[library], network=network)
    model.save(tmp_path / "own.keras")
    weights, logits = imported(tmp_path / "own.keras", "mobilenet_v3_small")
    assert weights.options["fc1"] is False
    assert_same(logits, model)
