"""What a Keras file does with pixels becomes the preprocessing of its weights, or is told."""

import contextlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from keras_models import checkpoints
from keras_models.checkpoints import Weights, files, keras_file
from shufflelite.errors import InputError
from tests.keras_models.keras_classifiers import (
    LIBRARIES,
    LIBRARY,
    PIXELS,
    RESOLUTION,
    SHAPE,
    Layers,
    assert_same,
    base,
    imported,
    nested,
)

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")


def rescaled(keras: Any, x: Any) -> Any:
    return keras.layers.Rescaling(1 / 255)(x)


def rescaled_by_channel(keras: Any, x: Any) -> Any:
    scale = [1 / std for std in STD]
    offset = [-mean / std for mean, std in zip(MEAN, STD, strict=True)]
    return keras.layers.Rescaling(scale, offset)(x)


def normalized(keras: Any, x: Any) -> Any:
    return keras.layers.Normalization(mean=MEAN, variance=np.square(STD).tolist())(x)


def adapted(keras: Any, x: Any) -> Any:
    layer = keras.layers.Normalization()
    layer.adapt(PIXELS.astype(np.float32))
    return layer(x)


def operations(keras: Any, x: Any) -> Any:
    return (x * (1 / 64) + (-2.0)) / 1.5 - 0.25


def several(keras: Any, x: Any) -> Any:
    x = keras.layers.Resizing(RESOLUTION, RESOLUTION)(x)
    x = keras.layers.Rescaling(1 / 255)(keras.layers.RandomFlip("horizontal")(x))
    mean, std = (np.divide(values, 255) for values in (MEAN, STD))
    return keras.layers.Normalization(mean=mean.tolist(), variance=np.square(std).tolist())(x)


def range_of(weights: Weights) -> tuple[float, float]:
    assert weights.preprocessing is not None
    return weights.preprocessing.input_range


@pytest.mark.parametrize("library", LIBRARY)
@pytest.mark.parametrize(
    "before", [rescaled, rescaled_by_channel, normalized, adapted, operations, several]
)
def test_preprocessing_of_the_file_is_that_of_its_weights(
    before: Layers, library: str, tmp_path: Path
) -> None:
    model = nested(LIBRARIES[library], before=before)
    for ending in ("keras", "h5"):
        model.save(tmp_path / f"own.{ending}")
        weights, logits = imported(tmp_path / f"own.{ending}")
        assert_same(logits, model)
        assert weights.resolution == RESOLUTION
        assert weights.preprocessing.crop_fraction == 0.875  # not in the file
        if before is rescaled:
            assert range_of(weights) == (0, 1)
        if before in (several, normalized, rescaled_by_channel):
            assert weights.preprocessing.mean == pytest.approx(MEAN, abs=1e-6)
            assert weights.preprocessing.std == pytest.approx(STD, abs=1e-6)


def mobilenet_v3(keras: Any, **options: Any) -> Any:
    return keras.applications.MobileNetV3Small(
        SHAPE, include_top=False, weights=None, minimalistic=True, **options
    )


def efficientnet_v2(keras: Any, **options: Any) -> Any:
    return keras.applications.EfficientNetV2B0(False, None, input_shape=SHAPE, **options)


@pytest.mark.parametrize("library", LIBRARY)
@pytest.mark.parametrize(
    ("network", "name"),
    [(mobilenet_v3, "mobilenet_v3_small"), (efficientnet_v2, "efficientnet_v2_b0")],
)
def test_preprocessing_within_keras_own_networks_is_seen(
    network: Callable[..., Any], name: str, library: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.keras"
    nested(LIBRARIES[library], network=network).save(path)
    inside = checkpoints.read_weights(path).preprocessing
    assert inside is not None
    expected = (127.5,) * 3 if name == "mobilenet_v3_small" else MEAN
    assert inside.mean == pytest.approx(expected, abs=1e-4)
    assert inside.interpolation == ("bilinear" if name == "mobilenet_v3_small" else "bicubic")


@pytest.mark.parametrize("inside", [True, False])
def test_preprocessing_before_and_within_the_network_adds_up(inside: bool, tmp_path: Path) -> None:
    def network(keras: Any) -> Any:
        return mobilenet_v3(keras, include_preprocessing=inside)

    def before(keras: Any, x: Any) -> Any:
        return keras.layers.Rescaling(1 / 2, offset=3)(x)

    model = nested(LIBRARIES["keras"], before=before, network=network)
    model.save(tmp_path / "own.keras")
    weights, logits = imported(tmp_path / "own.keras", "mobilenet_v3_small")
    assert_same(logits, model)
    assert range_of(weights) == pytest.approx(
        [edge / 127.5 - 1 if inside else edge for edge in (3, 130.5)]
    )


def inverted(keras: Any, x: Any) -> Any:
    return 1.0 - x / 255


def black(keras: Any, x: Any) -> Any:
    return keras.layers.Rescaling(0.0)(x)


def normalized_by_row(keras: Any, x: Any) -> Any:
    rows = np.arange(1.0, RESOLUTION + 1).tolist()
    return keras.layers.Normalization(axis=1, mean=rows, variance=rows)(x)


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (inverted, r"its layers true_divide\w*, subtract\w* prepare pixels with .* a positive std"),
        (black, r"its layers rescaling\w* prepare pixels with .*: expected finite numbers"),
        (normalized_by_row, r"its layer normalization\w* prepares pixels with 64 numbers: expect"),
    ],
)
def test_what_no_mean_and_std_express_is_refused(
    before: Layers, message: str, tmp_path: Path
) -> None:
    nested(LIBRARIES["keras"], before=before).save(tmp_path / "own.keras")
    with pytest.raises(InputError, match=r"own\.keras: " + message) as caught:
        checkpoints.read_weights(tmp_path / "own.keras")
    assert "\n" not in str(caught.value)


def function(keras: Any, x: Any) -> Any:
    return keras.layers.Lambda(lambda pixels: pixels / 255, name="mine", output_shape=SHAPE)(x)


def rectified(keras: Any, x: Any) -> Any:
    return keras.layers.ReLU(name="mine")(x)


@pytest.mark.parametrize("library", LIBRARY)
@pytest.mark.parametrize(("before", "kind"), [(function, "Lambda"), (rectified, "ReLU")])
def test_what_a_file_does_not_say_is_told(
    before: Layers, kind: str, library: str, tmp_path: Path
) -> None:
    if before is function and library == "tf_keras":
        before = lambda keras, x: keras.layers.Lambda(lambda p: p / 255, name="mine")(x)  # noqa: E731
    path = tmp_path / ("own.h5" if library == "tf_keras" else "own.keras")
    nested(LIBRARIES[library], before=before).save(path)
    weights = checkpoints.read_weights(path)
    (note,) = weights.notes
    assert note == (
        f"the effect of its layer mine ({kind}) on pixels cannot be read from the file: they "
        "become (pixel - mean) / std with mean (127.5, 127.5, 127.5) and std (127.5, 127.5, "
        "127.5); check the result with pictures of known classes"
    )


@pytest.mark.parametrize(
    ("library", "ending", "before", "layer"),
    [
        ("keras", "weights.h5", rescaled, "rescaling"),
        ("keras", "weights.h5", adapted, "normalization"),
        ("tf_keras", "weights.h5", rescaled, "rescaling"),
        ("tf_keras", "h5", operations, "tf.math.multiply"),
        ("tf_keras", "h5", adapted, "normalization"),
    ],
)
def test_weights_alone_do_not_say_what_their_layers_do(
    library: str, ending: str, before: Layers, layer: str, tmp_path: Path
) -> None:
    path = tmp_path / f"own.{ending}"
    nested(LIBRARIES[library], before=before).save_weights(path)
    (note,) = checkpoints.read_weights(path).notes
    assert note.startswith(f"the effect of its layer {layer}")


def test_nameless_weights_that_are_not_recognized_do_not_hide_their_layers(tmp_path: Path) -> None:
    path = tmp_path / "own.weights.h5"
    nested(LIBRARIES["tf_keras"], network=efficientnet_v2).save_weights(path)
    weights = checkpoints.read_weights(path)
    assert weights.source is None
    assert weights.notes[0].startswith("the effect of its layer normalization on pixels")


def test_a_description_that_cannot_be_followed_is_told(tmp_path: Path) -> None:
    keras, path = LIBRARIES["tf_keras"], tmp_path / "own.h5"
    nested(keras, before=rescaled).save(path)
    with h5py.File(path, "a") as file:
        text = file.attrs["model_config"]
        file.attrs["model_config"] = text.replace('"inbound_nodes"', '"calls"')
    (note,) = checkpoints.read_weights(path).notes
    assert note.startswith("the effect of its layers on pixels cannot be read from the file")


def test_damaged_descriptions_never_raise_anything_else(tmp_path: Path) -> None:
    path = tmp_path / "own.keras"
    nested(LIBRARIES["keras"], before=several).save(path)
    arrays = files.read(path)
    weights = Weights({**arrays, "classifier/kernel": np.zeros((256, 5))}, source="x")
    with zipfile.ZipFile(path) as archive:
        text, stored = archive.read("config.json"), archive.read("model.weights.h5")
    rng = np.random.default_rng(0)
    values = (None, -1, [], {}, "x", ["a", 0, 0], [[1], "b"], 1e400, {"class_name": "Lambda"})
    for _ in range(300):
        model = json.loads(text)
        outer = model["config"]["layers"]
        (inner,) = (layer["config"] for layer in outer if "layers" in layer["config"])
        layers = [*outer, *inner["layers"][:9]]
        for _ in range(rng.integers(1, 4)):
            damage(layers[rng.integers(len(layers))], values[rng.integers(len(values))], rng)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", json.dumps(model))
            archive.writestr("model.weights.h5", stored)
        with contextlib.suppress(InputError):
            keras_file.complete(weights, keras_file.read(path, arrays))


def damage(described: Any, value: Any, rng: np.random.Generator) -> None:
    """Replaces something within a description by another value."""
    keys = list(described) if isinstance(described, dict) else list(range(len(described)))
    if not keys:
        return
    key = keys[rng.integers(len(keys))]
    if isinstance(described[key], (dict, list)) and rng.random() < 0.8:
        damage(described[key], value, rng)
    else:
        described[key] = value


def test_weights_alone_of_keras_own_networks_leave_nothing_open(tmp_path: Path) -> None:
    for network in (base, mobilenet_v3, efficientnet_v2):
        for library, ending in (("keras", "weights.h5"), ("tf_keras", "h5")):
            path = tmp_path / f"own.{ending}"
            network(LIBRARIES[library]).save_weights(path)
            assert not checkpoints.read_weights(path).notes
