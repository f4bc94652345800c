"""Whose weights a network gets, and what of it is theirs."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert.network import create
from convert.resolve_model import complete
from convert.settings import Model
from keras_models import registry
from keras_models.checkpoints import bundled, native
from keras_models.checkpoints.load import model_arrays
from keras_models.checkpoints.random_weights import randomize
from keras_models.images.decode import Preprocessing
from shufflelite.errors import InputError

OPTIONS = {"width": 0.25, "stem": "cifar"}
OURS = native.Trained(
    "mobilenet_v1", OPTIONS, 32, 2, ("cat", "dog"), Preprocessing(crop_fraction=1.0), {}
)
NET = "mobilenet_v1"
WHOLE = Model(NET, OPTIONS, 32, num_classes=2, weights="bundled")


@pytest.fixture(scope="module")
def network() -> Any:
    model = registry.create(NET, input_shape=(32, 32, 3), num_classes=2, **OPTIONS)
    randomize(model, seed=0)
    return model


@pytest.fixture
def file(network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one file of bundled weights."""
    arrays = {
        name: array.astype(np.float16) if array.ndim > 1 else array
        for name, array in model_arrays(network).items()
    }
    path = tmp_path / "mobilenet_v1_cifar10.safetensors"
    native.save(path, arrays, OURS)
    monkeypatch.setattr(bundled, "FOLDER", tmp_path)
    return path


ASKED = {  # what is said: (the settings, the network that comes of it)
    "the model alone": (Model(NET), WHOLE),
    "all of it": (Model(NET, OPTIONS, 32, num_classes=2), WHOLE),
    "bundled": (Model(NET, weights="bundled"), WHOLE),
    "bundled, and some of it": (Model(NET, {"width": 0.25}, weights="bundled"), WHOLE),
    "bundled, larger": (
        Model(NET, resolution=64, weights="bundled"),
        dataclasses.replace(WHOLE, resolution=64),
    ),
    "bundled, twice as large": (
        Model(NET, resolution_multiplier=2.0, weights="bundled"),
        dataclasses.replace(WHOLE, resolution_multiplier=2.0),
    ),
    "with class names": (Model(NET, labels="x"), dataclasses.replace(WHOLE, labels="x")),
    "its width": (Model(NET, {"width": 0.25}), Model(NET, {"width": 0.25}, weights="random")),
    "its options": (Model(NET, OPTIONS), Model(NET, OPTIONS, weights="random")),
    "another width": (Model(NET, {"width": 1.0}), Model(NET, {"width": 1.0}, weights="random")),
    "its resolution": (Model(NET, resolution=32), Model(NET, resolution=32, weights="random")),
    "its classes": (Model(NET, num_classes=2), Model(NET, num_classes=2, weights="random")),
    "another size": (
        Model(NET, resolution_multiplier=0.5),
        Model(NET, resolution_multiplier=0.5, weights="random"),
    ),
    "all of it, and another size": (
        Model(NET, OPTIONS, 32, 0.5, num_classes=2),
        Model(NET, OPTIONS, 32, 0.5, num_classes=2, weights="random"),
    ),
    "random": (Model(NET, weights="random"), Model(NET, weights="random")),
    "imagenet": (Model(NET, weights="imagenet"), Model(NET, weights="imagenet")),
    "a model without": (Model("alexnet"), Model("alexnet", weights="random")),
}


@pytest.mark.parametrize("said", ASKED)
def test_a_network_is_the_bundled_one_where_nothing_else_is_said(said: str, file: Path) -> None:
    asked, expected = ASKED[said]
    found = complete(asked)
    assert found == dataclasses.replace(expected, num_classes=expected.classes)
    assert complete(found) == found


def test_without_bundled_weights_all_are_random(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundled, "FOLDER", tmp_path)
    for asked, _ in ASKED.values():
        if asked.weights is None:
            assert complete(asked).weights == "random"
    with pytest.raises(InputError, match=r"\(here none has\), got mobilenet_v1: set --weights to"):
        complete(Model(NET, weights="bundled"))


def test_bundled_weights_of_a_model_that_has_none_are_refused(file: Path) -> None:
    with pytest.raises(
        InputError, match=r"weights \(mobilenet_v1\), got alexnet: set --weights to"
    ):
        complete(Model("alexnet", weights="bundled"))
    with pytest.raises(InputError, match="Did you mean 'mobilenet_v1'"):
        complete(Model("mobilnet_v1"))


def test_a_file_that_describes_itself_says_the_rest(file: Path, tmp_path: Path) -> None:
    path = str(file)
    assert complete(Model(NET, weights=path)) == dataclasses.replace(WHOLE, weights=path)
    given = Model(NET, {"width": 1.0}, 64, num_classes=5, weights=path)
    assert complete(given) == dataclasses.replace(given, options={"width": 1.0, "stem": "cifar"})
    (tmp_path / "damaged.safetensors").write_bytes(file.read_bytes()[:99])
    for other in (
        Model("mobilenet_v2", weights=path),
        Model(NET, weights=path, source="keras"),
        Model(NET, weights=str(tmp_path / "damaged.safetensors")),
        Model(NET, weights=str(tmp_path / "no.safetensors")),
    ):
        assert complete(other) == dataclasses.replace(other, num_classes=1000)


@pytest.mark.parametrize("weights", ["bundled", "imagenet"])
def test_aligned_widths_have_no_weights_by_name(weights: str) -> None:
    aligned = complete(Model("shufflenet_v2", {"align": 16}, weights=weights))
    message = rf"shufflenet_v2 with align=16 has no {weights} weights: expected --weights to be"
    with pytest.raises(InputError, match=f"^{message} random or a file, or align=1.$"):
        create(aligned, seed=0, warn=lambda line: None)


def test_aligned_weights_that_are_bundled_are_of_that_width_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, options = "shufflenet_v2", {"width": 0.5, "stem": "cifar", "align": 16}
    aligned = registry.create(name, input_shape=(32, 32, 3), num_classes=2, **options)
    trained = dataclasses.replace(OURS, model=name, options=options)
    native.save(tmp_path / "shufflenet_v2.safetensors", model_arrays(aligned), trained)
    monkeypatch.setattr(bundled, "FOLDER", tmp_path)
    made = create(complete(Model(name)), seed=0, warn=lambda line: None)
    assert made.options == options
    with pytest.raises(InputError, match=r"with align=1 has no bundled weights: .* or align=16"):
        create(complete(Model(name, {"align": 1}, weights="bundled")), seed=0, warn=print)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Model(NET, {"width": 1.0}, weights="bundled"), "need width=0.25, got 1.0: leave it out"),
        (Model(NET, num_classes=5, weights="bundled"), "5 classes, got 2: pass --num_classes 2"),
        (Model("mobilenet_v2", weights="@"), "expected --model to be mobilenet_v1, got mobilenet"),
    ],
)
def test_what_contradicts_the_weights_is_refused(given: Model, message: str, file: Path) -> None:
    if given.weights == "@":
        given = dataclasses.replace(given, weights=str(file))
    with pytest.raises(InputError, match=message):
        create(complete(given), seed=0, warn=lambda line: None)


def test_the_network_is_made_as_its_weights_say(network: Any, file: Path) -> None:
    warned: list[str] = []
    made = create(complete(Model(NET)), seed=0, warn=warned.append)
    assert warned == []
    assert (made.weights.origin, made.weights.source) == ("bundled", "shufflelite mobilenet_v1")
    assert made.class_names == OURS.class_names
    assert made.preprocessing == OURS.preprocessing
    expected = model_arrays(network)
    for name, array in model_arrays(made.model).items():
        rounded = expected[name].astype(np.float16) if array.ndim > 1 else expected[name]
        np.testing.assert_array_equal(array, rounded)


def test_class_names_of_the_user_go_before_those_of_the_weights(file: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("Katze\nHund\n", encoding="utf-8")
    model = Model(NET, labels=str(tmp_path / "names.txt"))
    made = create(complete(model), seed=0, warn=lambda line: None)
    assert made.class_names == ("Katze", "Hund")


def test_another_size_and_random_weights_are_told(file: Path) -> None:
    warned: list[str] = []
    create(complete(Model(NET, resolution=64, weights="bundled")), seed=0, warn=warned.append)
    create(complete(Model(NET, OPTIONS, 32)), seed=0, warn=warned.append)
    assert warned == [
        "the weights were trained at 32, and this is at 64",
        "random weights: the file is good for measuring latency only (bundled are those of "
        "mobilenet_v1 width=0.25 stem=cifar, 32 x 32, 2 classes)",
    ]
