"""The drill of mistakes: some are made, and planted faults are found."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

DRILLS = Path(__file__).parents[2] / "drills"


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(DRILLS), *sys.path])}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=env)


@pytest.mark.parametrize("kind", ["for ssh", "flag:", "networks: no such name"])
def test_mistakes_of_some_kinds_are_taken_well(kind: str) -> None:
    done = run(str(DRILLS / "bad_input.py"), "--only", kind)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "inputs: 0 not taken as they should be" in done.stdout
    assert not done.stdout.startswith("0 ")


@pytest.mark.parametrize(
    ("code", "command", "says", "fault"),
    [
        (1, "python -m keras_models --list", "", "left with 0, not 1"),
        (2, "python -m keras_models", "expected nothing", "'expected nothing' is not in"),
        (2, "PYTHONWARNINGS=x python -m keras_models", "expected one", 'said ["Invalid -W option'),
    ],
)
def test_the_drill_finds_what_is_wrong(code: int, command: str, says: str, fault: str) -> None:
    done = run("-c", f"import bad_input; print(bad_input.fault({code}, {command!r}, {says!r}))")
    assert fault in done.stdout, done.stdout + done.stderr
