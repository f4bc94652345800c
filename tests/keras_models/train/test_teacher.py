"""Distillation from a network that was trained before: which ones fit, and how it resumes."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras as keras

from keras_models.checkpoints import files, native
from keras_models.checkpoints.load import model_arrays
from keras_models.images.decode import Preprocessing
from keras_models.train import distribution, outputs, teacher
from keras_models.train.run import run
from keras_models.train.settings import Augment, Data, NetworkSettings, Training, TrainingSettings
from keras_models.train.trainer import Trainer
from shufflelite.errors import InputError
from shufflelite.progress import Progress
from tests.keras_models.train.conftest import build_toy

NAMES = tuple(f"stripes{number}" for number in range(10))
pytestmark = pytest.mark.usefixtures("registered_toy")


def settings(out: Path, **training: Any) -> TrainingSettings:
    recipe = {"epochs": 2, "batch": 10, "learning_rate": 0.1, **training}
    return TrainingSettings(
        NetworkSettings("toy"),
        Data("synthetic:60", "synthetic:50"),
        str(out),
        augment=Augment(pad=1, mixup=0.1),
        training=Training(**recipe),
        save_every_s=0.0,
    )


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The folder of a completed training of a larger toy."""
    larger = replace(
        settings(tmp_path / "teacher"), network=NetworkSettings("toy", {"channels": 24})
    )
    run(larger, Progress("train"))
    return tmp_path / "teacher"


def saved(path: Path, **changes: Any) -> Path:
    """Weights of a toy with another description."""
    described = native.Trained("toy", {}, 8, 10, NAMES, Preprocessing(), {})
    described = replace(described, **changes)
    shape = (described.resolution, described.resolution, 3)
    toy = build_toy(input_shape=shape, num_classes=described.num_classes)
    native.save(path, model_arrays(toy), described)
    return path


def test_a_folder_and_its_weights_are_the_same_teacher(trained: Path, tmp_path: Path) -> None:
    found = [
        teacher.read(settings(tmp_path / "out", teacher=str(path)))
        for path in (trained, trained / outputs.LAST)
    ]
    assert found[0]
    assert found[1]
    assert found[0].identity == found[1].identity
    replicas = distribution.create("one")
    built = found[0].build(
        settings(tmp_path / "out", distillation=0.3, temperature=2.0), 8, replicas
    )
    assert (built.share, built.temperature) == (0.3, 2.0)
    expected = build_toy(channels=24)
    arrays = files.read(trained / outputs.LAST)
    expected.set_weights([arrays[name] for name in model_arrays(expected)])
    inputs = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(built.model(inputs), expected(inputs), rtol=1e-5, atol=1e-6)


def test_it_changes_what_is_learned_and_is_recorded(trained: Path, tmp_path: Path) -> None:
    alone = run(settings(tmp_path / "alone"), Progress("train"))
    taught = run(settings(tmp_path / "taught", teacher=str(trained)), Progress("train"))
    described = native.describe(taught.weights)
    assert described
    assert described.origin["settings"]["training"]["teacher"] == str(trained)
    one, other = files.read(alone.weights), files.read(taught.weights)
    assert not np.array_equal(one["classifier/kernel"], other["classifier/kernel"])


def test_from_the_teacher_alone_a_network_comes_near_to_it(trained: Path, tmp_path: Path) -> None:
    long = settings(
        tmp_path / "out", teacher=str(trained), distillation=1.0, epochs=30, weight_decay=0.0
    )
    run(replace(long, augment=Augment(crop="none", flip=False)), Progress("train"))
    rows = [row.split(",") for row in (tmp_path / "out" / "log.csv").read_text().splitlines()]
    agreement = [float(row[rows[0].index("top1")]) for row in rows[1:]]
    assert agreement[-1] > 60
    assert agreement[-1] > agreement[0]


def test_stopped_and_resumed_it_ends_with_the_same_bits(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_teacher(out: str) -> TrainingSettings:
        return settings(tmp_path / out, teacher=str(trained), temperature=3.0, ema=0.9)

    run(with_teacher("whole"), Progress("train"))
    train, left = Trainer.train, iter([True] * 7 + [False])

    def train_until(self: Trainer, *args: Any) -> tuple[float, int]:
        if not next(left):
            raise KeyboardInterrupt
        return train(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train", train_until)
        with pytest.raises(KeyboardInterrupt):
            run(with_teacher("parts"), Progress("train"))
    run(with_teacher("parts"), Progress("train"))
    for name in (outputs.LAST, outputs.BEST):
        parts, whole = ((tmp_path / out / name).read_bytes() for out in ("parts", "whole"))
        assert parts == whole


def test_another_teacher_of_that_name_is_another_training(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    path = saved(tmp_path / "weights.safetensors")
    run(settings(tmp_path / "out", teacher=str(path)), Progress("train"))
    keras.utils.set_random_seed(2)
    saved(path)
    with pytest.raises(InputError, match="initial weights, or another teacher: choose another"):
        run(settings(tmp_path / "out", teacher=str(path)), Progress("train"))


def unfit(folder: Path) -> Iterator[tuple[Path, str]]:
    yield folder / "absent", "is neither: complete that training first"
    (folder / "text.safetensors").write_text("no weights")
    yield folder / "text.safetensors", "is neither: complete that training first"
    (folder / "empty").mkdir()
    yield folder / "empty", "is neither: complete that training first"
    for name, changes, message in (
        ("resolution", {"resolution": 16}, "trained at the network's resolution of 8, got 16"),
        ("few", {"num_classes": 3, "class_names": NAMES[:3]}, "of the 10 classes of .*, got 3"),
        ("order", {"class_names": NAMES[::-1]}, "got 'stripes9' where these have 'stripes0'"),
        (
            "mean",
            {"preprocessing": Preprocessing(mean=(0.0, 0.0, 0.0))},
            r"preprocessing\.mean = \(127\.5, 127\.5, 127\.5\), got \(0\.0, 0\.0, 0\.0\)",
        ),
        ("bgr", {"preprocessing": Preprocessing(channel_order="bgr")}, "= rgb, got bgr"),
    ):
        yield saved(folder / f"{name}.safetensors", **changes), message


def test_a_teacher_that_does_not_fit_is_refused_in_one_line(tmp_path: Path) -> None:
    for path, message in unfit(tmp_path):
        with pytest.raises(InputError, match=message) as refused:
            run(settings(tmp_path / "out", teacher=str(path)), Progress("train"))
        assert re.fullmatch(r"[^\n]+\.", str(refused.value))
        assert not (tmp_path / "out").exists()


def test_a_training_does_not_teach_itself(trained: Path) -> None:
    with pytest.raises(InputError, match="to be outside of 'out', which this training writes"):
        run(settings(trained, teacher=str(trained)), Progress("train"))
