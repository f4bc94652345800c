"""What weights tell of themselves: the accuracy that was measured with them."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert import network
from convert.settings import Model
from keras_models import registry
from keras_models.accuracy import Accuracy
from keras_models.checkpoints import files, native
from keras_models.checkpoints.load import model_arrays
from keras_models.images.decode import Preprocessing
from shufflelite.errors import InputError
from tests.keras_models import keras_classifiers

OPTIONS = {"width": 0.25, "stem": "cifar"}
TOLD = Accuracy(200, 1.5, 61.5, 83.0, (54.6, 68.0))


@pytest.fixture(scope="module")
def save(tmp_path_factory: pytest.TempPathFactory) -> Callable[[object], Path]:
    """Writes weights that say where they come from."""
    model = registry.create("mobilenet_v1", input_shape=(32, 32, 3), num_classes=3, **OPTIONS)
    arrays = model_arrays(model)
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"

    def write(origin: Any) -> Path:
        seen = Preprocessing()
        native.save(
            path, arrays, native.Trained("mobilenet_v1", OPTIONS, 32, 3, None, seen, origin)
        )
        return path

    return write


def accuracy(path: Path, *, side: int = 32) -> Accuracy | None:
    asked = Model("mobilenet_v1", OPTIONS, resolution=side, num_classes=3, weights=str(path))
    return network.create(asked, seed=0, warn=lambda text: None).weights.accuracy


def test_weights_that_we_trained_tell_their_accuracy_at_their_own_size(
    save: Callable[[object], Path],
) -> None:
    path = save({"accuracy": asdict(TOLD)})
    assert accuracy(path) == TOLD
    assert accuracy(path, side=64) is None


@pytest.mark.parametrize("origin", [{}, {"accuracy": None}, {"accuracy": {"top1": 3}}])
def test_weights_that_do_not_tell_it_are_weights_all_the_same(
    origin: object, save: Callable[[object], Path]
) -> None:
    assert accuracy(save(origin)) is None


def loaded(path: Path, **options: Any) -> tuple[network.LoadedNetwork, list[str]]:
    warned: list[str] = []
    model = Model("mobilenet_v1", OPTIONS, weights=str(path), **options)
    return network.create(model, seed=0, warn=warned.append), warned


def test_a_backbone_is_refused_as_what_it_is(save: Callable[[object], Path]) -> None:
    whole = files.read(save({}))
    path = save({}).with_name("backbone.npz")
    np.savez(path, **{n: a for n, a in whole.items() if not n.startswith("classifier/")})
    with pytest.raises(InputError, match=r"backbone\.npz: it is a backbone without classifier: tr"):
        loaded(path, resolution=32, num_classes=3)


def test_a_classifier_of_other_classes_says_how_many(tmp_path: Path) -> None:
    path = tmp_path / "own.keras"
    model = Model("mobilenet_v1", {"width": 0.25}, 64, num_classes=7, weights=str(path))
    keras_classifiers.nested(keras_classifiers.LIBRARIES["keras"]).save(path)
    with pytest.raises(InputError, match="expected weights for 7 classes, got 5: pass --num_clas"):
        network.create(model, seed=0, warn=pytest.fail)


def test_a_conversion_is_told_what_a_file_leaves_open(tmp_path: Path) -> None:
    path = tmp_path / "own.weights.h5"
    keras_classifiers.nested(
        keras_classifiers.LIBRARIES["keras"],
        before=lambda keras, x: keras.layers.Rescaling(1 / 255)(x),
    ).save_weights(path)
    warned: list[str] = []
    model = Model("mobilenet_v1", {"width": 0.25}, 64, num_classes=5, weights=str(path))
    created = network.create(model, seed=0, warn=warned.append)
    assert created.preprocessing == Preprocessing()
    (warning,) = warned
    assert warning.startswith(f"{path}: the effect of its layer rescaling")
