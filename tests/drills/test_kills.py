"""The drill of kills: good writers pass it, bad ones do not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

DRILL = Path(__file__).parents[2] / "drills" / "kills.py"
WRITERS = {  # what a command does in its folder, and what the drill says of it
    "renames": ("write('.a.part', text); sleep(0.5); rename('.a.part', 'a.json')", "as in peace"),
    "writes in place": ("write('a.json', text[:1]); sleep(0.5); write('a.json', text)", "a.json: "),
    "removes first": ("remove(); sleep(0.5); write('a.json', text)", "neither the older one nor"),
    "takes over": (
        "write('.b', text, 'a'); sleep(0.5); write('a.json', text); rename('.b', 'b')",
        "these differ: b",
    ),
}
WRITER = """
import os, sys
from time import sleep
out, *older = sys.argv[1:]
text = "[1]" if older else "[2]"
os.makedirs(out, exist_ok=True)
os.chdir(out)
rename = os.replace
def remove(): os.path.exists("a.json") and os.unlink("a.json")
def write(name, text, mode="w"): open(name, mode).write(text)
"""


@pytest.mark.parametrize("writer", WRITERS)
def test_the_drill_tells_good_writers_from_bad_ones(writer: str, tmp_path: Path) -> None:
    body, verdict = WRITERS[writer]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(DRILL), "--kills=4", "--older=older", "--", sys.executable]
    program = WRITER + body
    done = subprocess.run(
        [*command, "-c", program, "{out}"], capture_output=True, text=True, env=env
    )
    assert verdict in done.stdout, done.stdout + done.stderr
    assert done.returncode == (writer != "renames")
