"""Runs every command on the mistakes of users and their data, and checks messages and leftovers.

A mistake must end in one line on stderr, after progress, and exit status 1 or 2.  Files must be
unchanged, and no process may remain.

python drills/bad_input.py
python drills/bad_input.py --only ssh                            (only kinds with that word)
"""

import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from absl import app, flags
from mistakes import MISTAKES, make_files

flags.DEFINE_string("only", "", "Only mistakes whose kind contains this.")
flags.DEFINE_integer("at_once", 2, "Commands to run at the same time.", lower_bound=1)

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 600.0
LIMIT_BYTES = 12 << 30  # TensorFlow reserves several gigabytes that it does not use
NAMES = {  # of the commands, as they begin their lines
    "convert": "convert",
    "convert.classify": "classify",
    "convert.accuracy": "accuracy",
    "keras_models": "keras_models",
    "keras_models.train": "train",
    "keras_models.train.publish": "publish",
    "android_bench": "android_bench",
}


def main(argv: list[str]) -> int:
    """Prints a line for each mistake that is handled wrongly; returns 1 if there is one."""
    chosen = [mistake for mistake in MISTAKES if flags.FLAGS.only in mistake[0]]
    faults = 0
    with ThreadPoolExecutor(flags.FLAGS.at_once) as pool:
        problems = pool.map(lambda mistake: fault(*mistake[1:]), chosen)
        for (kind, _, command, _), problem in zip(chosen, problems, strict=True):
            if problem:
                faults += 1
                print(f"{kind}: {problem}\n    {command!r}", flush=True)
    print(f"{len(chosen)} mistakes: {faults} not taken as they should be")
    return int(faults > 0)


def fault(code: int, command: str, says: str) -> str:
    """Runs a command in a folder of its own; returns what it did wrong, or nothing."""
    with tempfile.TemporaryDirectory() as outer, tempfile.TemporaryDirectory() as home:
        place, scratch = Path(outer, "outer", "place"), Path(outer, "tmp")
        make_files(place)
        scratch.mkdir()
        before = _contents(Path(outer))
        # Keras and Matplotlib write to the home folder.
        ended, err = _run(command, place, {"HOME": home, "TMPDIR": str(scratch)})
        after = _contents(Path(outer))
    free = ["outer/place/cache/"] + ["outer/place/build/"] * (code == 0)
    changed = [
        path
        for path in before.keys() | after.keys()
        if before.get(path) != after.get(path) and not f"{path}/".startswith(tuple(free))
    ]
    lines = err.splitlines()
    name = NAMES[re.findall(r"python -m (\S+)", command)[0]]
    strange = [line for line in lines if not line.startswith(f"{name}: ")]
    if ended != code:
        return f"left with {ended}, not {code}: {lines[-1:]}"
    if strange:
        return f"said {strange[:5]}"
    if code and says not in lines[-1]:
        return f"{says!r} is not in {lines[-1]!r}"
    return f"changed {sorted(changed)[:5]}" if changed else ""


def _run(command: str, place: Path, env: Mapping[str, str]) -> tuple[int | str, str]:
    """The exit status, or why there is none, and the text on stderr."""
    words = shlex.split(command)
    variables = dict(word.split("=", 1) for word in words[: words.index("python")])
    process = subprocess.Popen(
        [sys.executable, *words[words.index("python") + 1 :]],
        cwd=place,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
            **env,
            **variables,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    resource.prlimit(process.pid, resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    try:
        _, err = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"nothing after {TIMEOUT_S:g} s", ""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return process.returncode, err.decode(errors="replace")
    return "a process that goes on running", err.decode(errors="replace")


def _contents(folder: Path) -> dict[str, bytes | None]:
    """All paths, with the bytes of files."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


if __name__ == "__main__":
    app.run(main)
