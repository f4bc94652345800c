"""The command as its users start it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from convert import pipeline
from convert.calibration_data import Inputs
from convert.conversion import resolve
from convert.settings import ConversionSettings, Model, Precision, Quantization, Verification
from convert.verification import runner
from keras_models import registry
from keras_models.checkpoints import native
from keras_models.checkpoints.load import model_arrays
from keras_models.checkpoints.native import Trained
from keras_models.checkpoints.random_weights import randomize
from keras_models.images.decode import Preprocessing
from shufflelite.progress import Progress
from tests import traps
from tests.convert.accuracy.colours import NAMES, write_bundle
from tests.forkserver import LIGHT, TENSORFLOW, run

ROOT = Path(__file__).parents[3]
Ran = subprocess.CompletedProcess[str]


def measure(
    *words: object, at: Path, without_tensorflow: bool = True, really_started: bool = False
) -> Ran:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    if without_tensorflow:
        env["PYTHONPATH"] = f"{traps.write(at / 'fakes', *traps.TENSORFLOW)}:{ROOT}"
    command = [sys.executable, "-m", "convert.accuracy", *map(str, words)]
    if really_started:
        return subprocess.run(command, cwd=at, env=env, capture_output=True, text=True)
    modules = LIGHT if without_tensorflow else TENSORFLOW
    return run(command, modules=modules, cwd=at, env=env, capture_output=True, text=True)


def test_files_are_measured_without_tensorflow(
    tmp_path: Path, colours: Path, colour_files: Mapping[str, bytes]
) -> None:
    for kind in ("red_only", "right"):
        write_bundle(tmp_path / "build" / kind, colour_files[kind], names=NAMES)
    table = measure(
        *("--models", "build/red_only/model.tflite", "build/right/model.tflite"),
        *("--data", colours, "--out=out"),
        at=tmp_path,
    )
    assert table.returncode == 0, table.stderr
    assert [line.split()[:5] for line in table.stdout.splitlines()[1:3]] == [
        ["red_only", "LiteRT", "float32", "float32", "40.00"],
        ["right", "LiteRT", "float32", "float32", "80.00"],
    ]
    printed = [
        measure("--models=build/*/model.tflite", f"--data={colours}", *words, "--json", at=tmp_path)
        for words in ([], ["--threads=1"], ["--threads=4"])
    ]
    assert len({ran.stdout for ran in printed}) == 1
    assert (tmp_path / "out" / "accuracy.json").read_text() == printed[0].stdout
    assert json.loads(printed[0].stdout)["forms"][1]["difference"]["points"] == 40
    lines = table.stderr.splitlines()
    assert [line for line in lines if not line.startswith("accuracy: ")] == []


def test_mistakes_are_one_line_and_come_without_tensorflow(
    tmp_path: Path, colours: Path, colour_files: Mapping[str, bytes]
) -> None:
    write_bundle(tmp_path / "x", colour_files["right"], names=NAMES)
    (tmp_path / "bare.tflite").write_bytes(colour_files["right"])
    (tmp_path / "file").touch()
    models, data = "--models=x/model.tflite", f"--data={colours}"
    mistakes: list[tuple[list[str], int, str]] = [
        ([], 2, "expected --models with .tflite or .safetensors files (see --help)"),
        ([models], 2, "expected --data with labelled pictures (see --help)"),
        ([models, data, "--threads=0"], 2, "Expected --threads to be at least 1, got 0."),
        ([models, data, "--mean=127.5"], 2, "expected --std too, got --mean (see --help)"),
        ([models, data, "--mean=1,2", "--std=1"], 2, "--mean: expected a number, or one for each"),
        ([models, data, "--mean=x", "--std=1"], 2, "--mean=x: expected numbers, separated by"),
        (
            [models, data, "--mean=1", "--std=0"],
            1,
            "three stds of 1e-6 to 1e6, got (0.0, 0.0, 0.0)",
        ),
        (
            [models, data, "--mean=1", "--std=1"],
            1,
            "with .tflite files without report.json, got none",
        ),
        (["--models=bare.tflite", data], 1, "bare.tflite: expected report.json beside it"),
        (["--models=no.tflite", data], 1, "no.tflite: expected a .tflite or .safetensors file, f"),
        ([models, "--data=nowhere"], 1, "nowhere: expected a folder of pictures or a .csv file"),
        ([models, data, "--out=file"], 1, "--out: file cannot be written in: File exists"),
    ]
    for words, code, message in mistakes:
        ran = measure(*words, at=tmp_path)
        assert ran.returncode == code, (words, ran.stderr)
        assert ran.stdout == ""
        *before, line = ran.stderr.splitlines()
        assert line.startswith("accuracy: "), words
        assert message in line
        assert all("pictures from" in other for other in before)
    assert measure("--help", at=tmp_path).returncode == 0


def test_a_conversion_and_the_weights_it_was_made_from_are_compared(
    tmp_path: Path, pictures: Callable[..., np.ndarray]
) -> None:
    """The same pictures, float and int8, by `convert` and by this command."""
    options = {"width": 0.25, "stem": "cifar"}
    model = registry.create("mobilenet_v1", input_shape=(32, 32, 3), num_classes=10, **options)
    randomize(model, seed=0)
    told = Trained("mobilenet_v1", options, 32, 10, None, Preprocessing(), {})
    weights = tmp_path / "net.safetensors"
    native.save(weights, model_arrays(model), told)
    images = pictures(60, 32, seed=7)
    # the best class of the float network, or the one behind it: about two thirds are right
    best = model(Preprocessing().to_input(images), training=False).numpy().argmax(axis=1)
    labels = (best + (np.arange(60) % 3 == 0)) % 10
    data = tmp_path / "x.npz"
    np.savez(data, images=images, labels=labels)
    folder, report = pipeline.run(
        resolve(
            ConversionSettings(
                Model("mobilenet_v1", options, 32, num_classes=10, weights=str(weights)),
                Quantization(precision=Precision.INT8, io_dtype="uint8", calibration=str(data)),
                Verification(data=str(data)),
                out=str(tmp_path / "build"),
            )
        ),
        Progress("test"),
    )
    printed = [
        measure(
            *(f"--models={weights}", folder / "model.tflite", "--data=x.npz", "--json"),
            f"--threads={threads}",
            at=tmp_path,
            without_tensorflow=False,
            really_started=threads == 1,
        )
        for threads in (1, 4)
    ]
    assert printed[0].returncode == 0, printed[0].stderr
    assert printed[0].stdout == printed[1].stdout
    keras, file = json.loads(printed[0].stdout)["forms"]
    assert (keras["precision"], file["precision"]) == ("float32", "int8")
    assert (file["input_dtype"], file["output_dtype"]) == ("uint8", "uint8")
    fidelity = report.fidelity
    assert fidelity.float_top1 == pytest.approx(100 * 40 / 60)
    assert keras["accuracy"]["top1"] == fidelity.float_top1
    assert keras["accuracy"]["top5"] == fidelity.float_top5
    assert file["accuracy"]["top1"] == fidelity.top1
    assert tuple(file["accuracy"]["interval"]) == fidelity.top1_interval
    assert file["difference"]["agreement"] == fidelity.agreement
    assert fidelity.top1_difference is not None
    assert tuple(file["difference"]["interval"]) == fidelity.top1_difference.interval
    inputs = Inputs("x", images, Preprocessing())
    alike = [
        int(np.argmax(logits))
        for logits in runner.run((folder / "model.tflite").read_bytes(), inputs)
    ]
    counts = {(i, j): n for i, j, n in file["confusion"]}
    assert counts == {
        (i, j): sum(a == i and b == j for a, b in zip(labels, alike, strict=True))
        for i, j in set(zip(labels.tolist(), alike, strict=True))
    }
