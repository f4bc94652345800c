"""Labelled pictures: the same in memory and streamed."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keras_models.images import datasets, decode
from keras_models.images.datasets import Pictures
from keras_models.images.decode import Preprocessing
from shufflelite.errors import InputError

WHOLE = Preprocessing(crop_fraction=1.0)


def load(source: str | Path, *, warnings: list[str] | None = None, **options: Any) -> Pictures:
    warn = [].append if warnings is None else warnings.append
    options = {"seed": 0, "labels_required": True} | options
    return datasets.load(str(source), resolution=8, preprocessing=WHOLE, warn=warn, **options)


def write_pictures(folder: Path, counts: dict[str, int]) -> Path:
    """PNG files of 8x8 pixels; all pixels of a picture are its number in the folder."""
    number = 0
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for _ in range(count):
            Image.new("RGB", (8, 8), (number,) * 3).save(folder / name / f"{number:03}.png")
            number += 1
    return folder


def test_folders_number_the_classes_by_name(tmp_path: Path) -> None:
    pictures = load(write_pictures(tmp_path / "x", {"b": 2, "a": 3}))
    assert pictures.class_names == ("a", "b")
    (pixels, labels), (rest, _) = pictures.read([np.array([4, 0]), np.array([1])])
    np.testing.assert_array_equal(labels, [1, 0])
    assert pixels.shape == (2, 8, 8, 3)
    assert [p[0, 0, 0] for p in (*pixels, *rest)] == [1, 2, 3]  # "b" was written first


def test_streamed_pictures_are_those_of_memory_in_the_same_order(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x", {"a": 7, "b": 6})
    memory, stream = load(folder), load(folder, in_memory_gb=0.0)
    order = np.random.default_rng(0).permutation(13)
    batches = [order[i : i + 3] for i in range(0, 12, 3)]
    pairs = list(zip(memory.read(batches), stream.read(batches), strict=True))
    assert len(pairs) == 4
    for (pixels, labels), (streamed, streamed_labels) in pairs:
        np.testing.assert_array_equal(streamed, pixels)
        np.testing.assert_array_equal(streamed_labels, labels)
    assert memory.classes == stream.classes == 2
    for _ in stream.read(batches):
        break  # what was read ahead goes


def test_a_streamed_picture_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x", {"a": 3, "b": 3})
    broken = folder / "b" / "004.png"
    broken.write_bytes(broken.read_bytes()[:40])
    pictures = load(folder, in_memory_gb=0.0)
    with pytest.raises(InputError, match=r"004\.png: cannot be decoded"):
        list(pictures.read([np.arange(6)]))


def test_a_corrupt_picture_is_left_out_and_named(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x", {"a": 3, "b": 3})
    (folder / "a" / "001.png").write_bytes(b"no picture")
    warnings: list[str] = []
    pictures = load(folder, warnings=warnings)
    assert pictures.skipped == (str(folder / "a" / "001.png"),)
    assert pictures.known_labels.tolist() == [0, 0, 1, 1, 1]
    assert isinstance(pictures.pixels, np.ndarray)
    assert pictures.pixels[:, 0, 0, 0].tolist() == [0, 2, 3, 4, 5]
    assert len(warnings) == 1
    assert "001.png" in warnings[0]


@pytest.mark.parametrize("name", ["x.csv", "x.npz"])
def test_a_pipe_is_refused_without_waiting_for_a_writer(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=r"expected .* found (this kind of file|a folder, pipe)"):
        load(tmp_path / name)
    with pytest.raises(InputError, match="expected a file, found a folder, pipe or device"):
        decode.load_picture(tmp_path / name, resolution=8, preprocessing=WHOLE)


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x", {"a": 3, "b": 0, "c": 2, "d": 0})
    expected = (
        f"{folder}: expected pictures of each class, found none of b, d: add some, or remove "
        "the class."
    )
    pictures = load(folder)
    assert pictures.class_names == ("a", "b", "c", "d")
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        datasets.check_classes(pictures, print)


def test_a_single_class_is_nothing_to_learn(tmp_path: Path) -> None:
    pictures = load(write_pictures(tmp_path / "x", {"a": 3}))
    with pytest.raises(InputError, match="expected at least two classes, got a alone"):
        datasets.check_classes(pictures, print)


def test_a_class_with_one_picture_is_warned_of(tmp_path: Path) -> None:
    warnings: list[str] = []
    pictures = load(write_pictures(tmp_path / "x", {"a": 3, "b": 1}))
    datasets.check_classes(pictures, warnings.append)
    assert warnings == [f"{tmp_path}/x: only one picture of b, too few to learn from"]


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ({"a": 1, "c": 1}, "expected the 2 classes of .*, got 2; in one of them only: b, c"),
        ({"a": 1, "b": 1, "c": 1}, "expected the 2 classes of .*, got 3; in one of them only: c"),
    ],
)
def test_test_pictures_of_other_classes_are_refused(
    test: dict[str, int], message: str, tmp_path: Path
) -> None:
    train = load(write_pictures(tmp_path / "train", {"a": 2, "b": 2}))
    with pytest.raises(InputError, match=message):
        datasets.aligned(load(write_pictures(tmp_path / "test", test)), train)


def test_classes_are_a_networks_by_name(tmp_path: Path) -> None:
    pictures = load(write_pictures(tmp_path / "x", {"cat": 2, "dog": 1}))
    names = ("dog", "owl", "cat", "eel")
    matched = datasets.match_classes(pictures, names, 4, "net")
    assert matched.known_labels.tolist() == [2, 2, 0]
    assert matched.class_names == names
    (pixels, labels), (_, last) = matched.read([np.array([2, 0]), np.array([1])])
    assert (labels.tolist(), last.tolist()) == ([0, 2], [2])
    np.testing.assert_array_equal(pixels, next(iter(pictures.read([np.array([2, 0])])))[0])


def test_a_network_without_names_has_the_folders_classes(tmp_path: Path) -> None:
    pictures = load(write_pictures(tmp_path / "x", {"cat": 2, "dog": 1}))
    assert datasets.match_classes(pictures, None, 2, "net") is pictures


def test_numbers_are_classes_as_they_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 8, 8, 3), np.uint8), labels=[3, 1])
    pictures = load(tmp_path / "x.npz")
    for names in (("a", "b", "c", "d"), None):
        matched = datasets.match_classes(pictures, names, 4, "net")
        assert (matched.known_labels.tolist(), matched.class_names) == ([3, 1], names)
    with pytest.raises(
        InputError,
        match=r"expected labels below 3, the number of classes of net, got 3: pass labels of",
    ):
        datasets.match_classes(pictures, None, 3, "net")


@pytest.mark.parametrize(
    ("names", "classes", "message"),
    [
        (None, 3, "expected the 3 classes of net, got 2 in unknown order: pass --labels with a"),
        (("cat", "owl"), 2, "expected the classes of net, got 'dog', a name that none of them has"),
        (("dog", "dog", "cat"), 3, "got 'dog', a name that several of them have .1 of 2 classes"),
    ],
)
def test_classes_that_cannot_be_told_apart_are_refused(
    names: tuple[str, ...] | None, classes: int, message: str, tmp_path: Path
) -> None:
    pictures = load(write_pictures(tmp_path / "x", {"cat": 2, "dog": 1}))
    with pytest.raises(InputError, match=message):
        datasets.match_classes(pictures, names, classes, "net")


def test_a_csv_and_an_npz_have_numbers_for_names(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x", {"a": 2, "b": 2})
    files = sorted(path.relative_to(tmp_path) for path in folder.rglob("*.png"))
    rows = "".join(f"{file},{label}\n" for file, label in zip(files, (1, 0, 2, 2), strict=True))
    (tmp_path / "x.csv").write_text(f"file,label\n{rows}")
    listed = load(tmp_path / "x.csv")
    (pixels, labels), *_ = listed.read([np.arange(4)])
    np.savez(tmp_path / "x.npz", images=pixels, labels=labels)
    packed = load(tmp_path / "x.npz")
    np.testing.assert_array_equal(labels, [1, 0, 2, 2])
    assert listed.class_names is packed.class_names is None
    assert listed.classes == packed.classes == 3
    assert listed.sha256 == packed.sha256


def test_other_pictures_or_labels_have_another_hash(tmp_path: Path) -> None:
    pixels = np.zeros((4, 8, 8, 3), np.uint8)
    labels = np.array([0, 1, 0, 1])
    hashes = set()
    for index, (p, n) in enumerate([(pixels, labels), (pixels + 1, labels), (pixels, 1 - labels)]):
        np.savez(tmp_path / f"{index}.npz", images=p, labels=n)
        hashes.add(load(tmp_path / f"{index}.npz").sha256)
    assert len(hashes) == 3


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("synthetic:9", "expected synthetic:COUNT with at least 10 pictures"),
        ("synthetic:many", "expected synthetic:COUNT with at least 10 pictures"),
        ("nowhere", "expected a folder of pictures or a .csv file"),
    ],
)
def test_what_is_no_source_is_refused(source: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(source)


def test_pictures_without_labels_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.zeros((4, 8, 8, 3), np.uint8))
    with pytest.raises(InputError, match="expected labels: a folder for each class, a csv with"):
        load(tmp_path / "x.npz")


def test_a_limit_takes_a_random_subset_in_order_that_the_seed_repeats(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x", {"a": 20, "b": 20})
    files = sorted(folder.rglob("*.png"))
    numbers = np.arange(40, dtype=np.uint8)
    pixels = numbers[:, None, None, None].repeat(8, 1).repeat(8, 2).repeat(3, 3)
    np.savez(tmp_path / "x.npz", images=pixels, labels=(numbers >= 20).astype(int))
    rows = "".join(f"{file},{int(i >= 20)}\n" for i, file in enumerate(files))
    (tmp_path / "x.csv").write_text(f"file,label\n{rows}")

    def read_some(source: Path, limit: int, seed: int) -> list[int]:
        pictures = load(source, limit=limit, seed=seed)
        assert isinstance(pictures.pixels, np.ndarray)
        read = pictures.pixels[:, 0, 0, 0].tolist()
        assert pictures.known_labels.tolist() == [int(number >= 20) for number in read]
        return read

    first = read_some(folder, 10, seed=0)
    assert first == sorted(set(first))
    assert len(first) == 10
    for source in (folder, tmp_path / "x.csv", tmp_path / "x.npz"):
        assert read_some(source, 10, seed=0) == first
        assert read_some(source, 10, seed=1) != first
        assert read_some(source, 100, seed=0) == list(range(40))
        with pytest.raises(InputError, match="limit of at least 1"):
            read_some(source, 0, seed=0)


def test_a_limit_of_synthetic_pictures_takes_some_of_them() -> None:
    whole, some = load("synthetic:40"), load("synthetic:40", limit=7)
    assert isinstance(whole.pixels, np.ndarray)
    assert isinstance(some.pixels, np.ndarray)
    matches = (some.pixels[:, None] == whole.pixels[None]).all(axis=(2, 3, 4))
    rows, columns = np.nonzero(matches)
    assert rows.tolist() == list(range(7))
    np.testing.assert_array_equal(some.known_labels, whole.known_labels[columns])


def test_labels_are_optional_unless_they_are_required(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x", {"a": 2, "b": 2})
    flat = load(folder / "a", labels_required=False)
    assert (len(flat), flat.labels, flat.class_names) == (2, None, None)
    assert load(folder, labels_required=False).class_names == ("a", "b")
    with pytest.raises(InputError, match=r"in a folder named after its class, found 000\.png"):
        load(folder / "a")


def test_without_tensorflow_datasets_its_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(InputError, match="needs tensorflow_datasets: pip install"):
        load("tfds:cifar10/train")


class DataSet(list):
    """What is used of a tf.data.Dataset."""

    def as_numpy_iterator(self) -> Iterator[Any]:
        return iter(self)


def test_data_sets_of_tfds_are_read_by_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in for its three calls: it is no dependency."""
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    sets = {"digits": [(grey, np.int64(1)), (grey[::-1], np.int64(0))], "empty": []}
    info = SimpleNamespace(features={"label": SimpleNamespace(names=["a", "b"])})

    def tfds_load(name: str, **given: Any) -> tuple[Any, Any]:
        assert given == {"split": "train", "with_info": True, "as_supervised": True}
        if name not in sets:
            raise ValueError(f"{name} not found.\nThere are:" + " x" * 1000)
        return DataSet(sets[name]), info

    stand_in = SimpleNamespace(load=tfds_load)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", stand_in)
    pictures = load("tfds:digits/train")
    assert (pictures.class_names, pictures.known_labels.tolist()) == (("a", "b"), [1, 0])
    ((pixels, labels),) = pictures.read([np.array([1, 0])])
    np.testing.assert_array_equal(pixels, np.repeat([grey[::-1], grey], 3, axis=-1))
    np.testing.assert_array_equal(labels, [0, 1])
    one = load("tfds:digits/train", limit=1)
    assert one.known_labels.tolist() in ([1], [0])
    np.testing.assert_array_equal(one.pixels, pixels[one.known_labels])
    with pytest.raises(InputError, match=r"^tfds:empty/train: expected pictures, found none\.$"):
        load("tfds:empty/train")
    with pytest.raises(InputError, match=r"^tfds:no/train: no not found\. There are: x .* \.\.\.$"):
        load("tfds:no/train")
    with pytest.raises(InputError, match="expected tfds:NAME/SPLIT, as tfds:cifar10/train"):
        load("tfds:digits")


def test_labels_beyond_any_class_are_refused(tmp_path: Path) -> None:
    (picture,) = write_pictures(tmp_path / "p", {"a": 1}).glob("a/*")
    (tmp_path / "x.csv").write_text(f"file,label\n{picture},999999999\n")
    with pytest.raises(InputError, match=r"x\.csv: expected labels below 1000000, got 999999999\."):
        load(tmp_path / "x.csv")
