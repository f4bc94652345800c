"""The command `shufflelite`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shufflelite import __main__ as command

ROOT = Path(__file__).parents[2]


def shufflelite(*words: str, at: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    """From where `python -m shufflelite` finds the project, as where it is installed."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = [sys.executable, "-m", "shufflelite", *words]
    return subprocess.run(done, cwd=at, env=env, capture_output=True, text=True)


@pytest.mark.parametrize("name", command.COMMANDS)
def test_each_command_shows_the_help_of_its_module_and_its_flags(name: str) -> None:
    done = shufflelite(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python -m {command.COMMANDS[name]} " in done.stdout
    assert re.search(r"^  --", done.stdout, re.MULTILINE)


def test_what_names_no_command_is_one_line() -> None:
    for words in ([], ["convrt"]):
        done = shufflelite(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("shufflelite: expected one of convert, classify, ")
        assert done.stderr.count("\n") == 1
    done = shufflelite("--help")
    assert done.returncode == 0
    for name in command.COMMANDS:
        assert f"  shufflelite {name} " in done.stdout


def test_modules_of_the_current_folder_are_not_run(tmp_path: Path) -> None:
    for name in ("convert", "numpy", "keras_models"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    done = shufflelite("convert", "--list", at=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "shufflenet_v2" in done.stdout
