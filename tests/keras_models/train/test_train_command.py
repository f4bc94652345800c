"""The command, and its configs."""

import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from keras_models.checkpoints import bundled
from keras_models.train.settings import TrainingSettings
from shufflelite import config
from tests import forkserver
from tests.keras_models.train.cluster import environment, free_hosts

ROOT = Path(__file__).parents[3]
CIFAR10 = sorted((ROOT / "configs").glob("*_cifar10.toml"))
TINY = {
    "network.name": "mobilenet_v1",
    "network.options": "{width = 0.25, stem = 'cifar'}",
    "network.resolution": "8",
    "data.train": "synthetic:200",
    "data.test": "synthetic:50",
    "training.epochs": "3",
    "training.batch": "20",
    "training.learning_rate": "0.02",
    "training.ema": "0.9",
    "augment.pad": "1",
    "augment.mixup": "0.1",
    "augment.randaugment_layers": "1",
}


def words(folder: Path, **changed: str) -> list[str]:
    (folder / "x.toml").touch()
    changed = {name.replace("__", "."): value for name, value in changed.items()}
    settings = {"out": str(folder / "out"), **TINY, **changed}
    sets = [f"--set={name}={value}" for name, value in settings.items()]
    return [sys.executable, "-m", "keras_models.train", f"--config={folder}/x.toml", *sets]


def train(folder: Path, **changed: str) -> subprocess.CompletedProcess[str]:
    command = words(folder, **changed)
    return forkserver.run(command, cwd=ROOT, capture_output=True, text=True)


def machine(folder: Path, hosts: list[str], index: int) -> subprocess.Popen[str]:
    """One of several that train together."""
    command = words(folder, distribution__strategy="multi_worker", save_every_s="0.2")
    return forkserver.Popen(
        command,
        cwd=ROOT,
        env=environment(hosts, index),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_machine_that_is_killed_is_waited_for_and_nothing_is_lost(tmp_path: Path) -> None:
    hosts = free_hosts(4)
    peace, killed = tmp_path / "peace", tmp_path / "killed"
    for folder in (peace, killed):
        folder.mkdir()
    weights = killed / "out" / "weights.safetensors"
    in_peace = [machine(peace, hosts[:2], index) for index in range(2)]
    first, lost = disturbed = [machine(killed, hosts[2:], index) for index in range(2)]
    try:
        while not (killed / "out" / "log.csv").exists():
            assert first.poll() is None
            time.sleep(0.01)
        lost.kill()
        disturbed += [machine(killed, hosts[2:], 1)]
        told = [
            process.communicate(timeout=forkserver.HANG_S)[1] for process in (first, disturbed[-1])
        ]
        assert "a worker is lost: starts again, and goes on when all are back" in told[0]
        assert all("continues at step" in lines for lines in told), told
        for process in in_peace:
            _, why = process.communicate(timeout=forkserver.HANG_S)
            assert process.returncode == 0, why
        expected = safetensors.numpy.load_file(peace / "out" / "weights.safetensors")
        for name, array in safetensors.numpy.load_file(weights).items():
            # Each machine has statistics of its own, and both go on from their mean.
            off = 1e-5 * np.abs(array).max() if "/moving_" in name else 0
            np.testing.assert_allclose(array, expected[name], rtol=0, atol=off, err_msg=name)

        written = weights.read_bytes()
        weights.unlink()  # as where all are lost between the last step and its weights
        disturbed += [machine(killed, hosts[2:], 1)]
        _, why = disturbed[-1].communicate(timeout=forkserver.HANG_S)
        assert disturbed[-1].returncode == 0, why
        assert weights.read_bytes() == written
    finally:
        for process in in_peace + disturbed:
            process.kill()
            process.communicate()


@pytest.mark.slow
def test_killed_by_force_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    rng = random.Random(0)
    command = words(tmp_path / "killed", save_every_s="0.05")
    checkpoint = tmp_path / "killed" / "out" / "checkpoint.safetensors"
    with subprocess.Popen(words(tmp_path / "whole"), cwd=ROOT, stderr=subprocess.DEVNULL) as whole:
        for _ in range(2):
            seen = checkpoint.stat().st_mtime if checkpoint.exists() else 0.0
            with forkserver.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
                while process.poll() is None and (
                    not checkpoint.exists() or checkpoint.stat().st_mtime == seen
                ):
                    time.sleep(0.01)
                time.sleep(rng.uniform(0, 0.3))
                process.kill()
    assert whole.returncode == 0
    done = train(tmp_path / "killed", save_every_s="0.05")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "continues at step" in done.stderr
    assert re.search(r"^top-1 +\d+\.\d\d % \(95 % interval \d+\.\d\d to ", done.stdout, re.M)
    for name in ("weights.safetensors", "best.safetensors"):
        expected = (tmp_path / "whole" / "out" / name).read_bytes()
        assert (tmp_path / "killed" / "out" / name).read_bytes() == expected


def test_help_and_wrong_settings_come_without_tensorflow(trap: Path, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(trap)}
    (tmp_path / "x.toml").write_text("[training]\nepoch = 3\n")
    for flags, code, message in (
        (["--help"], 0, ""),
        ([], 2, "train: expected --config FILE (see --help)"),
        ([f"--config={tmp_path}/x.toml"], 1, "unknown key 'epoch'. Did you mean 'epochs'?"),
        (["--config=no.toml"], 1, "no.toml: expected a TOML file"),
    ):
        command = [sys.executable, "-m", "keras_models.train", *flags]
        done = forkserver.run(
            command, modules=forkserver.LIGHT, cwd=ROOT, env=env, capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr
        assert message in done.stderr


def test_the_bundled_networks_have_one_recipe() -> None:
    recipes = []
    for path in CIFAR10:
        plain = config.to_dict(config.load(path, TrainingSettings))
        assert path.read_text().startswith(
            f"# python -m keras_models.train --config configs/{path.name}\n"
        )
        assert plain.pop("out") == f"runs/{path.stem}"
        plain.pop("network")
        if (bundled.FOLDER / f"{path.stem}.safetensors").exists():
            recipes.append(json.dumps(plain))
    assert len(recipes) == len(bundled.every()) == 4
    assert len(set(recipes)) == 1
