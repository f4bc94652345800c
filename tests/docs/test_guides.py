"""Runs README and guides, command after command, as a reader types them, at small scale."""

import os
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import forkserver
from tests.android_bench import fake_tool
from tests.android_bench.adb_device import Device
from tests.docs import commands
from tests.docs.commands import ROOT, Command
from tests.docs.runs import RUNS, NotRun, Run

LINKED = ("configs", "examples")
CLASSES = ("cat", "dog", "horse")
GOLDEN = ROOT / "tests/keras_models/golden"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a reader has: this project, pictures, weights, and a benchmark tool."""
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    forkserver.proxy(python)
    for name in LINKED:
        (tmp_path / name).symlink_to(ROOT / name)
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 2)):
        for number, name in enumerate(CLASSES):
            place = tmp_path / "pictures" / part / name
            place.mkdir(parents=True)
            for picture in range(count):
                pixels = rng.integers(0, 160, (20, 24, 3)) + 95 * np.eye(3, dtype=int)[number]
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{picture:04}.jpg")
    tests = sorted((tmp_path / "pictures/test").rglob("*.jpg"))
    rows = [f"{file.relative_to(tmp_path)},{CLASSES.index(file.parent.name)}\n" for file in tests]
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(rows))
    others = [f"class {number}" for number in range(len(CLASSES), 10)]
    (tmp_path / "labels.txt").write_text("\n".join([*CLASSES, *others]) + "\n")
    (tmp_path / "finetuned.pth").symlink_to(GOLDEN / "narrow.pth")
    (tmp_path / "trained.safetensors").symlink_to(
        ROOT / "keras_models/weights/shufflenet_v2_cifar10.safetensors"
    )
    fake_tool.write(tmp_path / "tool")
    fake_tool.write(tmp_path / "slower_tool", behaviour="dynamic")
    return tmp_path


def pairs(document: str) -> list[tuple[Command, Run | NotRun]]:
    """Each command of a document, and how it is run."""
    asked, runs = commands.blocks(ROOT / document), RUNS[document]
    for command, run in zip(asked, runs, strict=False):
        assert run.holds in command.text, f"{command.place}: expected {run.holds!r}"
    assert len(asked) == len(runs), f"{document}: {len(asked)} commands, {len(runs)} runs"
    return list(zip(asked, runs, strict=True))


def follow(document: str, folder: Path) -> None:
    """Runs a document's commands in order."""
    for name, text in commands.files(ROOT / document).items():
        (folder / name).write_text(text)
    ports = free_ports()
    going: list[tuple[Run, subprocess.Popen[str]]] = []
    try:
        for command, run in pairs(document):
            if isinstance(run, NotRun):
                continue
            going.append((run, start(command, run, folder, ports)))
            if not run.beside:
                while going:
                    finish(*going.pop(), folder)
    finally:
        for _, process in going:
            process.kill()
            process.wait()


def start(command: Command, run: Run, folder: Path, ports: dict[str, int]) -> subprocess.Popen[str]:
    text, _, redirected = command.text.partition(" > ")
    for old, new in run.small.items():
        assert old in text, f"{command.place}: {old!r} is not in it"
        for name, port in ports.items():
            new = new.replace(f"{{{name}}}", str(port))
        text = text.replace(old, new)
    text += f" {run.more}" + (f" > {redirected}" if redirected else "")
    return subprocess.Popen(
        ["sh", "-c", text],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(run: Run, process: subprocess.Popen[str], folder: Path) -> None:
    try:
        told, _ = process.communicate(timeout=forkserver.HANG_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == run.code, told[-3000:]
    for pattern in run.shows:
        assert re.search(pattern, told, re.M), f"{pattern!r} is not in\n{told[-3000:]}"
    run.check(folder)


def free_ports() -> dict[str, int]:
    with socket.socket() as one, socket.socket() as other:
        for taken in (one, other):
            taken.bind(("127.0.0.1", 0))
        return {"first": one.getsockname()[1], "second": other.getsockname()[1]}


def test_every_command_of_readme_and_guides_has_a_run_or_a_reason() -> None:
    guides = {str(path.relative_to(ROOT)) for path in (ROOT / "docs/guides").glob("*.md")}
    assert next(iter(RUNS)) == "README.md"
    assert RUNS.keys() == {"README.md", *guides, "android_bench/app/README.md"}
    for document in RUNS:
        assert all(run.reason for _, run in pairs(document) if isinstance(run, NotRun))


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        pytest.param("docs/guides/pytorch_weights.md", marks=pytest.mark.slow),
        pytest.param("docs/guides/own_data.md", marks=pytest.mark.slow),
        pytest.param("docs/guides/ci.md", marks=pytest.mark.slow),
        pytest.param("docs/guides/several_machines.md", marks=pytest.mark.slow),
    ],
)
def test_a_reader_who_types_what_stands_there_gets_what_it_says(
    document: str, folder: Path
) -> None:
    follow(document, folder)


@pytest.mark.slow
@pytest.mark.parametrize("adb_server", ["adbutils"], indirect=True)
def test_a_reader_of_all_documents_gets_it_in_one_folder(
    folder: Path, new_device: Callable[[], Device]
) -> None:
    """A phone is connected, and what each document leaves is there when the next one begins."""
    device = new_device()
    demo = ".venv/bin/python -m convert --model shufflenet_v2 --weights bundled --int8"
    finish(Run(demo), start(Command("Makefile", demo), Run(demo), folder, {}), folder)
    for document in RUNS:
        follow(document, folder)
    assert list(device.tmp.iterdir()) == []
