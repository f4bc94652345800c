"""What a network is calibrated and verified on."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convert import calibration_data
from convert.calibration_data import Inputs
from keras_models.images.decode import Preprocessing
from shufflelite.errors import InputError

CROPLESS = Preprocessing((10.0, 20.0, 30.0), (2.0, 4.0, 5.0), crop_fraction=1.0)


def read(source: Path, **options: Any) -> Inputs:
    options = {
        "limit": None,
        "seed": 0,
        "classes": 10,
        "names": None,
        "warn": pytest.fail,
    } | options
    return calibration_data.from_pictures(
        str(source), resolution=8, preprocessing=CROPLESS, **options
    )


def write(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_batches_are_all_inputs_in_order(pictures: Callable[..., np.ndarray], size: int) -> None:
    pixels = pictures(7, 8, seed=0)
    found = list(Inputs("test", pixels, CROPLESS).batches(size))
    assert [len(batch) for batch in found[:-1]] == [size] * (len(found) - 1)
    expected = (pixels - np.array([10.0, 20.0, 30.0])) / [2.0, 4.0, 5.0]
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-6)
    assert found[0].dtype == np.float32


def test_made_inputs_go_in_as_they_are() -> None:
    values = np.random.default_rng(0).normal(size=(5, 8, 8, 3)).astype(np.float32)
    found = Inputs("test", values)
    np.testing.assert_array_equal(np.concatenate(list(found.batches(2))), values)
    assert found.sha256 == hashlib.sha256(b"(5, 8, 8, 3)" + values.tobytes()).hexdigest()
    assert len(found) == 5


def test_pictures_of_a_folder_are_read_without_labels(
    tmp_path: Path, pictures: Callable[..., np.ndarray]
) -> None:
    pixels = pictures(5, 8, seed=0)
    for i, picture in enumerate(pixels):
        write(picture, tmp_path / f"{i}.png")
    found = read(tmp_path)
    np.testing.assert_array_equal(found.values, pixels)
    assert found.labels is None
    assert found.origin == str(tmp_path)
    subset = read(tmp_path, limit=2, seed=3)
    assert len(subset) == 2
    assert all(any(np.array_equal(value, picture) for picture in pixels) for value in subset.values)


def test_folders_of_classes_are_labels(tmp_path: Path, pictures: Callable[..., np.ndarray]) -> None:
    pixels = pictures(4, 8, seed=0)
    for name, picture in zip(("cat/1", "cat/2", "ant/1", "dog/1"), pixels, strict=True):
        write(picture, tmp_path / f"{name}.png")
    found = read(tmp_path, classes=3)
    assert found.labels is not None
    assert found.class_names == ("ant", "cat", "dog")
    np.testing.assert_array_equal(found.labels, [0, 1, 1, 2])
    np.testing.assert_array_equal(found.values, pixels[[2, 0, 1, 3]])


@pytest.mark.parametrize("classes", [2, 4])
def test_class_folders_of_another_number_than_the_classes_are_no_labels(
    tmp_path: Path, pictures: Callable[..., np.ndarray], classes: int
) -> None:
    for name, picture in zip("abc", pictures(3, 8, seed=0), strict=True):
        write(picture, tmp_path / name / "1.png")
    told: list[str] = []
    found = read(tmp_path, classes=classes, warn=told.append)
    assert (len(found), found.labels, found.class_names) == (3, None, None)
    assert [f"expected the {classes} classes of the network, got 3" in line for line in told] == [
        True
    ]


def test_class_folders_are_the_networks_classes_of_their_names(
    tmp_path: Path, pictures: Callable[..., np.ndarray]
) -> None:
    for name, picture in zip("abc", pictures(3, 8, seed=0), strict=True):
        write(picture, tmp_path / name / "1.png")
    found = read(tmp_path, classes=4, names=("c", "x", "a", "b"))
    assert found.labels is not None
    assert found.labels.tolist() == [2, 3, 0]
    assert found.class_names == ("c", "x", "a", "b")
    told: list[str] = []
    found = read(tmp_path, classes=3, names=("c", "x", "a"), warn=told.append)
    assert (found.labels, found.class_names) == (None, None)
    (line,) = told
    assert "no accuracy is measured" in line
    assert "got 'b', a name that none of them has" in line


@pytest.mark.parametrize(("classes", "fits"), [(3, True), (2, False)])
def test_a_label_beyond_the_networks_classes_is_refused(
    tmp_path: Path, pictures: Callable[..., np.ndarray], classes: int, fits: bool
) -> None:
    lines = ["file,label"]
    for label, picture in enumerate(pictures(3, 8, seed=0)):
        write(picture, tmp_path / f"{label}.png")
        lines.append(f"{label}.png,{label}")
    source = tmp_path / "labels.csv"
    source.write_text("\n".join(lines))
    if fits:
        assert len(read(source, classes=classes)) == 3
    else:
        with pytest.raises(InputError, match=r"expected labels below 2.*got 2"):
            read(source, classes=classes)


def test_unreadable_pictures_are_told_and_left_out(
    tmp_path: Path, pictures: Callable[..., np.ndarray]
) -> None:
    write(pictures(1, 8, seed=0)[0], tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    told: list[str] = []
    found = read(tmp_path, warn=told.append)
    assert (len(found), found.skipped) == (1, (str(tmp_path / "b.png"),))
    assert len(told) == 1
