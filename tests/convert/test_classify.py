"""The command that classifies pictures, against the network itself."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convert import classify, pipeline
from convert.accuracy import models
from convert.conversion import resolve
from convert.settings import ConversionSettings, Model, Quantization
from keras_models import registry
from keras_models.checkpoints import bundled, native, read_weights
from keras_models.checkpoints.load import load_weights, model_arrays
from keras_models.checkpoints.random_weights import randomize
from keras_models.images import decode
from keras_models.images.decode import Preprocessing
from shufflelite.progress import Progress
from tests import forkserver
from tests.forkserver import LIGHT, TENSORFLOW

pytestmark = pytest.mark.usefixtures("tensorflow_as_it_was")

ROOT = Path(__file__).parents[2]
OPTIONS = {"width": 0.25, "stem": "cifar"}
NAMES = ("cat", "dog", "sea lion")
SEEN = Preprocessing((120.0, 110.0, 100.0), (60.0, 70.0, 80.0), "bgr", 0.8, "bicubic")


@pytest.fixture(scope="module")
def network() -> Any:
    model = registry.create("mobilenet_v1", input_shape=(32, 32, 3), num_classes=3, **OPTIONS)
    randomize(model, seed=0)
    return model


@pytest.fixture(scope="module")
def model_file(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The float file of a network whose weights say all there is to know."""
    folder = tmp_path_factory.mktemp("bundle")
    described = native.Trained("mobilenet_v1", OPTIONS, 32, 3, NAMES, SEEN, {})
    native.save(folder / "weights.safetensors", model_arrays(network), described)
    model = Model("mobilenet_v1", weights=str(folder / "weights.safetensors"))
    place, _ = pipeline.run(
        resolve(ConversionSettings(model, Quantization(), out=str(folder))), Progress("test")
    )
    assert place.name == "mobilenet_v1_x0.25_cifar_32_float32"
    return place / "model.tflite"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, pictures: Callable[..., np.ndarray]) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i, pixels in enumerate(pictures(4, 64, seed=5)):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def test_a_picture_is_classified_as_the_float_network_does(
    model_file: Path, folder: Path, network: Any
) -> None:
    (form,) = models.read_all([str(model_file)])
    files = classify.find([str(folder), str(folder / "2.png")])
    assert [file.name for file in files] == ["0.png", "1.png", "2.png", "3.png", "2.png"]
    answers = classify.classify(form, files)
    pixels = np.stack([decode.load_picture(f, resolution=32, preprocessing=SEEN) for f in files])
    inputs = (pixels[..., ::-1] - np.array(SEEN.mean)) / np.array(SEEN.std)
    logits = network(inputs.astype(np.float32), training=False).numpy().astype(np.float64)
    odds = np.exp(logits)
    for answer, file, of_picture in zip(answers, files, odds, strict=True):
        assert answer.picture == str(file)
        assert answer.label == NAMES[of_picture.argmax()]
        assert answer.score == pytest.approx(100 * of_picture.max() / of_picture.sum(), abs=0.01)
    assert answers[2] == answers[4]


def test_without_labels_classes_are_numbers(model_file: Path, folder: Path, tmp_path: Path) -> None:
    for name in ("model.tflite", "report.json"):
        shutil.copy(model_file.with_name(name), tmp_path / name)
    (form,) = models.read_all([str(tmp_path / "model.tflite")])
    answers = classify.classify(form, classify.find([str(folder)]))
    assert {answer.label for answer in answers} <= {"0", "1", "2"}


def test_a_file_alone_is_read_as_in_its_bundle(
    model_file: Path, folder: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone.tflite"
    shutil.copy(model_file, alone)
    (bundled_file,) = models.read_all([str(model_file)])
    (form,) = models.read_all([str(alone)])
    assert (form.preprocessing, form.class_names) == (SEEN, NAMES)
    files = classify.find([str(folder)])
    assert classify.classify(form, files) == classify.classify(bundled_file, files)


def test_flags_go_over_the_metadata_of_a_file_alone(
    model_file: Path, folder: Path, tmp_path: Path
) -> None:
    shutil.copy(model_file, tmp_path / "alone.tflite")
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    flags = ["--mean=0,0,0", "--std=1", "--channel_order=rgb", "--crop_fraction=1"]
    words = [str(tmp_path / "alone.tflite"), str(folder), f"--labels={tmp_path}/names.txt"]
    answers = []
    for more in ([], flags):
        done = run(*words, *more, "--json")
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout))
    assert {answer["label"] for side in answers for answer in side} <= {"a", "b", "c"}
    scores = [[answer["score"] for answer in side] for side in answers]
    assert scores[0] != scores[1]


def run(*words: str, trap: Path | None = None) -> subprocess.CompletedProcess[str]:
    return forkserver.run(
        [sys.executable, "-m", "convert.classify", *words],
        modules=LIGHT if trap else TENSORFLOW,
        cwd=ROOT,
        env={"PYTHONPATH": str(trap)} if trap else None,
        capture_output=True,
        text=True,
    )


def test_help_and_wrong_words_come_without_tensorflow(model_file: Path, trap: Path) -> None:
    for words, code, message in (
        (["--help"], 0, ""),
        ([], 2, "classify: expected a .tflite file, and pictures"),
        ([str(model_file)], 2, "classify: expected a .tflite file, and pictures"),
    ):
        done = run(*words, trap=trap)
        assert (done.returncode, message in done.stderr) == (code, True), done.stderr
        assert len(done.stderr.splitlines()) == (code > 0)


def test_what_cannot_be_read_is_one_line(model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "no.png").write_bytes(b"no picture")
    for words, message in (
        (["no.tflite", "x.png"], "classify: no.tflite: expected a .tflite or .safetensors file"),
        ([str(model_file), "b.tflite", "x.png"], "got b.tflite, a second one: classify with one"),
        ([str(model_file), f"{tmp_path}/no.png"], "no.png: cannot be decoded"),
    ):
        done = run(*words)
        assert (done.returncode, message in done.stderr) == (1, True), done.stderr
        assert len(done.stderr.splitlines()) == 1
    command = [sys.executable, "-m", "convert.classify", *words]
    started = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (started.returncode, started.stderr) == (done.returncode, done.stderr)


@pytest.mark.skipif(not bundled.find("shufflenet_v2"), reason="no bundled ShuffleNet V2")
def test_the_demo_knows_what_its_pictures_show_as_the_float_network_does(tmp_path: Path) -> None:
    forkserver.proxy(tmp_path / "python")
    plan = ["make", "--dry-run", "demo", f"BIN={tmp_path}", f"OUT={tmp_path}"]
    said = subprocess.run(plan, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    convert, classified = [line for line in said.splitlines() if " -m convert" in line]
    for command in (convert, f"{classified} --json"):
        done = subprocess.run(["sh", "-c", command], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    answers = {answer["picture"]: answer["label"] for answer in json.loads(done.stdout)}
    drawn = sorted((ROOT / "examples").glob("*.png"))
    assert answers == {f"examples/{path.name}": path.stem for path in drawn}
    assert len(drawn) >= 6

    found = bundled.find("shufflenet_v2")
    assert found
    model = registry.create(
        "shufflenet_v2", input_shape=(32, 32, 3), num_classes=10, **found.trained.options
    )
    load_weights(model, read_weights(found.path).arrays, origin="bundled")
    assert found.trained.class_names
    for path in drawn:
        with Image.open(path) as picture:
            small = np.asarray(picture.resize((32, 32), Image.Resampling.BILINEAR), np.float32)
        (logits,) = model(small[None] / 127.5 - 1, training=False).numpy()
        assert found.trained.class_names[logits.argmax()] == answers[f"examples/{path.name}"]
