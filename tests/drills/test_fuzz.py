"""The fuzzing drill: readers bear damaged files, and planted faults are found."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DRILLS = Path(__file__).parents[2] / "drills"
FAULTS = """
import fuzz, os, sys
from fuzz_targets import Reader
from shufflelite.errors import InputError

def key(): raise KeyError("a")
def lines(): raise InputError("a\\nb")
def crash(): os.abort()
def loop():
    while True: pass
def memory():
    try: return bytes(5 << 30)
    except MemoryError as error: raise InputError("too much") from error
def refuse(): raise InputError("no")

fault = globals()[sys.argv[1]]
read = lambda content: content == b"a" or fault()
reader = Reader("x", read, [b"a"], may_crash=len(sys.argv) > 2)
counts, findings = fuzz.fuzz(reader, range(5, 7), 0)
print(sum(counts.values()), dict(counts), findings)
"""


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join([str(DRILLS), *sys.path])
    command = [sys.executable, *words]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )


def test_no_reader_suffers_from_twenty_damaged_files() -> None:
    done = run(str(DRILLS / "fuzz.py"), "--cases", "20")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^\| (\w+) \| 20 \| (\d+) \| (\d+) \| (\d+) \| 0 \|", done.stdout, re.M)
    assert len(rows) == done.stdout.count("\n") - 2
    assert {sum(map(int, counts)) for _, *counts in rows} == {20}
    assert {"pth", "h5", "tflite_runtime", "toml_train", "pictures"} <= {name for name, *_ in rows}


@pytest.mark.parametrize(
    ("fault", "finding"),
    [
        ("key", "KeyError: 'a'"),
        ("lines", "not one line"),
        ("crash", "killed by SIGABRT"),
        ("loop", "more than 2 s"),
        ("memory", "more than 2048 MB of memory"),
    ],
)
def test_the_drill_finds_each_kind_of_fault(fault: str, finding: str) -> None:
    done = run("-c", FAULTS, fault)
    assert re.search(rf"{{5: ['\"]{re.escape(finding)}", done.stdout), done.stdout + done.stderr


def test_refusals_and_crashes_in_a_process_apart_are_no_findings() -> None:
    for words, counted in ((("refuse",), "refused"), (("crash", "apart"), "crashed")):
        done = run("-c", FAULTS, *words)
        assert done.stdout.endswith(f"2 {{'{counted}': 2}} {{}}\n"), done.stdout + done.stderr
