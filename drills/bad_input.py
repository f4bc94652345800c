"""Runs every command on mistakes of users and their data, and on inputs of attackers.

Each must end in one printable line on stderr, after progress, and exit status 1 or 2, within limits
of CPU time and memory.  Files must be unchanged, and no process may remain.

python drills/bad_input.py
python drills/bad_input.py --only ssh                            (only kinds with that word)
"""

import functools
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from absl import app, flags
from crafted import crafted
from mistakes import MISTAKES, make_files

flags.DEFINE_string("only", "", "Only inputs whose kind contains this.")
flags.DEFINE_integer("at_once", 2, "Commands to run at the same time.", lower_bound=1)

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 600.0
LIMIT_BYTES = 12 << 30  # of address space: TensorFlow reserves several GB that it does not use
RESIDENT_BYTES = 1536 << 20
CPU_S = 10.0  # beyond that of a start
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
    """Prints a line for each input that is handled wrongly; returns 1 if there is one."""
    every = [(*mistake, make_files) for mistake in MISTAKES] + list(crafted())
    chosen = [one for one in every if flags.FLAGS.only in one[0]]
    faults = 0
    with ThreadPoolExecutor(flags.FLAGS.at_once) as pool:
        problems = pool.map(lambda one: fault(*one[1:]), chosen)
        for (kind, _, command, *_), problem in zip(chosen, problems, strict=True):
            if problem:
                faults += 1
                print(f"{kind}: {problem}\n    {command!r}", flush=True)
    print(f"{len(chosen)} inputs: {faults} not taken as they should be")
    return int(faults > 0)


def fault(code: int, command: str, says: str, make: Callable[[Path], None] = make_files) -> str:
    """Runs a command in a folder of its own; returns what it did wrong, or nothing."""
    with tempfile.TemporaryDirectory() as outer, tempfile.TemporaryDirectory() as home:
        place, scratch = Path(outer, "outer", "place"), Path(outer, "tmp")
        place.mkdir(parents=True)
        make(place)
        scratch.mkdir()
        before = _contents(Path(outer))
        # Keras and Matplotlib write to the home folder.
        ended = _run(command, place, {"HOME": home, "TMPDIR": str(scratch)})
        after = _contents(Path(outer))
    free = ["outer/place/cache/"] + ["outer/place/build/"] * (code == 0)
    changed = [
        path
        for path in before.keys() | after.keys()
        if before.get(path) != after.get(path) and not f"{path}/".startswith(tuple(free))
    ]
    lines = ended.said.splitlines()
    name = NAMES[re.findall(r"python -m (\S+)", command)[0]]
    strange = [line for line in lines if not (line.startswith(f"{name}: ") and line.isprintable())]
    if ended.code != code:
        return f"left with {ended.code}, not {code}: {lines[-1:]}"
    if strange:
        return f"said {strange[:5]}"
    if code and says not in lines[-1]:
        return f"{says!r} is not in {lines[-1]!r}"
    if code and ended.resident_bytes > RESIDENT_BYTES:
        return f"took {ended.resident_bytes >> 20} MB of memory"
    if code and ended.cpu_s > CPU_S + _start_s():
        return f"took {ended.cpu_s:.0f} s of CPU"
    return f"changed {sorted(changed)[:5]}" if changed else ""


@dataclass(frozen=True)
class _Ended:
    """How a command ended."""

    code: int | str  # the exit status, or why there is none
    said: str  # on stderr
    resident_bytes: int  # at most, of one of its processes
    cpu_s: float  # of all of them


@functools.cache
def _start_s() -> float:
    """The CPU time of the imports that a command needs at most."""
    command = "python -c 'import tensorflow, tf_keras; import tensorflow_model_optimization'"
    return _run(command, ROOT, {}).cpu_s


def _run(command: str, place: Path, env: Mapping[str, str]) -> _Ended:
    words = shlex.split(command)
    variables = dict(word.split("=", 1) for word in words[: words.index("python")])
    with tempfile.TemporaryFile() as said:
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
            stderr=said,
            start_new_session=True,
        )
        resource.prlimit(process.pid, resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
        code, usage = _wait(process)
        said.seek(0)
        err = said.read().decode(errors="replace")
    return _Ended(code, err, usage.ru_maxrss << 10, usage.ru_utime + usage.ru_stime)


def _wait(process: "subprocess.Popen[bytes]") -> tuple[int | str, resource.struct_rusage]:
    """The exit status, or why there is none, and what the process and its children used."""
    end = time.monotonic() + TIMEOUT_S
    late = False
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > end and not late:
            late = True
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.05)
    process.returncode = os.waitstatus_to_exitcode(status)
    if late:
        return f"nothing after {TIMEOUT_S:g} s", usage
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return process.returncode, usage
    return "a process that goes on running", usage


def _contents(folder: Path) -> dict[str, object]:
    """All paths, with the bytes of files; of large ones their size and time."""
    return {path.relative_to(folder).as_posix(): _content(path) for path in folder.rglob("*")}


def _content(path: Path) -> object:
    if not path.is_file():
        return None
    status = path.stat()
    small = status.st_size < 1 << 24
    return path.read_bytes() if small else (status.st_size, status.st_mtime_ns)


if __name__ == "__main__":
    app.run(main)
