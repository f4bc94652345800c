"""Files of weights that say what they are weights of."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from keras_models import checkpoints
from keras_models.checkpoints import native
from keras_models.checkpoints.native import Trained
from keras_models.images.decode import Preprocessing
from shufflelite.errors import InputError

ARRAYS = {"b/kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3).T, "a/bias": np.ones(2)}
TRAINED = Trained(
    "shufflenet_v2",
    {"width": 0.5, "stem": "cifar"},
    32,
    2,
    ("cat", "dog"),
    Preprocessing((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), "bgr", 1.0, "bicubic"),
    {"epochs": 3},
)


def test_what_is_written_is_read_and_the_same_bytes_again(tmp_path: Path) -> None:
    for name in ("a", "b"):
        native.save(tmp_path / f"{name}.safetensors", ARRAYS, TRAINED)
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    assert a.read_bytes() == b.read_bytes()
    assert native.describe(a) == TRAINED
    for source in (None, "shufflelite"):
        read = checkpoints.read_weights(a, source)
        assert read.preprocessing == TRAINED.preprocessing
        assert (read.source, read.models) == ("shufflelite shufflenet_v2", ("shufflenet_v2",))
        assert read.options == TRAINED.options
        assert read.arrays.keys() == ARRAYS.keys()
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(read.arrays[name], array)


def test_any_other_file_describes_nothing(tmp_path: Path) -> None:
    safetensors.numpy.save_file(ARRAYS, tmp_path / "x.safetensors", {"format": "pt"})
    np.savez(tmp_path / "x.npz", **ARRAYS)
    for name in ("x.safetensors", "x.npz"):
        assert native.describe(tmp_path / name) is None
        assert checkpoints.read_weights(tmp_path / name).models == ()


@pytest.mark.parametrize("text", ["no JSON", "{}", '{"class_names": null, "preprocessing": {}}'])
def test_a_description_that_cannot_be_read_is_refused(text: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(ARRAYS, path, {native.KEY: text})
    with pytest.raises(
        InputError, match=f"^{re.escape(str(path))}: its description cannot be read"
    ):
        checkpoints.read_weights(path)


def test_a_description_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"a": np.ones(2)}, path, {native.KEY: "[" * 100_000})
    with pytest.raises(InputError, match="its description cannot be read"):
        native.describe(path)
