"""The files that --models names, and short names for them."""

from pathlib import Path

import pytest

from shufflelite import model_paths


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["build/a_int8/model.tflite", "build/b_int8/model.tflite"], ["a_int8", "b_int8"]),
        (["build/a/model.tflite", "b.tflite"], ["a", "b"]),
        (["old/net.tflite", "new/net.tflite", "c.tflite"], ["old/net", "new/net", "c"]),
        (["x/a/model.tflite", "y/a/model.tflite"], ["x/a", "y/a"]),
        (["a.tflite", "b.tflite", "./a.tflite"], ["a", "b", "a#2"]),
        (["v1.0.tflite", "v1.1.tflite"], ["v1.0", "v1.1"]),
        (["a.tflite", "a.safetensors", "a.tflite"], ["a.tflite", "a.safetensors", "a.tflite#2"]),
        (["a/model.tflite", "a.safetensors"], ["a", "a.safetensors"]),
    ],
)
def test_names_are_short_and_distinct(paths: list[str], expected: list[str]) -> None:
    assert model_paths.names([Path(path) for path in paths]) == expected


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("two\nlines", r"two\nlines"),
        ("a\x1b[31mred\u2028", r"a\x1b[31mred\u2028"),
        ("größe ☃", "größe ☃"),
        ("not\udc80utf-8", r"not\udc80utf-8"),
    ],
)
def test_a_name_is_one_line_whatever_the_file_is_called(name: str, label: str) -> None:
    assert model_paths.names([Path(f"{name}.tflite")]) == [label]
