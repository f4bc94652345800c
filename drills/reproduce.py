"""Converts the same network as on different machines: the bytes must be equal.

Each variation simulates a difference between machines: the environment, the folder, the number of
cores, the instruction set.  Versions of packages are in report.json: machines that differ in these
may make different files.

python drills/reproduce.py
python drills/reproduce.py --only one --only no --words "--qat_epochs=1 --qat_data=synthetic:256"
"""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from absl import app, flags
from leftovers import digests

flags.DEFINE_string("words", "", "Additional arguments of convert.")
flags.DEFINE_multi_string("only", [], "Only variations whose names begin with this.")

ROOT = Path(__file__).resolve().parent.parent
CONVERT = (
    "-m convert --model shufflenet_v2 --width 0.5 --option stem=cifar --resolution 32 "
    "--num_classes 10 --weights random --int8 --scores --c_array --out {out} "
    "--android_app {out}/app"
)
INPUTS = {"pictures": "--calibration examples", "data-free": ""}


@dataclass(frozen=True)
class Variation:
    """A difference of another machine; `prefix` stands before the command."""

    name: str
    env: Mapping[str, str] = field(default_factory=dict)
    prefix: Sequence[str] = ()
    folder: str = "out"


VARIATIONS = (
    Variation("the same again"),
    Variation("hash seed", {"PYTHONHASHSEED": "12345"}),
    Variation("locale and time zone", {"LC_ALL": "tr_TR.UTF-8", "LANG": "C", "TZ": "Asia/Kolkata"}),
    Variation("another user", {"HOME": "/nonexistent", "USER": "x", "LOGNAME": "x"}),
    Variation("another folder, umask 077", folder="élan vital", prefix=("sh", "-c", "umask 077")),
    Variation("one core", prefix=("taskset", "--cpu-list", "0")),
    Variation("one thread", {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}),
    Variation("eight threads", {"OMP_NUM_THREADS": "8", "TF_NUM_INTRAOP_THREADS": "8"}),
    Variation("NumPy without AVX2", {"NPY_DISABLE_CPU_FEATURES": "AVX512F AVX2 FMA3"}),
    Variation("no oneDNN", {"TF_ENABLE_ONEDNN_OPTS": "0"}),
    Variation("oneDNN with SSE4.1", {"ONEDNN_MAX_CPU_ISA": "SSE41"}),
    Variation("oneDNN with AVX2", {"ONEDNN_MAX_CPU_ISA": "AVX2"}),
)


def main(argv: list[str]) -> int:
    """Prints a row for each variation and input; returns 1 where bytes differ."""
    chosen = [
        one
        for one in VARIATIONS
        if not flags.FLAGS.only or one.name.startswith(tuple(flags.FLAGS.only))
    ]
    differ = 0
    for name, words in INPUTS.items():
        command = shlex.split(f"{CONVERT} {words} {flags.FLAGS.words}")
        expected = _convert(command, Variation("as it is"))
        for variation in chosen:
            actual = _convert(command, variation)
            others = sorted(k for k in expected | actual if expected.get(k) != actual.get(k))
            differ += bool(others)
            different = f"{len(others)} of {len(expected)} files differ: {', '.join(others)}"
            same = f"the same {len(expected)} files"
            print(f"| {name} | {variation.name} | {different if others else same} |", flush=True)
    return int(differ > 0)


def _convert(words: Sequence[str], variation: Variation) -> Mapping[str, str]:
    """SHA-256 of the files that it writes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, variation.folder)
        command = [sys.executable, *(word.replace("{out}", str(out)) for word in words)]
        if variation.prefix[:1] == ("sh",):
            command = [*variation.prefix[:2], f'{variation.prefix[2]}; exec "$@"', "sh", *command]
        else:
            command = [*variation.prefix, *command]
        path = os.pathsep.join([str(ROOT), *sys.path])
        env = {**os.environ, "PYTHONPATH": path, **variation.env}
        ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
        if ran.returncode:
            sys.exit(f"{variation.name}: exit status {ran.returncode}: {ran.stderr[-2000:]}")
        return digests(out, [])


if __name__ == "__main__":
    app.run(main)
