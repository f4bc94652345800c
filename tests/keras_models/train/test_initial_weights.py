"""What a training begins with: other weights, what they need, and a classifier of its own."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras as keras

from keras_models import registry
from keras_models.checkpoints import bundled, native
from keras_models.checkpoints.head import CLASSIFIER
from keras_models.checkpoints.load import model_arrays, save
from keras_models.images.decode import Preprocessing
from keras_models.train import initial_weights
from keras_models.train.run import run
from keras_models.train.settings import Augment, Data, NetworkSettings, Training, TrainingSettings
from shufflelite.errors import InputError
from shufflelite.progress import Progress
from tests.keras_models.train.conftest import build_toy

NAMES = tuple("abcdefghij")
BGR = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bgr")
GOLDEN = Path(__file__).parents[1] / "golden"
pytestmark = pytest.mark.usefixtures("registered_toy")


@pytest.fixture
def weights(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Weights of a toy of twenty channels and ten classes, and what they are."""
    keras.utils.set_random_seed(1)
    arrays = model_arrays(build_toy(channels=24))
    path = tmp_path / "before.safetensors"
    native.save(path, arrays, native.Trained("toy", {"channels": 24}, 8, 10, NAMES, BGR, {}))
    return path, arrays


def settings_for(path: Path | str, **options: Any) -> TrainingSettings:
    return TrainingSettings(
        NetworkSettings("toy", options, weights=str(path)), Data("synthetic:40"), "out"
    )


@pytest.mark.parametrize(
    ("names", "classes", "reason"),
    [
        (NAMES, 10, ""),
        (None, 10, ""),
        (NAMES[:3], 3, "it has 10 classes, the pictures have 3"),
        (NAMES[::-1], 10, "its classes are not those of the pictures"),
    ],
)
def test_a_classifier_for_other_classes_starts_anew(
    names: tuple[str, ...] | None,
    classes: int,
    reason: str,
    weights: tuple[Path, dict[str, np.ndarray]],
) -> None:
    path, before = weights
    _, initial = initial_weights.read(settings_for(path), pytest.fail)
    model = build_toy(channels=24, num_classes=classes)
    own = model_arrays(model)
    warned: list[str] = []
    initial.load(model, names, warned.append)
    assert warned == (
        [f"{path}: {reason}: the classifier starts from random weights"] if reason else []
    )
    for name, array in model_arrays(model).items():
        kept = not (reason and name.startswith("classifier/"))
        np.testing.assert_array_equal(array, (before if kept else own)[name], err_msg=name)


def test_weights_bring_what_they_need_and_the_settings_may_say_the_same(
    weights: tuple[Path, dict[str, np.ndarray]],
) -> None:
    path, _ = weights
    complete, _ = initial_weights.read(settings_for(path, drop=0.2), pytest.fail)
    assert complete.network.options == {"drop": 0.2, "channels": 24}
    assert complete.preprocessing == BGR
    same, _ = initial_weights.read(complete, pytest.fail)
    assert same == complete
    warned: list[str] = []
    other = replace(settings_for(path), preprocessing=Preprocessing())
    assert initial_weights.read(other, warned.append)[0].preprocessing == Preprocessing()
    assert re.match(r".*: trained with .*'bgr'.*, but the settings have .*'rgb'", *warned)


def test_weights_of_other_libraries_bring_it_too() -> None:
    path = GOLDEN / "narrow.pth.tar"
    network = NetworkSettings("shufflenet_v1", {"width": 0.25, "groups": 3}, weights=str(path))
    complete, initial = initial_weights.read(
        TrainingSettings(network, Data("synthetic:40"), "out"), pytest.fail
    )
    assert initial.weights is not None
    assert initial.weights.options.items() <= complete.network.options.items()
    assert complete.network.options["variant"] == "megvii"
    assert complete.preprocessing == BGR


def test_a_backbone_of_keras_gets_a_classifier(tmp_path: Path) -> None:
    path = tmp_path / "backbone.h5"
    keras.applications.MobileNetV3Small(
        (32, 32, 3), include_top=False, weights=None, minimalistic=True
    ).save_weights(path)
    network = NetworkSettings("mobilenet_v3_small", weights=str(path), resolution=32)
    complete, initial = initial_weights.read(
        TrainingSettings(network, Data("synthetic:40"), "out"), pytest.fail
    )
    assert complete.network.options["fc1"] is False
    model = registry.create(
        network.name, input_shape=(32, 32, 3), num_classes=10, **complete.network.options
    )
    warned: list[str] = []
    initial.load(model, NAMES, warned.append)
    assert warned == [
        f"{path}: it is a backbone without classifier: the classifier starts from random weights"
    ]


def test_bundled_weights_are_found_by_name() -> None:
    ours = bundled.every()["mobilenet_v1"]
    network = NetworkSettings("mobilenet_v1", weights="bundled", resolution=32)
    complete, initial = initial_weights.read(
        TrainingSettings(network, Data("synthetic:40"), "out"), pytest.fail
    )
    assert complete.network.options == ours.trained.options
    model = registry.create(
        "mobilenet_v1", input_shape=(32, 32, 3), num_classes=10, **complete.network.options
    )
    initial.load(model, ours.trained.class_names, pytest.fail)


@pytest.mark.parametrize(
    ("options", "name", "message"),
    [
        ({"channels": 12}, "toy", "need channels=24, got 12: leave it out"),
        ({}, "mobilenet_v1", "expected 'network.name' to be toy, got mobilenet_v1"),
    ],
)
def test_what_contradicts_the_weights_is_refused(
    options: dict[str, int],
    name: str,
    message: str,
    weights: tuple[Path, dict[str, np.ndarray]],
) -> None:
    settings = settings_for(weights[0], **options)
    with pytest.raises(InputError, match=message):
        initial_weights.read(
            replace(settings, network=replace(settings.network, name=name)), pytest.fail
        )


def test_weights_that_are_not_there_are_refused_before_pictures_are_read(tmp_path: Path) -> None:
    message = "Expected 'network.weights' to be bundled, random, imagenet or a file, got 'no', "
    with pytest.raises(InputError, match=message):
        run(replace(settings_for("no"), data=Data("nowhere"), out=str(tmp_path)), Progress("train"))
    assert not list(tmp_path.iterdir())


def test_weights_that_are_no_numbers_are_refused(
    weights: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    arrays = {**weights[1], "conv1/kernel": np.full_like(weights[1]["conv1/kernel"], np.nan)}
    np.savez(tmp_path / "nan.npz", **arrays)
    with pytest.raises(InputError, match=r"nan\.npz: expected finite numbers, got others in conv1"):
        initial_weights.read(settings_for(tmp_path / "nan.npz", channels=24), pytest.fail)


def test_weights_that_the_training_would_overwrite_are_refused(
    weights: tuple[Path, dict[str, np.ndarray]],
) -> None:
    path, _ = weights
    with pytest.raises(InputError, match="to be outside of 'out', which this training writes"):
        initial_weights.read(replace(settings_for(path), out=str(path.parent)), pytest.fail)


def test_weights_of_another_size_are_taken_with_a_warning(
    weights: tuple[Path, dict[str, np.ndarray]],
) -> None:
    path, _ = weights
    _, initial = initial_weights.read(settings_for(path), pytest.fail)
    warned: list[str] = []
    initial.load(build_toy(channels=24, input_shape=(16, 16, 3)), NAMES, warned.append)
    assert warned == [f"{path}: trained at 8, not at 16"]


def test_bundled_weights_that_there_are_not_are_told_with_those_that_there_are() -> None:
    settings = TrainingSettings(
        NetworkSettings("mobilenet_v2", weights="bundled"), Data("synthetic:40"), "out"
    )
    with pytest.raises(
        InputError,
        match=r"bundled weights \(.*mobilenet_v1.*\), got mobilenet_v2: set 'network.weights'",
    ):
        initial_weights.read(settings, pytest.fail)


def test_only_the_classifier_may_be_of_another_shape(tmp_path: Path) -> None:
    path = tmp_path / "plain.npz"
    save(build_toy(channels=24), path)
    _, initial = initial_weights.read(settings_for(path), pytest.fail)
    with pytest.raises(InputError, match="of another shape"):
        initial.load(build_toy(num_classes=3), NAMES[:3], lambda line: None)


@pytest.mark.parametrize("builder", sorted({entry.builder for entry in registry.MODELS.values()}))
def test_every_network_ends_in_its_classifier(builder: str) -> None:
    name = min(name for name, entry in registry.MODELS.items() if entry.builder == builder)
    model = registry.create(name, input_shape=(64, 64, 3), num_classes=7)
    (last,) = {path.rpartition("/")[0] for path in list(model_arrays(model))[-1:]}
    assert f"{last}/" == CLASSIFIER
    assert model.layers[-1].output.shape[-1] == 7


def test_a_training_begins_with_weights_of_other_classes_and_goes_on(
    weights: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    whole = replace(
        settings_for(weights[0]),
        out=str(tmp_path / "out"),
        augment=Augment(pad=1),
        training=Training(epochs=2, batch=10, learning_rate=1e-30, weight_decay=0.0),
    )
    result = run(whole, Progress("train"))
    described = native.describe(result.weights)
    assert described is not None
    assert described.preprocessing == BGR
    assert described.options == {"channels": 24}
    assert described.class_names == tuple(f"stripes{i}" for i in range(10))
    arrays = initial_weights.read(settings_for(result.weights), pytest.fail)[1].weights.arrays  # type: ignore[union-attr]
    for name, array in weights[1].items():
        if "moving_" not in name:
            kept = np.allclose(arrays[name], array)
            assert kept != (name == "classifier/kernel"), name
    before = result.weights.read_bytes()
    assert run(whole, Progress("train")).weights.read_bytes() == before
