"""What a network is calibrated and verified on."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convert import calibration_data, pipeline, validate
from convert.calibration_data import Inputs
from convert.conversion import resolve
from convert.settings import ConversionSettings, Model, Precision, Quantization, Verification
from keras_models.images.decode import Preprocessing
from shufflelite.errors import InputError
from shufflelite.progress import Progress

CROPLESS = Preprocessing((10.0, 20.0, 30.0), (2.0, 4.0, 5.0), crop_fraction=1.0)


def read(source: Path | str, **options: Any) -> Inputs:
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
    batches = list(Inputs("test", pixels, CROPLESS).batches(size))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    expected = (pixels - np.array([10.0, 20.0, 30.0])) / [2.0, 4.0, 5.0]
    np.testing.assert_allclose(np.concatenate(batches), expected, rtol=1e-6)
    assert batches[0].dtype == np.float32


def test_made_inputs_go_in_as_they_are() -> None:
    values = np.random.default_rng(0).normal(size=(5, 8, 8, 3)).astype(np.float32)
    inputs = Inputs("test", values)
    np.testing.assert_array_equal(np.concatenate(list(inputs.batches(2))), values)
    assert inputs.sha256 == hashlib.sha256(b"(5, 8, 8, 3)" + values.tobytes()).hexdigest()
    assert len(inputs) == 5


def test_pictures_of_a_folder_are_read_without_labels(
    tmp_path: Path, pictures: Callable[..., np.ndarray]
) -> None:
    pixels = pictures(5, 8, seed=0)
    for i, picture in enumerate(pixels):
        write(picture, tmp_path / f"{i}.png")
    inputs = read(tmp_path)
    np.testing.assert_array_equal(inputs.values, pixels)
    assert inputs.labels is None
    assert inputs.origin == str(tmp_path)
    subset = read(tmp_path, limit=2, seed=3)
    assert len(subset) == 2
    assert all(any(np.array_equal(value, picture) for picture in pixels) for value in subset.values)


def test_folders_of_classes_are_labels(tmp_path: Path, pictures: Callable[..., np.ndarray]) -> None:
    pixels = pictures(4, 8, seed=0)
    for name, picture in zip(("cat/1", "cat/2", "ant/1", "dog/1"), pixels, strict=True):
        write(picture, tmp_path / f"{name}.png")
    inputs = read(tmp_path, classes=3)
    assert inputs.labels is not None
    assert inputs.class_names == ("ant", "cat", "dog")
    np.testing.assert_array_equal(inputs.labels, [0, 1, 1, 2])
    np.testing.assert_array_equal(inputs.values, pixels[[2, 0, 1, 3]])


@pytest.mark.parametrize("classes", [2, 4])
def test_class_folders_of_another_number_than_the_classes_are_no_labels(
    tmp_path: Path, pictures: Callable[..., np.ndarray], classes: int
) -> None:
    for name, picture in zip("abc", pictures(3, 8, seed=0), strict=True):
        write(picture, tmp_path / name / "1.png")
    warnings: list[str] = []
    inputs = read(tmp_path, classes=classes, warn=warnings.append)
    assert (len(inputs), inputs.labels, inputs.class_names) == (3, None, None)
    assert [
        f"expected the {classes} classes of the network, got 3" in line for line in warnings
    ] == [True]


def test_class_folders_are_the_networks_classes_of_their_names(
    tmp_path: Path, pictures: Callable[..., np.ndarray]
) -> None:
    for name, picture in zip("abc", pictures(3, 8, seed=0), strict=True):
        write(picture, tmp_path / name / "1.png")
    inputs = read(tmp_path, classes=4, names=("c", "x", "a", "b"))
    assert inputs.labels is not None
    assert inputs.labels.tolist() == [2, 3, 0]
    assert inputs.class_names == ("c", "x", "a", "b")
    warnings: list[str] = []
    inputs = read(tmp_path, classes=3, names=("c", "x", "a"), warn=warnings.append)
    assert (inputs.labels, inputs.class_names) == (None, None)
    (line,) = warnings
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


def test_unreadable_pictures_are_skipped_with_a_warning(
    tmp_path: Path, pictures: Callable[..., np.ndarray]
) -> None:
    write(pictures(1, 8, seed=0)[0], tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    warnings: list[str] = []
    inputs = read(tmp_path, warn=warnings.append)
    assert (len(inputs), inputs.skipped) == (1, (str(tmp_path / "b.png"),))
    assert len(warnings) == 1


@pytest.mark.usefixtures("tensorflow_as_it_was")
def test_a_conversion_reads_synthetic_pictures(tmp_path: Path) -> None:
    settings = ConversionSettings(
        Model(
            "shufflenet_v2",
            {"width": 0.5, "stem": "cifar"},
            resolution=32,
            num_classes=10,
            weights="random",
        ),
        Quantization(precision=Precision.INT8, calibration="synthetic:40", calibration_samples=30),
        Verification(data="synthetic:20", max_accuracy_drop=100.0),
        out=str(tmp_path),
    )
    conversion = resolve(settings)
    validate.check(conversion)
    _, report = pipeline.run(conversion, Progress("test"))
    assert report.calibration is not None
    assert (report.calibration.origin, report.calibration.count) == ("synthetic:40", 30)
    assert (report.verified_on.origin, report.verified_on.count) == ("synthetic:20", 20)
    assert report.fidelity.float_top1 is not None


def test_data_sets_of_tfds_have_the_networks_classes_of_their_names(
    pictures: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = pictures(6, 8, seed=0)
    examples = [(picture, np.int64(i % 2)) for i, picture in enumerate(pixels)]
    data_set = SimpleNamespace(as_numpy_iterator=lambda: iter(examples))
    info = SimpleNamespace(features={"label": SimpleNamespace(names=["dog", "cat"])})
    tfds = SimpleNamespace(load=lambda *_, **__: (data_set, info))
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", tfds)
    inputs = read("tfds:x/test", classes=3, names=("cat", "owl", "dog"))
    assert inputs.labels is not None
    assert inputs.labels.tolist() == [2, 0] * 3
    np.testing.assert_array_equal(inputs.values, pixels)
