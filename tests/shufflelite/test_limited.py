"""Files of any size are refused by their size, not read."""

import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from android_bench import model_file, results
from convert.accuracy import models
from convert.settings import ConversionSettings
from keras_models.images import class_names, lists
from shufflelite import config, limited
from shufflelite.errors import InputError

READERS: dict[str, Callable[[Path], object]] = {
    "labels.txt": lambda path: class_names.read(path, classes=2),
    "list.csv": lambda path: lists.find(path, warn=print),
    "settings.toml": lambda path: config.load(path, ConversionSettings),
    "rows.jsonl": results.read,
    "net.tflite": lambda path: model_file.read_all([str(path)]),
    "other.tflite": lambda path: models.read_all([str(path)]),
}


@pytest.mark.parametrize("name", READERS)
def test_a_file_of_three_gigabytes_is_refused_unread(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(3 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=rf"{name}: expected at most \d+ bytes, got {3 << 30}"):
        READERS[name](path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + (100 << 10)


def test_what_is_small_enough_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a\r\nb\rc\n")
    assert limited.read_text(tmp_path / "a.txt") == "a\nb\nc\n"
    assert limited.read_bytes(tmp_path / "a.txt", 7) == b"a\r\nb\rc\n"
    with pytest.raises(InputError, match=r"a\.txt: expected at most 6 bytes, got 7"):
        limited.read_bytes(tmp_path / "a.txt", 6)
