"""Whole conversions of a toy: bundles, reports, and the same bytes again."""

import dataclasses
import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convert import auto_mixed_precision, pipeline
from convert.accuracy import models
from convert.bundle.report import ConversionReport
from convert.conversion import resolve
from convert.settings import ConversionSettings, Model, Precision, Quantization, Verification
from convert.verification import verify
from keras_models.images.decode import load_picture
from shufflelite.errors import InputError
from shufflelite.progress import Progress

pytestmark = pytest.mark.usefixtures("tensorflow_as_it_was")

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
TOY = Model(
    "shufflenet_v2",
    {"width": 0.5, "stem": "cifar"},
    resolution=32,
    num_classes=10,
    weights="random",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, pictures: Callable[..., np.ndarray]) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(TOY.num_classes):
        (folder / f"class{i}").mkdir()
    for i, pixels in enumerate(pictures(6, 64, seed=5)):
        Image.fromarray(pixels).save(folder / f"class{i % 3}" / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def twice(
    tmp_path_factory: pytest.TempPathFactory, folder: Path
) -> tuple[tuple[Path, ConversionReport], tuple[Path, ConversionReport]]:
    """The same conversion to two places."""
    runs = [
        pipeline.run(
            resolve(
                ConversionSettings(
                    TOY,
                    Quantization(precision=Precision.INT8, calibration=str(folder)),
                    Verification(data=str(folder), min_sqnr_db=5.0, max_accuracy_drop=100.0),
                    out=str(tmp_path_factory.mktemp("out")),
                )
            ),
            Progress("test"),
        )
        for _ in range(2)
    ]
    return runs[0], runs[1]


def test_the_same_settings_give_the_same_file(twice: Any) -> None:
    (one, _), (other, _) = twice
    assert one != other
    assert (one / "model.tflite").read_bytes() == (other / "model.tflite").read_bytes()
    assert (one / "README.md").read_bytes() == (other / "README.md").read_bytes()


def test_the_report_is_about_the_file_beside_it(twice: Any, folder: Path) -> None:
    (place, report), _ = twice
    data = (place / "model.tflite").read_bytes()
    written = json.loads((place / "report.json").read_text())
    assert written["sha256"] == report.sha256 == hashlib.sha256(data).hexdigest()
    assert written["audit"]["size_bytes"] == len(data)
    assert verify.audit(data) == report.audit
    assert place.name == "shufflenet_v2_x0.5_cifar_32_int8"
    assert (report.calibration.count, report.verified_on.count) == (6, 6)
    assert report.verified_on.origin == str(folder)
    assert report.weights.origin == "random"
    assert report.params == 352_042
    assert report.fidelity.float_top1 is not None
    assert [gate.flag for gate in report.gates] == ["max_accuracy_drop", "min_sqnr_db"]
    assert report.passed


def test_what_speaks_against_the_file_is_in_report_card_and_console(
    twice: Any, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place, report), _ = twice
    assert report.warnings[0] == "too few calibration pictures: 6; about 200 are enough"
    assert json.loads((place / "report.json").read_text())["warnings"] == [*report.warnings]
    limits = (place / "README.md").read_text().partition("## Limits")[2]
    for warning in report.warnings:
        assert f"- {warning[0].upper()}{warning[1:]}.\n" in limits
    grouped = ConversionSettings(
        Model("shufflenet_v1", {"width": 0.25, "stem": "cifar"}, 32, num_classes=4),
        out=str(tmp_path),
    )
    _, report = pipeline.run(resolve(grouped), Progress("test"))
    (warning,) = report.warnings
    assert warning.startswith("this file must not be given to a GPU: ")
    assert f"test: warning: {warning}\n" in capsys.readouterr().err


def test_the_card_beside_the_file_runs_it(twice: Any, folder: Path) -> None:
    (place, _), _ = twice
    card = (place / "README.md").read_text()
    assert "RANDOM WEIGHTS" in card
    picture = next(folder.rglob("*.png"))
    (code,) = re.findall(r"^```python\n(.*?)^```$", card, re.MULTILINE | re.DOTALL)
    words = [sys.executable, "-c", code, picture]
    ran = subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=1200)
    (form,) = models.read_all([str(place / "model.tflite")])
    pixels = load_picture(picture, resolution=32, preprocessing=form.preprocessing)
    (logits,) = form.make()(pixels[None])
    assert ran.stdout.split() == [str(logits.argmax()), str(logits.max())], ran.stderr


@pytest.mark.slow
def test_layers_at_higher_precision_are_in_the_report_and_in_the_file(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto_mixed_precision, "FIRST_ROUND", 8)
    monkeypatch.setattr(auto_mixed_precision, "MAX_LAYERS", 2)
    settings = ConversionSettings(
        TOY,
        Quantization(
            precision=Precision.INT8,
            calibration=str(folder),
            equalization=True,
            keep_float=("stage4_unit4_*",),
            int16=("classifier",),
            auto_precision=True,
        ),
        Verification(min_sqnr_db=199.0),
        out=str(tmp_path),
    )
    place, report = pipeline.run(resolve(settings), Progress("test"))
    assert place.name == "shufflenet_v2_x0.5_cifar_32_int8_mixed"
    chosen = [layer for layer in report.mixed.layers if layer.gain_db is None]
    found = [layer for layer in report.mixed.layers if layer.gain_db is not None]
    assert {(x.layer, x.operator) for x in chosen if x.dtype == "float32"} >= {
        ("stage4_unit4_expand", "CONV_2D"),
        ("stage4_unit4_depthwise", "DEPTHWISE_CONV_2D"),
    }
    assert [x.layer for x in chosen if x.dtype == "int16"] == ["classifier"]
    assert all(x.dtype == "float32" for x in found)
    kept = Counter(x.operator for x in report.mixed.layers if x.dtype == "float32")
    assert report.audit.float_operators == kept
    types = report.audit.operators
    assert report.mixed.operators == types["QUANTIZE"] + types["DEQUANTIZE"]
    assert report.audit.delegate_partitions == 1 + report.mixed.partitions
    assert not report.passed
    written = json.loads((place / "report.json").read_text())
    assert [x["layer"] for x in written["mixed"]["layers"]] == [
        x.layer for x in report.mixed.layers
    ]
    assert "| higher precision | " in (place / "README.md").read_text()


def test_an_accuracy_gate_without_labels_is_refused(tmp_path: Path) -> None:
    settings = ConversionSettings(
        dataclasses.replace(TOY, name="mobilenet_v1", options={"width": 0.25}),
        Quantization(precision=Precision.FLOAT32),
        Verification(max_accuracy_drop=1.0),
        out=str(tmp_path / "out"),
    )
    with pytest.raises(InputError, match="--max_accuracy_drop needs labels"):
        pipeline.run(resolve(settings), Progress("test"))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no pictures and weights in {SHARED}")
def test_a_trained_mobilenet_keeps_its_accuracy(tmp_path: Path) -> None:
    labels = SHARED / "photos" / "labels.csv"
    settings = ConversionSettings(
        Model(
            "mobilenet_v1",
            {"width": 0.25},
            weights=str(SHARED / "mobilenet_v1_0.25_224_imagenet.h5"),
            labels=str(SHARED / "imagenet_labels.txt"),
        ),
        Quantization(precision=Precision.INT8, calibration=str(labels)),
        Verification(data=str(labels)),
        out=str(tmp_path),
    )
    place, report = pipeline.run(resolve(settings), Progress("test"))
    assert report.fidelity.inputs == 200
    assert report.fidelity.float_top1 > 55  # 61.5 of these 200 photographs
    assert report.fidelity.top1 >= report.fidelity.float_top1 - 3
    assert report.fidelity.agreement >= 85
    assert report.audit.float_operators == {}
    assert report.audit.requantizations == 0
    assert report.audit.delegate_partitions == 1
    assert len((place / "labels.txt").read_text().splitlines()) == 1000


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no pictures and weights in {SHARED}")
def test_data_free_a_trained_shufflenet_v1_does_not_clip_the_logits_of_photographs(
    tmp_path: Path,
) -> None:
    settings = ConversionSettings(
        Model(
            "shufflenet_v1",
            {"width": 0.5, "groups": 3},
            weights=str(SHARED / "megvii_shufflenet_v1_0.5x_g3.pth.tar"),
        ),
        Quantization(precision=Precision.INT8),
        Verification(data=str(SHARED / "photos" / "labels.csv")),
        out=str(tmp_path),
    )
    _, report = pipeline.run(resolve(settings), Progress("test"))
    output = report.audit.output
    assert (127 - output.zero_point) * output.scale >= 17  # the largest of the photographs is 17.2
    assert report.fidelity.top1 >= report.fidelity.float_top1 - 3.5
    assert report.fidelity.agreement >= 86
    assert not any("synthetic inputs" in warning for warning in report.warnings)
