"""Kills a command by force at random moments, and holds what it ends with against a run in peace.

The command is run again after each kill, as a user would, until it ends; then all over, until there
were as many kills as asked for.  `{out}` in it is the folder that it writes to.

python drills/kills.py --kills 10 --ignore log.csv --ignore checkpoint.safetensors -- \
    python -m keras_models.train --config configs/shufflenet_v2_cifar10.toml \
    --set data.train=synthetic:2560 --set data.test=synthetic:640 --set training.epochs=3 \
    --set save_every_s=1 --set out={out}
python drills/kills.py --kills 10 -- python -m convert --model shufflenet_v2 --width 0.5 \
    --option stem=cifar --resolution 32 --num_classes 10 --weights random --int8 \
    --qat_epochs 2 --qat_data synthetic:2560 --out {out}
"""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

flags.DEFINE_integer("kills", 10, "How many kills.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Of the moments.")
flags.DEFINE_multi_string("ignore", [], "Files that hold times: not compared, a pattern each.")


def main(argv: list[str]) -> int:
    """Leaves with 1 where a killed run ended with other files than one in peace."""
    given = flags.FLAGS
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        start = time.monotonic()
        _run(_words(argv[1:], out))
        in_peace = time.monotonic() - start
        expected = _files(out, given.ignore)
        shutil.rmtree(out)
        print(f"in peace: {in_peace:.1f} s, {len(expected)} files compared", flush=True)

        kills = ended = 0
        while kills < given.kills or out.exists():
            moment = rng.uniform(0, in_peace) if kills < given.kills else None
            if not _run(_words(argv[1:], out), killed_after=moment):
                kills += 1
                left = sum(path.is_file() for path in out.rglob("*"))
                print(f"kill {kills} after {moment:.1f} s: {left} files left", flush=True)
                out.mkdir(exist_ok=True)
                continue
            ended += 1
            found = _files(out, given.ignore)
            others = sorted(k for k in expected | found if expected.get(k) != found.get(k))
            if others:
                print(f"after {kills} kills these differ: {', '.join(others)}")
                return 1
            print(f"after {kills} kills it ended with the same files", flush=True)
            shutil.rmtree(out)
    print(f"{kills} kills, {ended} runs to the end: all files as in peace, byte for byte")
    return 0


def _words(command: Sequence[str], out: Path) -> list[str]:
    return [word.replace("{out}", str(out)) for word in command]


def _run(words: Sequence[str], *, killed_after: float | None = None) -> bool:
    """Returns whether it came to its end before it was killed, after so many seconds."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(words, stdout=said, stderr=said, start_new_session=True)
        try:
            code = process.wait(killed_after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return False
        if code:
            said.seek(0)
            sys.exit(f"left with {code}:\n{said.read()[-2000:]}")
    return True


def _files(folder: Path, ignored: Sequence[str]) -> dict[str, str]:
    """SHA-256 of each file, by its path in the folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not any(path.match(pattern) for pattern in ignored)
    }


if __name__ == "__main__":
    app.run(main)
