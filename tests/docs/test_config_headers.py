"""The header of a file in configs/ promises figures: each is compared with what it describes."""

import itertools
import json
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from android_bench import sweep
from keras_models import counts, registry
from keras_models.checkpoints import bundled, native
from shufflelite.config import tomllib
from tests.docs.commands import ROOT
from tests.forkserver import run

CONFIGS = {path.stem: path for path in sorted((ROOT / "configs").glob("*.toml"))}
NUMBERS = {"five": 5}


def header(name: str) -> str:
    lines = itertools.takewhile(lambda line: line[:1] == "#", CONFIGS[name].read_text().split("\n"))
    return " ".join(line.removeprefix("#").strip() for line in lines)


def promised(name: str, pattern: str) -> float:
    match = re.search(pattern, header(name))
    assert match, (name, pattern)
    return float(NUMBERS.get(match[1], match[1]))


def settings(name: str) -> Mapping[str, Any]:
    return tomllib.loads(CONFIGS[name].read_text())


TRAININGS = [name for name in CONFIGS if name.endswith("_cifar10")]
TRAINED = [name for name in TRAININGS if (bundled.FOLDER / f"{name}.safetensors").exists()]


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_promises_the_multiply_adds_of_its_network(name: str) -> None:
    network = settings(name)["network"]
    model = registry.create(
        network["name"], input_shape=(32, 32, 3), num_classes=10, **network["options"]
    )
    _, multiply_adds = counts.total(counts.count(model))
    assert promised(name, r"\(([\d.]+) M multiply-adds\)") == round(multiply_adds / 1e6, 1)


@pytest.mark.parametrize("name", TRAINED)
def test_a_training_promises_the_accuracy_of_its_weights(name: str) -> None:
    described = native.describe(bundled.FOLDER / f"{name}.safetensors")
    assert described is not None
    top1 = described.origin["trained_accuracy"]["top1"]
    assert promised(name, r"top-1 ([\d.]+) %") == pytest.approx(top1, abs=0.005)


@pytest.mark.parametrize("name", ["paper_claims", "shufflenet_vs_mobilenet"])
def test_a_sweep_promises_the_number_of_its_networks(name: str) -> None:
    networks = len(sweep.networks(sweep.load(CONFIGS[name])))
    assert promised(name, r"(\d+) networks") == networks
    if name == "shufflenet_vs_mobilenet":  # of eight, the first of which is always the reference
        assert promised(name, r"measured in (\w+) batches") == math.ceil((networks - 1) / 7)


def test_a_gate_is_the_one_in_the_file() -> None:
    name = "mobilenet_v1_025_imagenet_int8"
    gate = settings(name)["verification"]["min_agreement"]
    assert promised(name, r"fewer than (\d+) %") == gate


@pytest.mark.slow
def test_the_int8_file_has_the_operators_that_are_promised(tmp_path: Path) -> None:
    name = "shufflenet_v2_int8"
    words = ["--config", CONFIGS[name], "--calibration", ROOT / "examples", "--out", tmp_path]
    assert run([sys.executable, "-m", "convert", *words], cwd=ROOT).returncode == 0
    (report,) = tmp_path.glob("*/report.json")
    audit = json.loads(report.read_text())["audit"]
    assert promised(name, r"(\d+) operators") == sum(audit["operators"].values())
    assert "one XNNPACK partition" in header(name)
    assert audit["delegate_partitions"] == 1
    assert "QUANTIZE" not in audit["operators"]
