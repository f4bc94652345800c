"""Kills a command with SIGKILL at random moments, and checks its files each time.

Every second round starts with the files of an older run, the others in an empty folder.  After each
kill every file with its final name must be complete: the older or the new one, byte for byte, and a
bundle must be entirely older or new.  The command then runs again until it ends; the folder must
then hold what an undisturbed run writes.  `{out}` in the command is the folder that it writes to.

python drills/kills.py --kills 40 --older=--seed=1 -- \
    python -m convert --model mobilenet_v1 --width 0.25 --resolution 32 --num_classes 10 \
    --weights random --int8 --calibration examples --out {out}
python drills/kills.py --kills 20 -- python -m convert --model mobilenet_v1 --width 0.25 \
    --resolution 32 --num_classes 10 --weights random --int8 --calibration examples \
    --qat_epochs 2 --qat_data synthetic:1280 --out {out}
python drills/kills.py --kills 20 --ignore log.csv --ignore checkpoint.safetensors \
    --between best.safetensors -- python -m keras_models.train \
    --config configs/mobilenet_v1_cifar10.toml --set data.train=synthetic:1280 \
    --set data.test=synthetic:640 --set training.epochs=3 --set save_every_s=1 --set out={out}
python drills/kills.py --kills 20 --older=--seed=1 -- python -m android_bench \
    --sweep drills/sweep.toml --cache {out}/cache --out {out}/rows.jsonl
"""

import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags
from leftovers import digests, faults

flags.DEFINE_integer("kills", 10, "Number of kills.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of the moments.")
flags.DEFINE_string("older", "", "Additional arguments of the older run; none: the same run.")
flags.DEFINE_multi_string("ignore", [], "Pattern of files that hold times and are not compared.")
flags.DEFINE_multi_string(
    "between", [], "Pattern of files that change during a run: compared at the end."
)

TO_THE_END = 1 / 3  # share of runs after a kill that are not killed again


def main(argv: list[str]) -> int:
    """Returns 1 where a file is lost, incomplete, or differs from an undisturbed run's."""
    arguments = flags.FLAGS
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        out, older = Path(folder, "out"), Path(folder, "older")
        _run([*_words(argv[1:], out), *shlex.split(arguments.older)])
        out.rename(older)
        start = time.monotonic()
        _run(_words(argv[1:], out))
        in_peace = time.monotonic() - start
        expected = digests(out, arguments.ignore)
        print(f"in peace: {in_peace:.1f} s, {len(expected)} files compared", flush=True)

        kills = ended = 0
        while kills < arguments.kills:
            shutil.rmtree(out)
            before = None if ended % 2 else older
            if before:
                shutil.copytree(before, out)
            last = None  # moment of a kill
            while True:
                in_peace_now = kills >= arguments.kills or (last and rng.random() < TO_THE_END)
                last = None if in_peace_now else rng.uniform(0, in_peace)
                if _run(_words(argv[1:], out), killed_after=last):
                    break
                kills += 1
                out.mkdir(exist_ok=True)
                print(f"kill {kills} after {last:.1f} s", flush=True)
                if found := faults(out, before, expected, [*arguments.ignore, *arguments.between]):
                    print(f"after kill {kills}: {'; '.join(found)}")
                    return 1
            ended += 1
            now = digests(out, arguments.ignore)
            complete = {**(digests(before, arguments.ignore) if before else {}), **expected}
            others = sorted(k for k in complete | now if complete.get(k) != now.get(k))
            if others or (found := faults(out, before, expected, arguments.ignore)):
                print(f"after {kills} kills these differ: {', '.join(others or found)}")
                return 1
    print(f"{kills} kills, {ended} runs to the end: all files as in peace, byte for byte")
    return 0


def _words(command: Sequence[str], out: Path) -> list[str]:
    return [word.replace("{out}", str(out)) for word in command]


def _run(words: Sequence[str], *, killed_after: float | None = None) -> bool:
    """Returns whether it ended before it was killed, after that many seconds."""
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
            sys.exit(f"exit status {code}:\n{said.read()[-2000:]}")
    return True


if __name__ == "__main__":
    app.run(main)
