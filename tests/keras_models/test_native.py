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


REASONS = {  # file of descriptions/: what is wrong with it
    "classes_bool": "expected 'num_classes' to be an integer, got True.",
    "classes_neg": "expected 'num_classes' to be 1 to 100000, got -1.",
    "classes_null": "expected 'num_classes' to be an integer, got None.",
    "classes_str": "expected 'num_classes' to be an integer, got '10'.",
    "crop_small": "[preprocessing]: Expected crop_fraction in [0.01, 1], got 1e-300.",
    "crop_small2": "[preprocessing]: Expected crop_fraction in [0.01, 1], got 1e-06.",
    "mean_nan": "[preprocessing]: expected 'mean' to be a number, got nan.",
    "mean_str": "[preprocessing]: expected 'mean' to be a list of a number, ",
    "model_int": "expected 'model' to be a string, got 5.",
    "model_list": "expected 'model' to be a string, got ['a'].",
    "model_null": "expected 'model' to be a string, got None.",
    "names_dicts": "expected 'class_names' to be a string, got {}.",
    "names_ints": "expected 'class_names' to be a string, got 0.",
    "names_short": "expected 10 'class_names', got 1.",
    "names_str": "expected 'class_names' to be a list of a string, ",
    "opt_classes": "expected no 'num_classes' among the options.",
    "opt_input_shape": "expected no 'input_shape' among the options.",
    "opt_name": "shufflenet_v2 has no option 'name'; it takes width, ",
    "options_list": "expected 'options' to be a table, got [1].",
    "options_null": "expected 'options' to be a table, got None.",
    "options_str": "expected 'options' to be a table, got 'ab'.",
    "origin_str": "expected 'origin' to be a table, got 'x'.",
    "res_float": "expected 'resolution' to be an integer, got 32.5.",
    "res_neg": "expected 'resolution' to be 1 to 4096, got -5.",
    "res_null": "expected 'resolution' to be an integer, got None.",
    "res_str": "expected 'resolution' to be an integer, got 'x'.",
    "res_zero": "expected 'resolution' to be 1 to 4096, got 0.",
    "std0": "[preprocessing]: Expected three stds of 1e-6 to 1e6, got (0.0, 0.0, 0.0).",
    "width_list": "shufflenet_v2: expected 'width' to be a number, got [1].",
    "width_nan": "shufflenet_v2: expected 'width' to be a number, got nan.",
    "width_str": "shufflenet_v2: expected 'width' to be a number, got 'x'.",
}


def test_a_description_of_wrong_types_or_values_is_one_line() -> None:
    folder = Path(__file__).with_name("descriptions")
    assert sorted(REASONS) == sorted(path.stem for path in folder.iterdir())
    for name, reason in REASONS.items():
        path = folder / f"{name}.safetensors"
        start = f"{path}: its description cannot be read: {reason}"
        with pytest.raises(InputError, match=f"^{re.escape(start)}"):
            checkpoints.read_weights(path)
