"""Bundles: whole or not at all, what is in them, and what is not replaced."""

import dataclasses
import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from convert.autotune import TuningGain
from convert.bundle import writer
from convert.bundle.report import ConversionReport, InputsOrigin, rows, to_json
from convert.network import WeightsOrigin
from convert.settings import (
    ConversionSettings,
    Lowering,
    Model,
    Precision,
    Quantization,
    Verification,
)
from convert.verification.gates import Gate
from convert.verification.runner import IoTensor
from convert.verification.verify import Audit, Fidelity, LayerFidelity
from keras_models.accuracy import Difference
from keras_models.images.decode import Preprocessing
from shufflelite.errors import InputError

FILES = ("model.tflite", "report.json", "README.md", "labels.txt")


def make_report(data: bytes = b"new", *, passed: bool = True) -> ConversionReport:
    quantization = Quantization(precision=Precision.INT8, io_dtype="uint8")
    return ConversionReport(
        settings=ConversionSettings(
            Model("mobilenet_v1", {"width": 0.25}),
            quantization,
            Verification(min_agreement=90.0, min_sqnr_db=15.0),
        ),
        options={"width": 0.25, "padding": "bottom_right"},
        params=470_072,
        multiply_adds=41_000_000,
        weights=WeightsOrigin("weights.h5", "keras_applications", "ab" * 32),
        preprocessing=Preprocessing(),
        forms=(TuningGain("grouped convolutions at 28x28", "sliced", 0.97),),
        calibration=InputsOrigin("photos", 200, "cd" * 32, ("broken.jpg",)),
        verified_on=InputsOrigin("labels.csv", 50, "ef" * 32, ()),
        sha256=hashlib.sha256(data).hexdigest(),
        audit=Audit(
            size_bytes=len(data),
            input=IoTensor("image", 0, "uint8", (1, 224, 224, 3), 1 / 127.5, 128),
            output=IoTensor("logits", 88, "uint8", (1, 1000), 0.1, 100),
            operators={"CONV_2D": 14, "DEPTHWISE_CONV_2D": 13, "QUANTIZE": 2},
            float_operators={},
            grouped_convolutions=0,
            requantizations=0,
            delegate_partitions=1,
            undelegated_operators={"MEAN": 1},
            loads_in_tflite_runtime=False,
        ),
        fidelity=Fidelity(
            inputs=50,
            agreement=92.5,
            sqnr_db=21.25,
            float_top1=60.0,
            float_top5=86.0,
            top1=58.0,
            top5=84.0,
            float_top1_interval=(46.2, 72.4),
            top1_interval=(44.2, 70.6),
            top1_difference=Difference(-2.0, (-9.1, 5.4), 92.5, 2, 1),
            layers=(LayerFidelity("conv1", 30.125),),
        ),
        gates=(
            Gate("min_agreement", 90.0, 92.5, passed=True),
            Gate("min_sqnr_db", 15.0, 21.25, passed=passed),
        ),
        versions={"tensorflow": "2.21.0"},
    )


def contents(folder: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out" / "net_int8"


@pytest.fixture(params=["swap", "no swap"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system can swap two folders in one step, and where it cannot."""
    if request.param == "no swap":
        monkeypatch.setattr(writer, "_swap", lambda one, other: False)


def fail_at(
    monkeypatch: pytest.MonkeyPatch, folder: Any, name: str, call: int, error: BaseException
) -> None:
    real, calls = getattr(folder, name), 0

    def failing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(folder, name, failing)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (ConversionSettings(Model("shufflenet_v2")), "shufflenet_v2_224_float32"),
        (
            ConversionSettings(
                Model(
                    "shufflenet_v2",
                    {"stem": "cifar", "allow_any_width": True, "width": 0.5, "variant": "megvii"},
                    resolution=32,
                ),
                Quantization(precision=Precision.INT8),
                out="build/deep",
            ),
            "shufflenet_v2_x0.5_cifar_megvii_32_int8",
        ),
        (
            ConversionSettings(Model("mobilenet_v1", {"width": 0.25}, resolution_multiplier=4 / 7)),
            "mobilenet_v1_x0.25_128_float32",
        ),
        (
            ConversionSettings(
                Model("shufflenet_v1"), Quantization(precision=Precision.INT8, scores=True)
            ),
            "shufflenet_v1_224_int8_scores",
        ),
        (
            ConversionSettings(Model("shufflenet_v1"), lowering=Lowering(target="emulated:a53")),
            "shufflenet_v1_224_float32_emulated_a53",
        ),
        (
            ConversionSettings(Model("shufflenet_v1"), lowering=Lowering(way="direct")),
            "shufflenet_v1_224_float32_direct",
        ),
    ],
)
def test_a_bundle_is_named_after_what_it_is(settings: ConversionSettings, name: str) -> None:
    assert writer.folder(settings) == Path(settings.out) / name


@pytest.mark.usefixtures("system")
def test_a_bundle_holds_the_file_its_labels_and_its_report(folder: Path) -> None:
    writer.write(folder, b"new", make_report(), ("tench", "goldfish"))
    written = contents(folder)
    assert sorted(written) == sorted(FILES)
    assert written["model.tflite"] == b"new"
    assert written["labels.txt"] == b"tench\ngoldfish\n"
    assert written["report.json"] == to_json(make_report()).encode()
    assert b"class Classifier" in written["README.md"]
    assert os.listdir(folder.parent) == [folder.name]


@pytest.mark.usefixtures("system")
def test_an_older_bundle_is_replaced_with_all_its_files(folder: Path) -> None:
    writer.write(folder, b"old", make_report(b"old"), ("tench", "goldfish"))
    writer.check_writable(folder)
    writer.write(folder, b"new", make_report(), None)
    assert sorted(contents(folder)) == ["README.md", "model.tflite", "report.json"]
    assert (folder / "model.tflite").read_bytes() == b"new"
    assert os.listdir(folder.parent) == [folder.name]


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize("written", [1, 2, 3, 4])
@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(errno.ENOSPC, "disk full")])
@pytest.mark.parametrize("exists", [True, False])
def test_a_run_that_stops_while_writing_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, written: int, stop: BaseException, exists: bool
) -> None:
    if exists:
        writer.write(folder, b"old", make_report(b"old"), None)
        before = contents(folder)
    fail_at(monkeypatch, os, "fsync", written, stop)
    with pytest.raises(InputError if isinstance(stop, OSError) else KeyboardInterrupt):
        writer.write(folder, b"new", make_report(), ("tench",))
    if exists:
        assert contents(folder) == before
        assert os.listdir(folder.parent) == [folder.name]
    else:
        assert not folder.parent.exists()


@pytest.mark.parametrize("renamed", [1, 2])
@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(errno.EIO, "broken")])
def test_a_run_that_stops_while_changing_names_keeps_the_old_bundle(
    folder: Path, monkeypatch: pytest.MonkeyPatch, renamed: int, stop: BaseException
) -> None:
    writer.write(folder, b"old", make_report(b"old"), None)
    before = contents(folder)
    monkeypatch.setattr(writer, "_swap", lambda one, other: False)
    fail_at(monkeypatch, Path, "rename", renamed, stop)
    with pytest.raises((InputError, KeyboardInterrupt)):
        writer.write(folder, b"new", make_report(), ("tench",))
    assert contents(folder) == before
    assert os.listdir(folder.parent) == [folder.name]


def test_files_of_a_killed_run_do_not_get_into_the_next(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:  # nothing runs behind SIGKILL, clean-up neither
        killed.setattr("shutil.rmtree", lambda *args, **kwargs: None)
        fail_at(killed, os, "fsync", 4, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            writer.write(folder, b"old", make_report(b"old"), ("tench", "goldfish"))
    assert os.listdir(folder.parent) != []
    writer.write(folder, b"new", make_report(), None)
    assert sorted(contents(folder)) == ["README.md", "model.tflite", "report.json"]
    assert os.listdir(folder.parent) == [folder.name]


def test_what_is_not_a_bundle_is_not_replaced(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="exists and is not a bundle: move it"):
        writer.check_writable(folder)
    folder.with_name("file").write_text("x")
    with pytest.raises(InputError, match="exists and is not a bundle"):
        writer.check_writable(folder.with_name("file"))
    assert (folder / "thesis.tex").read_text() == "years of work"


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="Expected a folder that can be written for --out"):
        writer.check_writable(tmp_path / "file" / "net_int8")


def test_checking_a_folder_leaves_nothing_there(folder: Path) -> None:
    writer.check_writable(folder)
    assert not folder.parent.exists()


def test_the_same_report_gives_the_same_bytes_in_any_folder(folder: Path, tmp_path: Path) -> None:
    other, report = tmp_path / "elsewhere" / folder.name, make_report()
    settings = dataclasses.replace(report.settings, out=str(tmp_path / "elsewhere"))
    writer.write(folder, b"new", report, ("tench",))
    writer.write(other, b"new", dataclasses.replace(report, settings=settings), ("tench",))
    assert contents(folder) == contents(other)


def test_the_report_for_machines_has_every_figure() -> None:
    written = json.loads(to_json(make_report()))
    assert written["sha256"] == hashlib.sha256(b"new").hexdigest()
    assert written["settings"]["quantization"]["precision"] == "int8"
    assert written["settings"]["verification"]["min_agreement"] == 90.0
    assert written["audit"]["input"]["shape"] == [1, 224, 224, 3]
    assert written["audit"]["operators"] == {"CONV_2D": 14, "DEPTHWISE_CONV_2D": 13, "QUANTIZE": 2}
    assert written["fidelity"]["layers"] == [{"name": "conv1", "sqnr_db": 30.125}]
    assert written["calibration"]["skipped"] == ["broken.jpg"]
    assert written["gates"][0] == {
        "flag": "min_agreement",
        "limit": 90.0,
        "value": 92.5,
        "passed": True,
        "interval": None,
    }


def test_the_table_for_people_has_the_figures_that_matter() -> None:
    table = dict(rows(make_report(passed=False)))
    assert table["parameters"] == "470,072"
    assert table["output"].endswith(": logits")
    assert table["apps"].endswith("accept it, but show logits as scores: pass --scores")
    top1 = "float 60.0 % (46.2 to 72.4), file 58.0 % (44.2 to 70.6), with 95 % intervals"
    assert table["top-1"] == top1
    assert table["difference"] == "-2.0 points (-9.1 to 5.4)"
    assert table["XNNPACK"] == "1 partition, outside: 1 MEAN"
    assert table["tflite-runtime"] == "does NOT run it"
    assert table["form"].endswith("grouped convolutions at 28x28: sliced (0.970)")
    timed = dict(rows(dataclasses.replace(make_report(), float32_ratio=0.931)))
    assert timed["form"].endswith("; float32 would take 0.93 of the time")
    assert table["calibrated on"] == "200 inputs: photos, 1 unreadable"
    assert table["gate min_agreement"] == "92.50, limit 90: passed"
    assert table["gate min_sqnr_db"] == "21.25, limit 15: MISSED"


@pytest.mark.parametrize("passed", [True, False])
def test_a_report_passes_where_all_its_gates_do(passed: bool) -> None:
    assert make_report(passed=passed).passed is passed
