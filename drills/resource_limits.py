"""Runs commands on disks that are too small and with too little memory.

A command must finish, or end in one line and exit status 1.  No file may be incomplete: each is the
older run's or the new one's, byte for byte.  Without memory, native libraries may end the process
where Python cannot report it, or wait for a thread that has ended: "crashed" or "hung".  Those
commands must leave no incomplete files either.

Needs Linux, and root for the disks, which are mounted in a namespace of their own.

python drills/resource_limits.py
python drills/resource_limits.py --only train --steps 20
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags
from leftovers import Digests, digests, faults

flags.DEFINE_integer("steps", 6, "Number of sizes of disk and of memory.", lower_bound=1)
flags.DEFINE_string("only", "", "Only the command of that name.")

CONVERT = (
    "python -m convert --model mobilenet_v1 --width 0.25 --resolution 32 --num_classes 10 "
    "--weights random --int8 --calibration examples --out {out}"
)
COMMANDS = {  # name: (command, additional arguments of the older run, files with times)
    "convert": (f"{CONVERT} --android_app {{out}}/app", "--seed=1", ()),
    "qat": (f"{CONVERT} --qat_epochs 1 --qat_data synthetic:128", "--seed=1", ()),
    "train": (
        "python -m keras_models.train --config configs/mobilenet_v1_cifar10.toml --set out={out} "
        "--set data.train=synthetic:256 --set data.test=synthetic:64 --set training.epochs=2",
        "",
        ("log.csv", "checkpoint.safetensors", "best.safetensors"),
    ),
    "sweep": (
        "python -m android_bench --sweep drills/sweep.toml --cache {out}/cache "
        "--out {out}/rows.jsonl",
        "--set=convert.num_classes=11",
        (),
    ),
    "accuracy": (
        "python -m convert.accuracy --models keras_models/weights/mobilenet_v1_cifar10.safetensors "
        "--data synthetic:64 --labels drills/stripes.txt --out {out}",
        "--seed=1",
        (),
    ),
}
# In a namespace of its own: mounts a disk of $1 bytes, copies the older files to it, runs the
# command, and copies the disk back.
ON_A_DISK = """
mount -t tmpfs -o size=$1 none "$2" && cp -a "$3"/. "$2" || exit 99
out=$2 kept=$4; shift 4; "$@"; code=$?
cp -a "$out"/. "$kept"; exit $code
"""
KIB = 1024
LEAST = 400_000 * KIB  # of memory: Python and NumPy
TIMEOUT_S = 300.0


def main(argv: list[str]) -> int:
    """Prints a row for each command and kind of limit; returns 1 if there is a finding."""
    arguments = flags.FLAGS
    findings = 0
    for name in [arguments.only] if arguments.only else COMMANDS:
        with tempfile.TemporaryDirectory() as folder:
            findings += _drill(name, Path(folder), steps=arguments.steps)
    return int(findings > 0)


def _drill(name: str, folder: Path, *, steps: int) -> int:
    """Runs the command with all sizes; returns the number of findings."""
    command, older_words, ignored = COMMANDS[name]
    out, older, new = (folder / part for part in ("out", "older", "new"))
    words = shlex.split(command.replace("{out}", str(out)))[1:]
    _peak([sys.executable, *words, *shlex.split(older_words)])
    out.rename(older)
    shutil.copytree(older, out)
    memory = _peak([sys.executable, *words])
    expected = digests(out, ignored)
    out.rename(new)
    room = [_size(older) + part * _size(new) // steps for part in range(steps)]
    space = [LEAST + part * (memory - LEAST) // steps for part in range(steps)]
    findings = 0
    for kind, sizes in (("disk", room), ("memory", space)):
        counts: Counter[str] = Counter()
        for size in sizes:
            ended, problems = _meet(kind, size, words, folder, expected, ignored)
            counts[ended] += 1
            for problem in problems:
                findings += 1
                print(f"{name}, {kind} of {size:,} bytes: {problem}", flush=True)
        told = ", ".join(f"{count} {ended}" for ended, count in sorted(counts.items()))
        print(f"| {name} | {kind}, {sizes[0] / 1e6:.1f} to {sizes[-1] / 1e6:.1f} MB | {told} |")
        sys.stdout.flush()
    return findings


def _meet(
    kind: str, size: int, words: Sequence[str], folder: Path, expected: Digests, ignored: tuple
) -> tuple[str, list[str]]:
    """Runs the command with that limit in the folder of an older run.

    Returns:
      "done", "one line", "crashed", "hung" or "wrong"; and what is wrong.
    """
    out, older, kept = (folder / part for part in ("out", "older", "kept"))
    command = [sys.executable, *words]
    if kind == "disk":
        out.mkdir()
        kept.mkdir()
        places = (str(size), str(out), str(older), str(kept))
        command = ["unshare", "--mount", "sh", "-c", ON_A_DISK, "sh", *places, *command]
    else:
        shutil.copytree(older, out)
        command = ["sh", "-c", 'ulimit -v $1; shift; exec "$@"', "sh", f"{size // KIB}", *command]
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        try:
            code = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        said.seek(0)
        lines = said.read().splitlines()
    if kind == "disk":
        out.rmdir()
        kept.rename(out)
    problems = faults(out, older, expected, ignored)
    shutil.rmtree(out)
    if code == 0:
        return "done", problems
    if code == 1 and lines and "Traceback (most recent call last):" not in lines:
        return "one line", problems
    if kind == "memory" and (code < 0 or code in (127, 134, 139)):
        return "hung" if code == -signal.SIGKILL else "crashed", problems
    return "wrong", [*problems, f"exit status {code}: {lines[-1:]!s:.300}"]


def _peak(command: Sequence[str]) -> int:
    """Runs it without limits; returns the most bytes that one of its processes reserved."""
    peak = 0
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        while process.poll() is None:
            peak = max(peak, _reserved(process.pid))
            time.sleep(0.02)
        if process.returncode:
            said.seek(0)
            sys.exit(f"exit status {process.returncode}:\n{said.read()[-2000:]}")
    return peak * os.sysconf("SC_PAGE_SIZE")


def _reserved(process: int) -> int:
    """The most pages that it or a descendant reserves now."""
    try:
        sizes = Path(f"/proc/{process}/statm").read_text().split()
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:  # it has just ended
        return 0
    return max([int(sizes[0]) if sizes else 0, *map(_reserved, map(int, children))])


def _size(folder: Path) -> int:
    """The bytes that a tmpfs needs for its files: whole pages."""
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(
        -(-path.stat().st_size // page) * page for path in folder.rglob("*") if path.is_file()
    )


if __name__ == "__main__":
    app.run(main)
