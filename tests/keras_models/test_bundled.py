"""The weights in keras_models/weights, whichever of them are there."""

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_models import counts, registry
from keras_models.checkpoints import bundled, files, native
from keras_models.checkpoints.load import load_weights
from keras_models.images.decode import Preprocessing
from keras_models.train import card, checkpoint
from keras_models.train.settings import TrainingSettings
from shufflelite import config
from shufflelite.config import tomllib

ROOT = Path(__file__).parents[2]
ALL = bundled.every()


def test_the_files_say_what_they_are_and_one_is_left_out_that_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundled, "FOLDER", tmp_path / "none")
    assert bundled.every() == {}
    assert bundled.find("shufflenet_v2") is None
    monkeypatch.setattr(bundled, "FOLDER", tmp_path)
    described = native.Trained("alexnet", {}, 8, 2, None, Preprocessing(), {})
    native.save(tmp_path / "toy_cifar10.safetensors", {"a/kernel": np.ones(2)}, described)
    (tmp_path / "other.safetensors").write_bytes(b"no weights")
    assert bundled.every() == {"alexnet": bundled.find("alexnet")}
    assert bundled.find("alexnet") == bundled.Bundled(
        tmp_path / "toy_cifar10.safetensors", described
    )


def test_each_model_has_one_file_and_all_are_small() -> None:
    found = list(bundled.FOLDER.glob("*.safetensors"))
    assert sorted(found) == sorted(one.path for one in ALL.values())
    assert sum(path.stat().st_size for path in found) < 4e6
    for path in found:
        assert path.stem in {path.stem for path in (ROOT / "configs").glob("*_cifar10.toml")}


@pytest.mark.parametrize("model", sorted(ALL))
def test_bundled_weights_are_whole_and_count_what_they_say(model: str) -> None:
    path, described = ALL[model].path, ALL[model].trained
    arrays = files.read(path)
    for name, array in arrays.items():
        assert array.dtype == (np.float16 if array.ndim > 1 else np.float32), name
        assert np.isfinite(array).all(), name
    side = (described.resolution, described.resolution, 3)
    network = registry.create(
        model, input_shape=side, num_classes=described.num_classes, **described.options
    )
    load_weights(network, arrays, origin=model)
    params, multiply_adds = counts.total(counts.count(network))
    assert (params, multiply_adds) == tuple(
        described.origin[name] for name in ("params", "multiply_adds")
    )
    learnt = [array.size for name, array in arrays.items() if "/moving_" not in name]
    assert params == sum(learnt)


@pytest.mark.parametrize("model", sorted(ALL))
def test_bundled_weights_are_those_of_their_config(model: str) -> None:
    path, described = ALL[model].path, ALL[model].trained
    toml = ROOT / str(described.origin["config"])
    assert toml == ROOT / "configs" / f"{path.stem}.toml"
    settings = config.load(toml, TrainingSettings)
    had = config.build({**described.origin["settings"], "out": settings.out}, TrainingSettings)
    assert checkpoint.recipe(had) == checkpoint.recipe(settings)
    assert (settings.network.name, settings.network.options) == (model, described.options)
    assert settings.network.input_resolution == described.resolution
    assert settings.training.epochs == described.origin["epochs"]


@pytest.mark.parametrize("model", sorted(ALL))
def test_a_cards_figures_are_those_of_the_file(model: str) -> None:
    path, described = ALL[model].path, ALL[model].trained
    text = path.with_suffix(".md").read_text(encoding="utf-8")
    assert text == card.card(path, described)
    origin = described.origin
    for what, expected in (
        ("file", path.stat().st_size),
        ("parameters", origin["params"]),
        ("top-1", origin["accuracy"]["top1"]),
        ("top-5", origin["accuracy"]["top5"]),
        ("measured on", origin["accuracy"]["pictures"]),
        ("top-1 before rounding to float16", origin["trained_accuracy"]["top1"]),
        ("epochs", origin["epochs"]),
    ):
        (told,) = re.findall(rf"^\| {re.escape(what)} \| ([\d.,]+)", text, re.M)
        assert float(told.replace(",", "")) == expected, what
    rate, total = origin["accuracy"]["top1"] / 100, origin["accuracy"]["pictures"]
    for bound in origin["accuracy"]["interval"]:  # where the rate is 1.96 deviations away
        p = bound / 100
        assert abs(rate - p) == pytest.approx(1.959964 * math.sqrt(p * (1 - p) / total))
    assert described.class_names == card.CLASSES


@pytest.mark.skipif(not ALL, reason="no bundled weights")
def test_the_table_of_all_is_theirs() -> None:
    written = (bundled.FOLDER / "README.md").read_text(encoding="utf-8")
    assert written == card.index({one.path: one.trained for one in ALL.values()})


def test_weights_and_cards_go_into_a_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    told = project["tool"]["setuptools"]["package-data"]
    packed = subprocess.run(
        [sys.executable, "-c", BUILD_PY, repr(told)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
        check=True,
    ).stdout.splitlines()
    held = [p for p in bundled.FOLDER.glob("*") if p.suffix in (".safetensors", ".md", ".inputs")]
    held += [p for p in (ROOT / "android_bench" / "app").rglob("*") if p.is_file()]
    held += (ROOT / "convert/bundle/card/templates").glob("*.j2")
    expected = [path.relative_to(ROOT).as_posix() for path in held]
    assert set(packed) == {*expected, "android_bench/emulated/counter.c"}


# What setuptools would take along of our packages, as build_py sees it.
BUILD_PY = """
import ast, os, sys
from setuptools import Distribution
data = ast.literal_eval(sys.argv[1])
command = Distribution({"packages": list(data), "package_data": data}).get_command_obj("build_py")
command.ensure_finalized()
for package, folder, _, names in command.data_files:
    for name in names:
        print(os.path.join(folder, name))
"""
