"""Whole trainings of the toy: what they write, where they stop, and how they go on."""

import errno
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

from keras_models import checkpoints
from keras_models.checkpoints import native
from keras_models.train import outputs
from keras_models.train.run import run
from keras_models.train.settings import (
    Augment,
    Data,
    NetworkSettings,
    Progressive,
    Training,
    TrainingSettings,
)
from keras_models.train.trainer import Trainer
from shufflelite.errors import InputError
from shufflelite.progress import Progress

FILES = ["best.safetensors", "checkpoint.safetensors", "log.csv", "weights.safetensors"]
STEPS = 30
pytestmark = pytest.mark.usefixtures("registered_toy")


def settings(out: Path, **changed: Any) -> TrainingSettings:
    whole = TrainingSettings(
        NetworkSettings("toy", {"drop": 0.2}),
        Data("synthetic:100", "synthetic:50"),
        str(out),
        augment=Augment(pad=1, mixup=0.1, randaugment_layers=1, cutout=2),
        training=Training(epochs=3, batch=10, learning_rate=0.1, ema=0.9),
        save_every_s=0.0,  # after each step
    )
    return replace(whole, **changed)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def untimed(log: Path) -> list[list[str]]:
    heading, *rows = (row.split(",") for row in log.read_text().splitlines())
    speed = heading.index("images_per_s")
    return [row[:speed] + row[speed + 1 :] for row in rows]


class Killed(BaseException):
    """Ends a training as a signal would."""


@pytest.mark.slow
def test_killed_ten_times_it_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(settings(tmp_path / "whole"), Progress("train"))
    rng = random.Random(0)
    train, replace = Trainer.train, Path.replace
    left = 0

    def train_until(self: Trainer, *args: Any) -> tuple[float, int]:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return train(self, *args)

    def replace_or_not(self: Path, target: Path) -> Path:
        if left < 1:
            raise Killed
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train", train_until)
        for kill in range(10):
            left = rng.randrange(1, 5)
            if kill % 3 == 0:  # in the middle of writing
                patch.setattr(Path, "replace", replace_or_not)
            with pytest.raises(Killed):
                run(settings(tmp_path / "killed"), Progress("train"))
            patch.setattr(Path, "replace", replace)
    (tmp_path / "killed" / "checkpoint.safetensors.4194305.0123abcd.part").touch()  # of a SIGKILL
    run(settings(tmp_path / "killed"), Progress("train"))
    found, expected = contents(tmp_path / "killed"), contents(tmp_path / "whole")
    assert sorted(found) == FILES
    for name in ("weights.safetensors", "best.safetensors"):
        assert found[name] == expected[name]
    logs = [untimed(tmp_path / name / "log.csv") for name in ("whole", "killed")]
    assert logs[0] == logs[1]
    assert len(logs[0]) == 3


def test_the_weights_say_what_they_are_and_are_the_last_averages(tmp_path: Path) -> None:
    result = run(settings(tmp_path / "out"), Progress("train"))
    assert sorted(contents(tmp_path / "out")) == FILES
    assert result.accuracy is not None
    assert result.accuracy.pictures == 50
    read = checkpoints.read_weights(result.weights)
    described = native.describe(result.weights)
    assert described is not None
    assert (read.models, read.options) == (("toy",), {"drop": 0.2})
    assert described.class_names == tuple(f"stripes{i}" for i in range(10))
    assert described.origin["accuracy"]["top1"] == result.accuracy.top1
    assert described.origin["epochs"] == 3
    assert "out" not in described.origin["settings"]
    state = safetensors.numpy.load_file(tmp_path / "out" / "checkpoint.safetensors")
    for name, array in read.arrays.items():
        np.testing.assert_array_equal(array, state[f"averaged/{name}"])
    with pytest.raises(InputError, match=r"a training: take weights\.safetensors or best"):
        checkpoints.read_weights(tmp_path / "out" / "checkpoint.safetensors")


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"seed": 1}, "seed = 0, not 1"),
        ({"training": Training(epochs=4, batch=10)}, "training.ema = 0.9, not 0.0"),
        (
            {"data": Data("synthetic:110")},
            "other training pictures, other initial weights, or another teacher",
        ),
        (
            {"network": NetworkSettings("toy", {"channels": 24})},
            "network.options.channels = None, not 24",
        ),
    ],
    ids=["seed", "recipe", "pictures", "network"],
)
def test_a_checkpoint_of_something_else_stays_and_is_explained(
    changed: dict[str, Any], what: str, tmp_path: Path
) -> None:
    before = settings(tmp_path, training=Training(epochs=2, batch=10, ema=0.9))
    run(before, Progress("train"))
    files = contents(tmp_path)
    message = (
        f"{tmp_path}/checkpoint.safetensors: the training that it belongs to has {what}: choose "
        "another 'out', or remove the file to start a new training."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        run(replace(before, **changed), Progress("train"))
    assert contents(tmp_path) == files


def test_a_batch_of_more_than_all_pictures_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = settings(tmp_path, data=Data("synthetic:20"), training=Training(epochs=2, batch=32))
    assert run(few, Progress("train")).steps == 2
    told = "train: warning: a batch of 32 is more than the pictures: each step takes all 20."
    assert told in capsys.readouterr().err


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(
        InputError, match=r"checkpoint\.safetensors: not a checkpoint of a training"
    ):
        run(settings(tmp_path), Progress("train"))


def test_a_loss_that_is_no_number_spares_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0
    train = Trainer.train

    def train_badly(self: Trainer, *args: Any) -> tuple[float, int]:
        nonlocal steps
        steps += 1
        if steps == 16:  # a step whose own loss is finite leaves weights that are not
            self.model.trainable_variables[0].assign_add(
                np.full_like(self.model.trainable_variables[0], np.inf)
            )
            return 1.0, 0
        return train(self, *args)

    monkeypatch.setattr(Trainer, "train", train_badly)
    with pytest.raises(
        InputError, match=r"^Expected a finite loss, got inf or nan at step 15 of 30"
    ):
        run(settings(tmp_path), Progress("train"))
    state = safetensors.numpy.load_file(tmp_path / "checkpoint.safetensors")
    assert state["step"] == 15
    assert all(np.isfinite(array).all() for array in state.values())


def test_too_high_a_rate_ends_the_training_before_anything_is_written(tmp_path: Path) -> None:
    training = Training(epochs=1, batch=10, learning_rate=1e30, warmup_epochs=0.0)
    with pytest.raises(InputError, match=r"lower the learning rate, or set training\.clip"):
        run(settings(tmp_path, training=training, save_every_s=600.0), Progress("train"))
    assert contents(tmp_path) == {}


def test_a_start_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="shufflenetv2"):
        run(
            settings(tmp_path / "runs" / "x", network=NetworkSettings("shufflenetv2", {})),
            Progress("train"),
        )
    assert contents(tmp_path) == {}


def test_a_full_disk_leaves_what_was_written_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = 0
    replace = Path.replace

    def replace_or_not(self: Path, target: Path) -> Path:
        nonlocal writes
        writes += 1
        if writes == 5:
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", replace_or_not)
    with pytest.raises(OSError, match="No space left on device"):
        run(settings(tmp_path), Progress("train"))
    assert list(contents(tmp_path)) == ["checkpoint.safetensors"]
    monkeypatch.undo()


def test_two_trainings_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        outputs.locked(tmp_path),
        pytest.raises(
            InputError, match="writes there: wait until it is done, or choose another 'out'"
        ),
    ):
        run(settings(tmp_path), Progress("train"))


def test_stages_of_growing_images_end_in_one_network(tmp_path: Path) -> None:
    staged = settings(
        tmp_path,
        network=NetworkSettings("toy", {"drop": 0.3}, 16),
        data=Data("synthetic:300", "synthetic:50"),
        training=Training(epochs=6, batch=20, learning_rate=0.1, resolution=12),
        augment=Augment(crop="resized", min_area=0.5, flip=False),
        progressive=Progressive(stages=3, resolution=8, options={"drop": 0.1}, mixup=0.0),
        tensorboard=True,
    )
    result = run(staged, Progress("train"))
    described = native.describe(result.weights)
    assert described is not None
    assert described.resolution == 16
    assert result.accuracy is not None
    assert result.accuracy.top1 > 30  # 10 by chance
    tags = {
        value.tag
        for path in (tmp_path / "tensorboard").iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    }
    assert {"loss", "learning_rate", "test_top1"} <= tags
    before = result.weights.read_bytes()
    assert run(staged, Progress("train")) == result, "nothing is left to do"
    assert result.weights.read_bytes() == before
