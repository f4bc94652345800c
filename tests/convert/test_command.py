"""The command as users start it: its answers to mistakes, and what it leaves on disk."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keras_models import registry
from tests import forkserver
from tests.convert.places import contents
from tests.forkserver import LIGHT, TENSORFLOW

Ran = subprocess.CompletedProcess[str]
ROOT = Path(__file__).parents[2]
NARROW = ROOT / "tests" / "keras_models" / "golden" / "narrow.pth"
MOBILENET = ("--model=mobilenet_v1", "--width=0.25", "--resolution=32", "--num_classes=10")
SHUFFLENET = (
    *("--model=shufflenet_v2", "--width=0.5", "--stem=cifar"),
    *("--resolution=32", "--num_classes=10", "--weights=random", "--int8"),
)
EARLIER = ("shufflenet_v2_x0.5_cifar_32_int8", "mobilenet_v1_x0.25_32_float32")
HARD = "mobilenet_v1_x0.25_32_int8"
HARD_NAME = "blanks, 'quotes\", $HOME; ünïcødé 😀"

# In the words, @ is the folder of this module's files.
FOUND_AT_ONCE = {  # mistake: (words, exit code, what the line says)
    "unknown model": (["--model=shuflenet_v2"], 1, "'shuflenet_v2'. Did you mean 'shufflenet_v2'?"),
    "no model": (["--int8"], 2, "expected --model NAME or --config FILE"),
    "stray word": ([*SHUFFLENET, "word"], 2, "expected flags only, got 'word'"),
    "unknown flag": (["--modle=x"], 2, "'modle'. Did you mean: model ?"),
    "width that is no number": (["--width=abc"], 2, "--width=abc: expected a number"),
    "unknown precision": (["--precision=int4"], 2, "should be one of <float32|float16|"),
    "precision given twice": (
        ["--model=mobilenet_v1", "--int8", "--precision=float32"],
        2,
        "--int8 contradicts --precision float32",
    ),
    "uint8 ends of a float file": (
        [*MOBILENET, "--io_dtype=uint8"],
        1,
        "--io_dtype uint8 needs --precision int8, got float32",
    ),
    "int8 ends of an int16 file": (
        [*MOBILENET, "--io_dtype=int8", "--precision=int16x8"],
        1,
        "--io_dtype int8 needs --precision int8, got int16x8",
    ),
    "an option given twice": (
        [*MOBILENET, "--option=width=0.5"],
        2,
        "--width and --option width=0.5: expected one of them",
    ),
    "an option without a value": ([*MOBILENET, "--option=width"], 1, "expected NAME=VALUE"),
    "resolution 0": ([*MOBILENET, "--resolution=0"], 2, "at least 1, got 0"),
    "infinite multiplier": ([*MOBILENET, "--resolution_multiplier=inf"], 2, "got inf"),
    "multiplier that is no number": (["--config=@nan.toml"], 1, "to be a number, got nan"),
    "gate that is no number": (
        [*MOBILENET, "--min_sqnr_db=nan"],
        2,
        "--min_sqnr_db to be a number, got nan",
    ),
    "equalizing a float file": (
        [*MOBILENET, "--equalize"],
        1,
        "--equalize is for int8 and int16x8",
    ),
    "layers of a float file": (
        [*MOBILENET, "--keep_float=conv1"],
        1,
        "--keep_float is about layers of an int8 file, got float32: pass --int8",
    ),
    "int16 layers of an int16 file": (
        [*MOBILENET, "--int16=conv1", "--precision=int16x8"],
        1,
        "--int16 is about layers of an int8 file, got int16x8",
    ),
    "precision without a limit": (
        [*SHUFFLENET, "--auto_precision"],
        1,
        "until the gates are passed: pass --max_accuracy_drop, --min_agreement or --min_sqnr_db",
    ),
    "a target that is none": (
        [*SHUFFLENET, "--target=hots"],
        1,
        "Expected --target to be generic, host, emulated:CORE, adb,",
    ),
    "pictures to train on that are not there": (
        [*SHUFFLENET, "--qat_epochs=1", "--qat_data=@no"],
        1,
        "no', which is not there",
    ),
    "pictures to train on without int8": (
        [*MOBILENET, "--qat_data=@no"],
        1,
        "--qat_data trains int8: pass --int8, or leave it out.",
    ),
    "tuning for no target": ([*SHUFFLENET, "--tune"], 1, "--tune measures: pass --target host,"),
    "tuning the direct form": (
        [*SHUFFLENET, "--lowering=direct", "--target=host"],
        1,
        "--lowering direct is the same for all targets",
    ),
    "a size that shrinks": ([*SHUFFLENET, "--max_size_growth=-1"], 2, "--max_size_growth to be"),
    "negative seed": ([*MOBILENET, "--seed=-1"], 2, "--seed to be at least 0, got -1"),
    "no classes": (
        ["--model=mobilenet_v1", "--set=model.num_classes=0"],
        1,
        "'num_classes' to be at least 1",
    ),
    "missing weights": ([*MOBILENET, "--weights=@no.h5"], 1, "no.h5', which is not there"),
    "bundled weights of a network without": (
        ["--model=alexnet", "--weights=bundled"],
        1,
        "), got alexnet: set --weights to a file, imagenet or random.",
    ),
    "weights in a folder": ([*MOBILENET, "--weights=@good"], 1, "good', which is a folder"),
    "missing labels": ([*MOBILENET, "--labels=@no.txt"], 1, "--labels to be a file with a class"),
    "missing pictures": ([*SHUFFLENET, "--calibration=@no"], 1, "no', which is not there"),
    "calibration without name": ([*SHUFFLENET, "--calibration="], 1, "got '', which is not there"),
    "empty folder": ([*SHUFFLENET, "--calibration=@empty"], 1, "expected pictures (.avif .bmp"),
    "csv with a missing file": (
        [*SHUFFLENET, "--calibration=@missing.csv"],
        1,
        "line 3: 'good/none.png' is not a file",
    ),
    "missing data": ([*SHUFFLENET, "--data=@no.csv"], 1, "Expected --data to be a folder of"),
    "missing config": (["--config=@no.toml"], 1, "expected a TOML file (No such file"),
    "invalid config": (["--config=@invalid.toml"], 1, "not valid TOML: Expected ']'"),
    "unknown key": (["--config=@key.toml"], 1, "[model]: unknown key 'nmae'. Did you mean 'name'?"),
    "unknown --set": (
        [*MOBILENET, "--set=model.lables=1"],
        1,
        "unknown key 'lables'. Did you mean 'labels'?",
    ),
    "malformed --set": ([*MOBILENET, "--set=width"], 1, "--set width: expected section.key=value"),
    "mistyped --set": (
        [*MOBILENET, "--set=seed=one"],
        1,
        "expected 'seed' to be an integer, got 'one'",
    ),
    "missing flagfile": (["--flagfile=@no"], 2, "Unable to open flagfile"),
    "--out in a file": ([*SHUFFLENET, "--out=@invalid.toml"], 1, "(Not a directory)"),
    "--out that is too long": ([*SHUFFLENET, f"--out={'x' * 300}"], 1, "File name too long"),
    "--out in the kernel": (
        [*SHUFFLENET, "--out=/proc/build"],
        1,
        "Expected a folder that can be written for --out, got /proc/build",
    ),
    "something else in place of the app": (
        [*SHUFFLENET, "--android_app=@good"],
        1,
        "Expected --android_app to be a new folder, an empty one or an app made by it, got",
    ),
    "an app in the bundle": (
        [*SHUFFLENET, f"--android_app=build/{EARLIER[0]}/app"],
        1,
        f"Expected --android_app outside of the bundle's folder build/{EARLIER[0]}, got build",
    ),
    "something else in place of the bundle": (
        [*SHUFFLENET, "--out=@taken"],
        1,
        "exists and is not a bundle: move it, or choose another --out",
    ),
}
FOUND_WITH_THE_NETWORK = {  # mistake: (words, what the line says)
    "width": (["--model=shufflenet_v2", "--width=0.6"], "0.5, 1.0, 1.5, 2.0, got 0.6: allow_"),
    "resolution": (
        ["--model=shufflenet_v2", "--resolution=31"],
        "Expected a resolution of at least 32 (the network's total stride), got 31",
    ),
    "layers that the network does not have": (
        [*SHUFFLENET, "--keep_float=conv1,stage2_dephtwise"],
        "--keep_float to name layers, got 'stage2_dephtwise', which none has: there are stage",
    ),
    "resolution multiplier": (
        ["--model=mobilenet_v1", "--resolution=64", "--resolution_multiplier=0.4"],
        "Expected a resolution of at least 32 (the network's total stride), got 26",
    ),
    "weights of another network": (
        [*SHUFFLENET, "--weights=@mobilenet12.h5"],
        "Are these the weights of another network or width?",
    ),
    "weights for other classes": (
        [*MOBILENET, "--weights=@mobilenet12.h5"],
        "expected weights for 10 classes, got 12: pass --num_classes 12",
    ),
    "weights that are no numbers": (
        [*MOBILENET, "--weights=@nan.npz"],
        "expected finite numbers, got others in conv1/kernel",
    ),
    "half a file of weights": (
        [*MOBILENET, "--weights=@half.h5"],
        "half.h5: expected Keras weights in HDF5, but these",
    ),
    "text for weights": (
        [*MOBILENET, "--weights=@text.h5"],
        "text.h5: expected Keras weights in HDF5, but these 5 bytes are",
    ),
    "weights of ONNX": (
        [*MOBILENET, "--weights=@network.onnx"],
        "network.onnx: expected weights in a file that ends in .h5, ",
    ),
    "a cut off file of PyTorch": (
        [*MOBILENET, "--weights=@torch.pth"],
        "torch.pth: expected weights of PyTorch, but these 5 bytes are incomplete",
    ),
    "a pickle that is a program": (
        [*MOBILENET, "--weights=@program.pth"],
        "program.pth: it is a pickle, but not of torch.save",
    ),
    "weights of another network of PyTorch": (
        [*MOBILENET, f"--weights={NARROW}"],
        "these are the weights of megvii shufflenet_v1: expected --model to be shufflenet_v1, got",
    ),
    "an option that the weights contradict": (
        ["--model=shufflenet_v1", f"--weights={NARROW}", "--groups=8"],
        "the weights of megvii shufflenet_v1 need groups=3, got 8: leave it out",
    ),
    "weights of another width": (
        ["--model=shufflenet_v1", f"--weights={NARROW}", "--num_classes=10"],
        "of another shape (conv1/kernel: (3, 3, 3, 3) instead of (3, 3, 3, 24)",
    ),
    "weights of another source": (
        [*MOBILENET, f"--weights={NARROW}", "--source=torchvision"],
        "narrow.pth: expected the weights of a network of torchvision, found those of megvii shuff",
    ),
    "variances below zero": (
        [*MOBILENET, "--weights=@variance.npz"],
        "variance.npz: expected variances in conv1_bn/moving_variance, got negative numbers",
    ),
    "unknown source": (
        [*MOBILENET, f"--weights={NARROW}", "--source=caffe"],
        "Expected the weights' source to be one of shufflelite, keras, torchvision, megvii, ",
    ),
    "unknown option": (
        [*MOBILENET, "--option=residual=true"],
        "mobilenet_v1 has no option 'residual'; it takes width, ",
    ),
    "an option of another kind": (
        ["--model=shufflenet_v1", "--option=groups=three"],
        "expected 'groups' to be an integer, got 'three'",
    ),
    "nothing but corrupt pictures": (
        [*MOBILENET, "--calibration=@corrupt"],
        "None of the 2 pictures can be decoded",
    ),
    "label beyond the classes": (
        [*MOBILENET, "--calibration=@label.csv"],
        "expected labels below 10, the number of classes of the network, got 10",
    ),
    "arrays of another size": (
        [*MOBILENET, "--calibration=@size.npz"],
        "expected uint8 'images' of shape (n, 32, 32, 3), got uint8 (2, 16, 16, 3)",
    ),
    "accuracy without labels": (
        [*MOBILENET, "--calibration=@good", "--max_accuracy_drop=1"],
        "--max_accuracy_drop needs labels: pass --data",
    ),
    "too few class names": ([*MOBILENET, "--labels=@nine.txt"], "expected 10 class names, one"),
    "class names that are no text": (
        [*MOBILENET, "--labels=@torch.pth"],
        "torch.pth: expected a text file with a class name a line (not UTF-8)",
    ),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What mistakes and conversions are made with."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    for place in ("good", "empty", "corrupt", f"taken/{EARLIER[0]}", "pictures ü"):
        (folder / place).mkdir(parents=True)
    for i in range(3):
        pixels = rng.integers(0, 256, (40, 48, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "good" / f"{i}.png")
    corrupt = {
        b"cut.png": (folder / "good" / "0.png").read_bytes()[:200],
        b"not-UTF-8-\xff.png": b"no picture",
    }
    save_formats(folder / "pictures ü")
    for place in ("corrupt", "pictures ü"):
        for raw, content in corrupt.items():
            (folder / place / os.fsdecode(raw)).write_bytes(content)
    np.savez(folder / "size.npz", images=np.zeros((2, 16, 16, 3), np.uint8))
    for name, text in {
        "missing.csv": "file,label\ngood/0.png,1\ngood/none.png,2\n",
        "label.csv": "file,label\ngood/0.png,1\ngood/1.png,10\n",
        "right.csv": "file,label\ngood/0.png,1\ngood/1.png,9\n",
        "invalid.toml": "[model\n",
        "key.toml": "[model]\nnmae = 'mobilenet_v1'\n",
        "nan.toml": "[model]\nname = 'mobilenet_v1'\nresolution_multiplier = nan\n",
        "text.h5": "hello",
        "nine.txt": "tench\n" * 9,
        f"taken/{EARLIER[0]}/thesis.tex": "years of work",
    }.items():
        (folder / name).write_text(text)
    (folder / "torch.pth").write_bytes(b"PK\3\4\xff")
    (folder / "network.onnx").write_bytes(b"onnx")
    (folder / "program.pth").write_bytes(
        b"\x80\x02cos\nsystem\nX\x0e\x00\x00\x00touch executed\x85R."
    )
    model = registry.create("mobilenet_v1", width=0.25, input_shape=(32, 32, 3), num_classes=12)
    model.save_weights(folder / "mobilenet12.h5")
    whole = (folder / "mobilenet12.h5").read_bytes()
    (folder / "half.h5").write_bytes(whole[: len(whole) // 2])
    np.savez(folder / "variance.npz", **{"conv1_bn/moving_variance": np.full(8, -1, np.float32)})
    np.savez(folder / "nan.npz", **{"conv1/kernel": np.full((3, 3, 3, 8), np.nan, np.float32)})
    return folder


def save_formats(folder: Path) -> None:
    rng = np.random.default_rng(0)

    def picture(mode: str, *channels: int) -> Image.Image:
        return Image.fromarray(rng.integers(0, 256, (40, 48, *channels), np.uint8), mode)

    rotated = Image.Exif()
    rotated[0x0112] = 6
    picture("RGBA", 4).save(folder / "alpha.png")
    picture("L").save(folder / "grey.png")
    picture("LA", 2).save(folder / "grey_alpha.png")
    picture("CMYK", 4).save(folder / "cmyk.jpg")
    picture("RGB", 3).save(folder / "rotated.jpg", exif=rotated)
    picture("RGB", 3).quantize(8).save(folder / "palette.png", transparency=0)
    picture("L").convert("1").save(folder / "bilevel.png")
    Image.fromarray(rng.integers(0, 65536, (40, 48), np.uint16)).save(folder / "16_bits.png")


def convert(
    *words: str, at: Path, search: Path = ROOT, modules: Sequence[str] = TENSORFLOW, **options: Any
) -> Ran:
    """Runs the command in the folder `at`, to which --out is relative."""
    return forkserver.run(
        [sys.executable, "-m", "convert", *words],
        modules=modules,
        cwd=at,
        env={**os.environ, "PYTHONPATH": f"{search}{os.pathsep}{ROOT}"},
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8", **options},
    )


def start(
    *words: str, at: Path, env: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
) -> Ran:
    """Runs it in a process of its own from the first instruction on."""
    return subprocess.run(
        [*prefix, sys.executable, "-m", "convert", *words],
        cwd=at,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        capture_output=True,
        encoding="utf-8",
        timeout=forkserver.HANG_S,
    )


def make_place(folder: Path) -> Path:
    """A folder to convert in, with earlier bundles where the new ones would be."""
    for name in EARLIER:
        (folder / "build" / name).mkdir(parents=True)
        (folder / "build" / name / "report.json").write_text("{}")
        (folder / "build" / name / "model.tflite").write_bytes(b"an earlier model")
    return folder


def fill(words: list[str], files: Path) -> list[str]:
    return [word.replace("@", f"{files}/") for word in words]


def only_line(ran: Ran) -> str:
    (line,) = ran.stderr.splitlines()
    return line


@pytest.mark.parametrize("mistake", FOUND_AT_ONCE)
def test_a_mistake_that_needs_no_tensorflow_is_one_line_without_it(
    mistake: str, files: Path, trap: Path, tmp_path: Path
) -> None:
    words, code, message = FOUND_AT_ONCE[mistake]
    before = contents(make_place(tmp_path)), contents(files)
    ran = convert(*fill(words, files), at=tmp_path, search=trap, modules=LIGHT)
    assert (ran.returncode, ran.stdout) == (code, ""), ran.stderr
    assert only_line(ran).startswith("convert: ")
    assert message in only_line(ran)
    assert (contents(tmp_path), contents(files)) == before


@pytest.mark.parametrize("mistake", FOUND_WITH_THE_NETWORK)
def test_a_mistake_that_the_network_shows_is_one_line(
    mistake: str, files: Path, tmp_path: Path
) -> None:
    words, message = FOUND_WITH_THE_NETWORK[mistake]
    before = contents(make_place(tmp_path))
    ran = convert(*fill(words, files), at=tmp_path)
    assert (ran.returncode, ran.stdout) == (1, ""), ran.stderr
    *said_before, line = ran.stderr.splitlines()
    progress = ("convert: warning: ", "convert: network and weights: ", "convert: pictures from ")
    assert all(before.startswith(progress) for before in said_before)
    assert line.startswith("convert: ")
    assert message in line
    assert contents(tmp_path) == before


@pytest.mark.parametrize("word", ["--help", "--helpshort", "--helpfull", "--list"])
def test_help_and_the_list_need_no_tensorflow(word: str, trap: Path, tmp_path: Path) -> None:
    ran = convert(word, at=tmp_path, search=trap, modules=LIGHT)
    assert (ran.returncode, ran.stderr) == (0, "")
    if word == "--list":
        assert ran.stdout.splitlines() == registry.names()
    else:
        assert "python -m convert --model shufflenet_v2 --int8" in ran.stdout
        assert "--max_accuracy_drop" in ran.stdout


def test_the_traps_that_stand_for_tensorflow_work(trap: Path, tmp_path: Path) -> None:
    assert convert(*MOBILENET, at=tmp_path, search=trap, modules=LIGHT).returncode == 99


@pytest.fixture(scope="module")
def runs(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[Ran, Path]]:
    """Conversions that succeed, each with the folder it was made in."""
    places = {name: tmp_path_factory.mktemp("place") for name in ("hard", "gates", "blind", "mute")}
    for place in places.values():
        make_place(place)
    killed = places["hard"] / HARD_NAME / f".{HARD}.4194305.0123abcd.part"  # beyond any pid
    killed.mkdir(parents=True)
    (killed / "labels.txt").write_text("of a run that was killed")
    plain = {"LC_ALL": "C", "TERM": "dumb", "PYTHONUTF8": "", "PYTHONIOENCODING": ""}
    gates = ("--io_dtype=uint8", "--min_sqnr_db=150", "--max_accuracy_drop=100")

    def run(name: str) -> Ran:
        at = places[name]
        if name == "hard":
            words = [*MOBILENET, "--int8", f"--calibration={files / 'pictures ü'}"]
            return start(*words, f"--out={HARD_NAME}", at=at, env=plain)
        if name == "gates":
            pictures = [f"--data={files / 'right.csv'}", f"--calibration={files / 'good'}"]
            made = ("--c_array", "--android_app=app")
            return convert(*SHUFFLENET, *pictures, *gates, *made, "--json", at=at)
        if name == "blind":
            return start(*MOBILENET, "--json", at=at, prefix=("sh", "-c", 'exec "$@" 2>&-', "sh"))
        read, write = os.pipe()
        os.close(read)
        try:
            return convert(*MOBILENET, "--json", at=at, stdout=write)
        finally:
            os.close(write)

    return {name: (run(name), place) for name, place in places.items()}


def test_all_of_stderr_is_the_commands_own(
    runs: Mapping[str, tuple[Ran, Path]],
) -> None:
    for name in ("hard", "gates", "mute"):
        lines = runs[name][0].stderr.splitlines()
        assert len(lines) >= 4
        assert [line for line in lines if not line.startswith("convert: ")] == []


def test_any_kind_of_picture_is_read_and_a_corrupt_one_named(
    runs: Mapping[str, tuple[Ran, Path]], files: Path
) -> None:
    ran, place = runs["hard"]
    assert ran.returncode == 0, ran.stderr
    warnings = [line for line in ran.stderr.splitlines() if ": warning: skipped " in line]
    assert len(warnings) == 2
    for line, name in zip(warnings, ("cut.png", "not-UTF-8-\\udcff.png"), strict=True):
        assert f"skipped {files}/pictures ü/{name}: cannot be decoded" in line
    report = json.loads((place / HARD_NAME / HARD / "report.json").read_text())
    skipped = [Path(file).name for file in report["calibration"]["skipped"]]
    assert skipped == ["cut.png", os.fsdecode(b"not-UTF-8-\xff.png")]
    assert report["calibration"]["count"] == 8


def test_a_bundle_gets_where_it_shall_and_leaves_nothing_beside_it(
    runs: Mapping[str, tuple[Ran, Path]],
) -> None:
    ran, place = runs["hard"]
    assert os.listdir(place / HARD_NAME) == [HARD]
    bundle = place / HARD_NAME / HARD
    assert sorted(os.listdir(bundle)) == ["README.md", "model.tflite", "report.json"]
    assert ran.stdout.splitlines()[-1].split(maxsplit=1) == ["bundle", f"{HARD_NAME}/{HARD}"]
    for name in ("gates", "mute", "blind"):
        assert sorted(os.listdir(runs[name][1] / "build")) == sorted(EARLIER)


def test_a_missed_gate_is_named_and_the_bundle_written(
    runs: Mapping[str, tuple[Ran, Path]],
) -> None:
    ran, place = runs["gates"]
    assert ran.returncode == 3, ran.stderr
    missed = [line for line in ran.stderr.splitlines() if "gate missed" in line]
    assert [line.split(", got ")[0] for line in missed] == ["convert: gate missed: min_sqnr_db 150"]
    report = json.loads(ran.stdout)  # and nothing else is on stdout
    assert {gate["flag"]: gate["passed"] for gate in report["gates"]} == {
        "max_accuracy_drop": True,
        "min_sqnr_db": False,
    }
    bundle = place / "build" / EARLIER[0]
    assert (bundle / "report.json").read_text() == ran.stdout
    written = hashlib.sha256((bundle / "model.tflite").read_bytes()).hexdigest()
    assert report["sha256"] == written


def test_an_app_and_c_source_hold_the_bundle_s_file(
    runs: Mapping[str, tuple[Ran, Path]],
) -> None:
    place = runs["gates"][1]
    bundle = place / "build" / EARLIER[0]
    model = (bundle / "model.tflite").read_bytes()
    assert (place / "app/app/src/main/assets/bundle/model.tflite").read_bytes() == model
    source = (bundle / f"{EARLIER[0].replace('.', '_')}.c").read_text()
    assert bytes.fromhex("".join(re.findall("0x(..)", source))) == model
    assert sorted(os.listdir(place)) == ["app", "build"]


@pytest.mark.parametrize("name", ["mute", "blind"])
def test_a_conversion_is_done_though_nobody_listens(
    name: str, runs: Mapping[str, tuple[Ran, Path]]
) -> None:
    ran, place = runs[name]
    assert ran.returncode == 0, ran.stderr
    bundle = place / "build" / EARLIER[1]
    assert (bundle / "model.tflite").read_bytes()[4:8] == b"TFL3"
    if name == "blind":
        assert (bundle / "report.json").read_text() == ran.stdout


def test_the_native_log_is_there_for_who_wants_it(tmp_path: Path) -> None:
    words = ["--model=shufflenet_v2", "--width=0.6", "--verbosity=1"]
    ran = start(*words, at=tmp_path, env={"TF_CPP_MIN_LOG_LEVEL": "0"})
    assert ran.returncode == 1
    *log, line = ran.stderr.splitlines()
    assert line.startswith("convert: Expected a width multiplier")
    assert any(".cc:" in line for line in log)
