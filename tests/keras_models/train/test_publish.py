"""Bundled weights, their card and the table of all, made of a completed training."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keras_models.checkpoints import files, native
from keras_models.checkpoints.load import model_arrays
from keras_models.train import card, checkpoint
from keras_models.train.publish import publish
from keras_models.train.settings import TrainingSettings
from shufflelite import config
from shufflelite.errors import InputError
from shufflelite.progress import Progress
from tests import forkserver

ROOT = Path(__file__).parents[3]
CONFIG = """
out = "runs/toy"
[network]
name = "toy"
options = { channels = 12 }
[data]
train = "data/train"
test = "data/test"
[preprocessing]
crop_fraction = 1.0
"""


@pytest.fixture
def folder(
    tmp_path: Path, toy: Any, registered_toy: None, randomize: Any, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with a config, its test pictures, and what its training left."""
    monkeypatch.chdir(tmp_path)
    Path("toy_cifar10.toml").write_text(CONFIG)
    rng = np.random.default_rng(0)
    for name in card.CLASSES:
        (tmp_path / "elsewhere" / name).mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "elsewhere" / name / f"{i}.png")
    settings = config.load("toy_cifar10.toml", TrainingSettings, ["data.test=elsewhere"])
    write(settings, randomize(toy))
    return tmp_path


def write(settings: TrainingSettings, toy: Any, **changed: Any) -> None:
    accuracy = {"pictures": 30, "top1": 10.0, "top5": 50.0, "loss": 2.3, "interval": (3.0, 26.0)}
    described = native.Trained(
        "toy",
        settings.network.options,
        8,
        10,
        card.CLASSES,
        settings.preprocessing,
        {
            "settings": checkpoint.recipe(settings),
            "epochs": 40,
            "accuracy": accuracy,
            "pictures_sha256": "abc",
            "versions": {"numpy": "1", "shufflelite": None},
        },
    )
    path = Path("runs/toy/weights.safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    native.save(path, model_arrays(toy), dataclasses.replace(described, **changed))


def published(*overrides: str) -> Path:
    sets = ["data.test=elsewhere", *overrides]
    return publish(Path("toy_cifar10.toml"), sets, Path("weights"), Progress("test"))


def test_published_weights_are_small_and_measured_as_stored(folder: Path, toy: Any) -> None:
    path = published()
    assert path == Path("weights/toy_cifar10.safetensors")
    before, after = model_arrays(toy), files.read(path)
    assert before.keys() == after.keys()
    for name, array in after.items():
        kind = np.float16 if array.ndim > 1 else np.float32
        np.testing.assert_array_equal(array, before[name].astype(kind))
    toy.set_weights([w.astype(np.float16) if w.ndim > 1 else w for w in toy.get_weights()])
    right, top5 = 0, 0
    for index, name in enumerate(card.CLASSES):
        for file in sorted((folder / "elsewhere" / name).glob("*.png")):
            pixels = np.asarray(Image.open(file), np.float32)
            (logits,) = toy.predict(pixels[None] / 127.5 - 1, verbose=0)
            right += logits.argmax() == index
            top5 += index in np.argsort(-logits)[:5]
    described = native.describe(path)
    assert described
    accuracy = described.origin["accuracy"]
    assert (accuracy["pictures"], accuracy["top1"], accuracy["top5"]) == (
        30,
        pytest.approx(100 * right / 30),
        pytest.approx(100 * top5 / 30),
    )
    text = path.with_suffix(".md").read_text()
    assert f"| top-1 | {100 * right / 30:.2f} % (95 % interval " in text
    assert "| top-1 before rounding to float16 | 10.00 % (95 % interval 3.00 to 26.00) |" in text
    assert "| versions | numpy 1 |" in text
    assert "[toy_cifar10](toy_cifar10.md)" in Path("weights/README.md").read_text()


def test_publishing_again_writes_the_same_bytes_without_paths_of_this_machine(folder: Path) -> None:
    path = published()
    written = [p.read_bytes() for p in sorted(path.parent.iterdir())]
    assert [p.read_bytes() for p in sorted(published().parent.iterdir())] == written
    assert not any(b"elsewhere" in content for content in written)
    described = native.describe(path)
    assert described
    assert described.origin["settings"]["data"]["test"] == "data/test"
    assert described.origin["config"] == "configs/toy_cifar10.toml"


def test_another_training_than_the_configs_is_refused(folder: Path, toy: Any) -> None:
    settings = config.load("toy_cifar10.toml", TrainingSettings)
    for changed, message in (
        (
            {"origin": {"settings": checkpoint.recipe(dataclasses.replace(settings, seed=5))}},
            "others",
        ),
        ({"class_names": None}, "CIFAR-10's classes"),
        ({"origin": {"settings": "x"}}, "expected weights that say how they were trained"),
    ):
        write(settings, toy, **changed)
        with pytest.raises(InputError, match=message):
            published()
    with pytest.raises(InputError, match="weights of a completed training, found none"):
        published("out=nowhere")
    write(settings, toy)
    (folder / "elsewhere" / "truck").rename(folder / "elsewhere" / "lorry")
    with pytest.raises(InputError, match="elsewhere: expected the classes of the weights"):
        published()
    assert not Path("weights").exists()


def test_help_and_wrong_words_come_without_tensorflow(trap: Path) -> None:
    for words, code, message in (
        (["--help"], 0, ""),
        ([], 2, "publish: expected --config FILE"),
        (["--config=no.toml"], 1, "publish: no.toml: expected a TOML file"),
    ):
        done = forkserver.run(
            [sys.executable, "-m", "keras_models.train.publish", *words],
            modules=forkserver.LIGHT,
            cwd=ROOT,
            env={"PYTHONPATH": str(trap)},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, message in done.stderr) == (code, True), done.stderr
