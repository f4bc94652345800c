"""How the commands of README, guides and app are run at small scale, and what they must print.

One entry for each command, in the order of the document.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """How a command is run.

    Attributes:
      holds: Text in the command, so that entries and commands stay aligned.
      small: Replacements in the command; each must occur in it.
      more: Arguments to append.
      code: The expected exit status.
      shows: Patterns that its output must match.
      check: Checks the folder afterwards.
      beside: Whether it keeps running beside the next ones.
    """

    holds: str
    small: Mapping[str, str] = field(default_factory=dict)
    more: str = ""
    code: int = 0
    shows: tuple[str, ...] = ()
    check: Callable[[Path], None] = lambda folder: None
    beside: bool = False


@dataclass(frozen=True)
class NotRun:
    """A command that the tests do not run, and the reason."""

    holds: str
    reason: str


MOBILENET = "--model mobilenet_v1 --width 0.25 --stem cifar --resolution 16"
TINY_NETWORK = (
    "--set network.name=mobilenet_v1 --set 'network.options={width=0.25,stem=\"cifar\"}' "
    "--set network.resolution=16 --set training.batch=16 --set training.epochs=2"
)
TINY_TRAINING = f"{TINY_NETWORK} --set data.train=synthetic:64 --set data.test=synthetic:20"
SMALL_BUNDLE = {"shufflenet_v2_x0.5_cifar_32": "mobilenet_v1_x0.25_cifar_16"}
TINY_GRID = """--set 'grid=[{model="mobilenet_v1",resolution=32,options={width=[0.25,0.5]}}]'"""
MEASURED = r"^mobilenet_v1_x0\.25_cifar_16_int8 +\d"


def is_int8(name: str, *, classes: int, named: bool = True) -> Callable[[Path], None]:
    """Returns a check that the bundle exists and is int8 throughout."""

    def check(folder: Path) -> None:
        audit = json.loads((folder / name / "report.json").read_text())["audit"]
        assert {audit["input"]["dtype"], audit["output"]["dtype"]} == {"int8"}
        assert not audit["float_operators"]
        assert audit["output"]["shape"] == [1, classes]
        labels = folder / name / "labels.txt"
        assert (len(labels.read_text().splitlines()) if named else classes) == classes
        assert (folder / name / "model.tflite").read_bytes()[4:8] == b"TFL3"

    return check


def has(*names: str) -> Callable[[Path], None]:
    """Returns a check that files exist and are not empty."""

    def check(folder: Path) -> None:
        assert all((folder / name).stat().st_size for name in names)

    return check


RUNS: Mapping[str, tuple[Run | NotRun, ...]] = {
    "README.md": (
        NotRun(
            "make demo",
            "sets up .venv from a package index; tests/convert/test_classify.py runs it",
        ),
        Run(
            "convert.classify",
            small={
                "build/shufflenet_v2_x0.5_cifar_32_int8/model.tflite": "trained.safetensors",
                "PICTURES": "examples/*.png",
            },
            shows=(r"examples/airplane\.png +airplane", r"examples/truck\.png +truck"),
        ),
        Run(
            "--weights mobilenet.h5",
            small={
                "--model mobilenet_v1 --width 0.25": MOBILENET,
                "mobilenet.h5": "random",
                "pictures/ ": "pictures/test ",
            },
            more="--num_classes 3 --max_accuracy_drop 100",
            shows=(r"^calibrated on +6 inputs", "^gate max_accuracy_drop .* passed"),
            check=is_int8("build/mobilenet_v1_x0.25_cifar_16_int8", classes=3, named=False),
        ),
        Run("--target host", more="--rounds 2", shows=(MEASURED,)),
        Run("--list", shows=("shufflenet_v2", "efficientnet_v2_s")),
        Run("--model shufflenet_v2 --width 0.5", shows=("1,366,792",)),
        Run("--compare", shows=("augshufflenet", "mobilenet_v2")),
    ),
    "docs/guides/own_data.md": (
        Run(
            "--config pets.toml",
            more=TINY_NETWORK,
            shows=(r"^train: epoch 2/2", r"^top-1 +\d+\.\d\d % \(95 % interval"),
            check=has("runs/pets/weights.safetensors", "runs/pets/log.csv"),
        ),
        Run(
            "--qat_epochs 1",
            small={"--model shufflenet_v2": "--model mobilenet_v1", "drop 1": "drop 100"},
            more="--set qat.batch=16",
            shows=(r"^trained in int8 +1 epoch of pictures/train", "^gate .* passed"),
            check=is_int8("build/mobilenet_v1_x0.25_cifar_16_int8_qat", classes=3),
        ),
        Run(
            "convert.accuracy",
            small=SMALL_BUNDLE,
            shows=(r"^weights +Keras +float32", r"_qat +LiteRT +int8 +int8 "),
            check=has("accuracy/accuracy.json", "accuracy/accuracy.md"),
        ),
        Run(
            "convert.classify",
            small=SMALL_BUNDLE,
            shows=(r"^pictures/test/horse/0000\.jpg +(cat|dog|horse) +\d+\.\d %",),
        ),
    ),
    "docs/guides/pytorch_weights.md": (
        NotRun("--weights imagenet", "downloads from PyTorch's server"),
        Run(
            "--weights finetuned.pth",
            small={
                "--model shufflenet_v2 --width 0.5 --resolution 64": "--model shufflenet_v1 "
                "--width 0.1 --allow_any_width --resolution 32",
                "--num_classes 3": "--num_classes 10",
                "drop 1": "drop 100",
            },
            shows=(r"^weights +finetuned\.pth, of megvii shufflenet_v1", "^gate .* passed"),
            check=is_int8("build/shufflenet_v1_x0.1_32_int8", classes=10),
        ),
    ),
    "docs/guides/compare_on_your_phone.md": (
        Run(
            "--sweep phone.toml",
            more=f"{TINY_GRID} --rounds 2 --runs 2 --benchmark_binary tool",
            shows=(r"^\| mobilenet_v1 \| 0\.25 \| 32 ", r"^\| mobilenet_v1 \| 0\.5 \| 32 "),
            check=has("results/phone.jsonl", "pictures/cost_adb.png"),
        ),
        Run(
            "--out results/mine.jsonl",
            more="--rounds 2 --runs 2 --benchmark_binary tool",
            shows=(r"^mobilenet_v1_x0\.25_cifar_16_int8 ", r"^shufflenet_v2_x0\.5_cifar_32_int8 "),
        ),
        Run(
            "--baseline results/mine.jsonl",
            more="--rounds 2 --runs 2 --benchmark_binary slower_tool",
            code=3,
            shows=(
                r"^android_bench: slower: mobilenet_v1_x0\.25_cifar_16_int8 on adb: \+1580\.8% ms",
            ),
        ),
    ),
    "docs/guides/ci.md": (
        Run(
            "--json > report.json",
            small={
                "--model shufflenet_v2 --weights models/pets.safetensors": f"{MOBILENET} "
                "--weights random --num_classes 3",
                "--min_agreement 99.5": "--min_sqnr_db 90",
            },
            code=3,
            shows=(r"^convert: gate missed: min_sqnr_db 90, got \d+\.\d\d$",),
            check=is_int8("build/mobilenet_v1_x0.25_cifar_16_int8", classes=3),
        ),
        Run(
            "--out models/baseline.jsonl",
            small={"emulated:a53": "host", **SMALL_BUNDLE},
            more="--rounds 2",
            shows=(MEASURED,),
        ),
        NotRun("scripts/setup .", "sets up .venv from a package index"),
        Run(
            "--weights models/pets.safetensors",
            small={
                "--model shufflenet_v2 --weights models/pets.safetensors": f"{MOBILENET} "
                "--weights random --num_classes 3",
                "drop 1": "drop 100",
            },
            shows=("^gate .* passed",),
        ),
        NotRun("setup emulated", "downloads the ARM system; test_emulated_setup.py runs it"),
        Run(
            "--baseline models/baseline.jsonl",
            small={"emulated:a53": "host", "2%": "900%", **SMALL_BUNDLE},
            more="--rounds 2",
            shows=(r"^\| mobilenet_v1_x0\.25_cifar_16_int8 \| host \| ms \|",),
        ),
    ),
    "docs/guides/several_machines.md": (
        Run(
            "distribution.strategy=mirrored",
            more=f"{TINY_TRAINING} --set out=runs/mirrored",
            shows=(r"^top-1 ",),
        ),
        Run(
            '"index": 0',
            small={"a:2222": "127.0.0.1:{first}", "b:2222": "127.0.0.1:{second}"},
            more=f"{TINY_TRAINING} --set out=runs/both",
            shows=(r"^train: epoch 2/2",),
            beside=True,
        ),
        Run(
            '"index": 1',
            small={"a:2222": "127.0.0.1:{first}", "b:2222": "127.0.0.1:{second}"},
            more=f"{TINY_TRAINING} --set out=runs/both",
            shows=(r"^train: epoch 2/2",),
            check=has("runs/both/weights.safetensors"),
        ),
    ),
    "android_bench/app/README.md": (
        Run(
            "--android_app DIR",
            small={"--model shufflenet_v2": f"{MOBILENET} --weights random", "DIR": "app"},
            check=has("app/README.md", "app/app/src/main/assets/bundle/model.tflite"),
        ),
    ),
}
