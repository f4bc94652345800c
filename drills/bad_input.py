"""Runs every command on what users and their data get wrong, and looks at what it says and leaves.

A mistake must give one line on stderr, progress before it, and 1 or 2; nothing may be there that
was not there before, nothing be missing or changed, and no process be left.

python drills/bad_input.py
python drills/bad_input.py --only ssh                            (those whose kind has that word)
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

flags.DEFINE_string("only", "", "Those alone whose kind holds this.")
flags.DEFINE_integer("at_once", 2, "How many commands run at the same time.", lower_bound=1)

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 600.0
LIMIT_BYTES = 12 << 30  # TensorFlow reserves several gigabytes that it does not use
NAMES = {  # of the commands, as they begin their lines
    "convert": "convert",
    "convert.classify": "classify",
    "convert.accuracy": "accuracy",
    "keras_models": "keras_models",
    "keras_models.train": "train",
    "keras_models.train.publish": "ship",
    "android_bench": "android_bench",
}


def main(argv: list[str]) -> int:
    """Prints a line for each mistake that was not taken well; leaves with 1 where there is one."""
    chosen = [mistake for mistake in MISTAKES if flags.FLAGS.only in mistake[0]]
    faults = 0
    with ThreadPoolExecutor(flags.FLAGS.at_once) as pool:
        found = pool.map(lambda mistake: fault(*mistake[1:]), chosen)
        for (kind, _, command, _), problem in zip(chosen, found, strict=True):
            if problem:
                faults += 1
                print(f"{kind}: {problem}\n    {command!r}", flush=True)
    print(f"{len(chosen)} mistakes: {faults} not taken as they should be")
    return int(faults > 0)


def fault(code: int, command: str, says: str) -> str:
    """Runs a command among files of its own; what is wrong with what it did, or nothing."""
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as home:
        place, scratch = Path(name, "outer", "place"), Path(name, "tmp")
        make_files(place)
        scratch.mkdir()
        before = _contents(Path(name))
        # Keras and Matplotlib have files of theirs in the user's home.
        ended, err = _run(command, place, {"HOME": home, "TMPDIR": str(scratch)})
        after = _contents(Path(name))
    free = ["outer/place/cache/"] + ["outer/place/build/"] * (code == 0)
    changed = [
        path
        for path in before.keys() | after.keys()
        if before.get(path) != after.get(path) and not f"{path}/".startswith(tuple(free))
    ]
    lines = err.splitlines()
    ours = NAMES[re.findall(r"python -m (\S+)", command)[0]]
    strange = [line for line in lines if not line.startswith(f"{ours}: ")]
    if ended != code:
        return f"left with {ended}, not {code}: {lines[-1:]}"
    if strange:
        return f"said {strange[:5]}"
    if code and says not in lines[-1]:
        return f"{says!r} is not in {lines[-1]!r}"
    return f"changed {sorted(changed)[:5]}" if changed else ""


def _run(command: str, place: Path, env: Mapping[str, str]) -> tuple[int | str, str]:
    """Its exit code, or why it has none, and what it wrote to stderr."""
    words = shlex.split(command)
    given = dict(word.split("=", 1) for word in words[: words.index("python")])
    process = subprocess.Popen(
        [sys.executable, *words[words.index("python") + 1 :]],
        cwd=place,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), **env, **given},
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
    """All that is there, with the bytes of files."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


if __name__ == "__main__":
    app.run(main)
