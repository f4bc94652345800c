"""Whole measurements of accuracy, of networks whose answers are known."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convert.accuracy import models, report, run
from convert.accuracy.report import AccuracyReport
from keras_models import accuracy
from keras_models.images.decode import Preprocessing
from shufflelite.errors import InputError
from shufflelite.progress import Progress
from tests.convert.accuracy.colours import NAMES, PLAIN, write_bundle, write_pictures


def measure(
    *paths: Path,
    data: Path | str,
    preprocessing: Preprocessing | None = None,
    threads: int = 2,
    in_memory_gb: float = 1.0,
) -> AccuracyReport:
    found = models.read_all(
        list(map(str, paths)), preprocessing=vars(preprocessing) if preprocessing else {}
    )
    return run.run(
        found,
        str(data),
        threads=threads,
        in_memory_gb=in_memory_gb,
        seed=0,
        progress=Progress("test"),
    )


def test_figures_of_networks_whose_answers_are_known(
    tmp_path: Path,
    colours: Path,
    colour_files: Mapping[str, bytes],
    colour_weights: Callable[..., Path],
) -> None:
    """Of ten pictures two lie in a wrong folder; four lie in the folder "red", three are red."""
    files = [
        write_bundle(tmp_path / kind, data, names=NAMES) for kind, data in colour_files.items()
    ]
    found = measure(colour_weights("right"), *files, data=colours)
    assert (found.pictures, found.classes, found.class_names) == (10, 3, NAMES)
    weights, right, red_only, nan = found.forms
    assert [form.accuracy.top1 for form in found.forms] == [80, 80, 40, 0]
    assert weights.accuracy.interval == accuracy.interval(8, 10)
    assert [form.undecided for form in found.forms] == [0, 0, 0, 10]
    confusion = ((0, 0, 3), (0, 2, 1), (1, 1, 3), (2, 1, 1), (2, 2, 2))  # in the network's order
    assert weights.confusion == right.confusion == confusion
    assert red_only.confusion == ((0, 0, 4), (1, 0, 3), (2, 0, 3))
    assert nan.confusion == ()
    assert weights.difference is None
    assert right.difference is not None
    assert (right.difference.points, right.difference.agreement) == (0, 100)
    # red_only is right where the reference is not: on the blue picture in "red"
    assert red_only.difference is not None
    assert (red_only.difference.only_this, red_only.difference.only_reference) == (1, 5)
    assert red_only.difference.points == pytest.approx(-40)
    assert red_only.difference.agreement == pytest.approx(30)
    assert red_only.difference.interval == accuracy.paired_interval(3, 1, 5, 1)
    assert np.isnan(nan.accuracy.loss)


def test_streamed_pictures_and_any_threads_give_the_same_report(
    tmp_path: Path,
    colours: Path,
    colour_files: Mapping[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "PIXELS", 3 * 8 * 8)  # batches of 3
    path = write_bundle(tmp_path / "x", colour_files["right"], names=NAMES)
    expected = report.to_json(measure(path, path, data=colours, threads=1))
    assert report.to_json(measure(path, path, data=colours, threads=4)) == expected
    streamed = measure(path, path, data=colours, in_memory_gb=0)
    hashes = {form.pictures_sha256 for form in streamed.forms}
    assert len(hashes) == 1
    ours = json.loads(expected)
    for form in ours["forms"]:  # the hash of what streams is that of the files
        form["pictures_sha256"] = min(hashes)
    assert json.loads(report.to_json(streamed)) == ours


def test_models_that_see_pictures_otherwise_are_compared_on_the_same_ones(
    tmp_path: Path, colour_files: Mapping[str, bytes], colour_weights: Callable[..., Path]
) -> None:
    """A model that sees the middle of pictures, which has another colour, and one that sees all."""
    data = tmp_path / "x.csv"
    write_pictures(tmp_path / "data", {"a": ["red"] * 3, "b": ["blue"] * 2}, side=16)
    for path in (tmp_path / "data").rglob("*.png"):
        pixels = np.full((16, 16, 3), (200, 30, 20), np.uint8)
        pixels[4:12, 4:12] = (10, 60, 190)
        Image.fromarray(pixels).save(path)
    rows = [f"data/a/{i}.png,0" for i in range(3)] + [f"data/b/{i}.png,2" for i in range(2)]
    data.write_text("file,label\n" + "\n".join(rows) + "\n")
    middle = dataclasses.replace(PLAIN, crop_fraction=0.5)
    paths = [
        write_bundle(tmp_path / "middle", colour_files["right"], preprocessing=middle),
        write_bundle(tmp_path / "all", colour_files["right"]),
        write_bundle(tmp_path / "again", colour_files["right"], preprocessing=middle),
    ]
    found = measure(*paths, colour_weights("right", side=16), data=data)
    assert [form.accuracy.top1 for form in found.forms] == [40, 60, 40, 60]
    assert [form.resolution for form in found.forms] == [8, 8, 8, 16]
    first, whole, again, larger = found.forms
    assert first.pictures_sha256 == again.pictures_sha256 != whole.pictures_sha256
    assert whole.difference is not None
    assert (whole.difference.points, whole.difference.agreement) == (20, 0)
    assert larger.difference is not None
    assert larger.difference.points == 20


def test_pictures_of_some_classes_are_enough(
    tmp_path: Path, colour_files: Mapping[str, bytes]
) -> None:
    path = write_bundle(tmp_path / "x", colour_files["right"], names=NAMES)
    data = write_pictures(tmp_path / "data", {"blue": ["blue"] * 3, "empty": []})
    with pytest.raises(InputError, match="expected the classes of x, got 'empty', a name that non"):
        measure(path, data=data)
    (data / "empty").rmdir()
    (form,) = measure(path, data=data).forms
    assert form.accuracy.top1 == 100
    assert form.confusion == ((2, 2, 3),)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (
            (4, 8, 8, 3),
            [0, 1, 2, 3],
            "expected labels below 3, the number of classes of x, got 3: pass labels of",
        ),
        ((4, 6, 6, 3), [0, 1, 2, 0], r"of shape \(n, 8, 8, 3\), got uint8 \(4, 6, 6, 3\)"),
        ((4, 8, 8, 3), None, "expected labels: a folder for each class, a csv with a column"),
    ],
    ids=["label beyond the classes", "another resolution", "no labels"],
)
def test_pictures_of_another_network_are_one_line(
    images: tuple[int, ...],
    labels: list[int] | None,
    message: str,
    tmp_path: Path,
    colour_files: Mapping[str, bytes],
) -> None:
    arrays = {"images": np.zeros(images, np.uint8)}
    if labels is not None:
        arrays["labels"] = np.array(labels)
    np.savez(tmp_path / "x.npz", **arrays)  # type: ignore[arg-type]
    path = write_bundle(tmp_path / "x", colour_files["right"])
    with pytest.raises(InputError, match=message) as error:
        measure(path, data=tmp_path / "x.npz")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("in_memory_gb", [0.0, 1.0])
def test_a_picture_that_cannot_be_decoded_is_named(
    in_memory_gb: float,
    tmp_path: Path,
    colours: Path,
    colour_files: Mapping[str, bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_bundle(tmp_path / "x", colour_files["right"], names=NAMES)
    (colours / "red" / "1.png").write_bytes(b"no picture")
    if in_memory_gb:
        assert measure(path, data=colours).pictures == 9
        assert "red/1.png: cannot be decoded" in capsys.readouterr().err
    else:
        with pytest.raises(InputError, match=r"red/1\.png: cannot be decoded"):
            measure(path, data=colours, in_memory_gb=0)


def test_threads_have_room_for_their_copies_of_large_files(
    tmp_path: Path, colour_files: Mapping[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_bundle(tmp_path / "x", colour_files["right"])
    (form,) = models.read_all([str(path)])
    monkeypatch.setattr(run.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(run.os, "sysconf", {"SC_PHYS_PAGES": 2_000_000, "SC_PAGE_SIZE": 4000}.get)
    sizes = {1_000_000: 64, 100_000_000: 20, 9_000_000_000: 1}
    for size, threads in sizes.items():
        assert run.default_threads([dataclasses.replace(form, size_bytes=size)]) == threads
    halves = [dataclasses.replace(form, size_bytes=50_000_000)] * 2
    assert run.default_threads(halves) == 20
