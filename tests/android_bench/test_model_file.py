"""The files that --models names: their hashes and operators, or why they are refused."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from android_bench import model_file
from shufflelite.errors import InputError


def test_read_tells_size_hash_and_operators_of_the_file(toys: Mapping[str, Path]) -> None:
    (read,) = model_file.read_all([str(toys["float"])])
    data = toys["float"].read_bytes()
    assert read.size_bytes == len(data)
    assert read.sha256 == hashlib.sha256(data).hexdigest()
    assert read.operators == {
        "CONV_2D": 2,
        "DEPTHWISE_CONV_2D": 1,
        "MEAN": 1,
        "FULLY_CONNECTED": 1,
    }


def test_a_custom_operator_has_its_own_name(unrunnable: Path) -> None:
    (read,) = model_file.read_all([str(unrunnable)])
    assert read.operators["Mystery"] == 2


def test_paths_come_by_blank_by_comma_and_by_pattern(toys: Mapping[str, Path]) -> None:
    folder = toys["float"].parent
    both = [str(toys["float"]), str(toys["int8"])]
    for words in (both, [",".join(both)], [f"{folder}/[fi]*.tflite"]):
        assert [model.path for model in model_file.read_all(words)] == [Path(p) for p in both]


def test_a_path_with_a_comma_is_one_path(toys: Mapping[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "a,b.tflite"
    path.write_bytes(toys["float"].read_bytes())
    assert [model.name for model in model_file.read_all([str(path)])] == ["a,b"]


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(toys: Mapping[str, Path], tmp_path: Path, kept: float) -> None:
    data = toys["int8"].read_bytes()
    path = tmp_path / "cut.tflite"
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(InputError, match=r"cut\.tflite: expected a whole TFLite file"):
        model_file.read_all([str(path)])


@pytest.mark.parametrize(
    ("data", "got"),
    [
        (b"", "an empty file"),
        (b"PK\x03\x04 a zip archive", r"one that starts with b'PK\\x03\\x04"),
        (b"version https://git-lfs", "one that starts with b'version '"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, data: bytes, got: str) -> None:
    path = tmp_path / "other.tflite"
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"identifier TFL3\), got {got}"):
        model_file.read_all([str(path)])


def test_missing_files_and_folders_are_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no such file"):
        model_file.read_all([str(tmp_path / "*/model.tflite")])
    (tmp_path / "model.tflite").touch()
    with pytest.raises(InputError, match=r"got a directory; it holds .*model\.tflite"):
        model_file.read_all([str(tmp_path)])
