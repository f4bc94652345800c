"""Kills one of two machines of a training with SIGKILL at random moments, and starts it again.

The other must notice, restart by itself and continue.  The weights must be those of an undisturbed
training, bit for bit; the statistics of batch norms up to rounding, since each machine has its own
and both continue from the mean.  The machines are processes on loopback.

python drills/lost_worker.py --kills 10
"""

import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import safetensors.numpy
from absl import app, flags

flags.DEFINE_integer("kills", 10, "Number of kills.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of the moments.")

TRAINING = (
    "--config=configs/mobilenet_v1_cifar10.toml",
    "--set=distribution.strategy=multi_worker",
    "--set=network.resolution=16",
    "--set=data.train=synthetic:640",
    "--set=data.test=synthetic:20",
    "--set=training.epochs=4",
    "--set=training.batch=16",
    "--set=save_every_s=2",
)
LONGEST_S = 300  # from the last kill to the end of the training
OWN = ("moving_mean", "moving_variance")  # of each machine's own pictures
ROUNDING = 1e-5  # relative to the largest


def main(argv: list[str]) -> int:
    """Returns 1 where a training does not end, or ends with other weights."""
    arguments = flags.FLAGS
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        machines = Machines(Path(folder, "peace"))
        machines.wait()
        in_peace = time.monotonic() - start
        expected = machines.learnt()
        print(f"in peace: {in_peace:.1f} s", flush=True)
        kills = ended = 0
        while kills < arguments.kills:
            ended += 1
            machines = Machines(Path(folder, str(ended)))
            for _ in range(rng.randint(1, 3)):
                moment, lost = rng.uniform(0, in_peace), rng.randrange(2)
                if not machines.kill(lost, after=moment):
                    break
                kills += 1
                print(f"kill {kills}: machine {lost} after {moment:.1f} s", flush=True)
                time.sleep(rng.uniform(0, 10))
                machines.start(lost)
            machines.wait()
            weights = machines.learnt()
            if others := [name for name in expected if not _same(name, expected, weights)]:
                print(f"after {kills} kills these differ: {', '.join(others)}")
                return 1
    print(f"{kills} kills, {ended} trainings to the end: as in peace")
    return 0


class Machines:
    """Two processes of one training."""

    def __init__(self, out: Path) -> None:
        """Starts both."""
        self.out = out
        with socket.socket() as one, socket.socket() as other:
            for free in (one, other):
                free.bind(("127.0.0.1", 0))
            self.hosts = [f"127.0.0.1:{free.getsockname()[1]}" for free in (one, other)]
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        for index in range(2):
            self.start(index)

    def start(self, index: int) -> None:
        """Starts one, or restarts it by the same command."""
        task = {"cluster": {"worker": self.hosts}, "task": {"type": "worker", "index": index}}
        command = [sys.executable, "-m", "keras_models.train", *TRAINING, f"--set=out={self.out}"]
        with open(f"{self.out}_{index}.log", "ab") as log:
            self.processes[index] = subprocess.Popen(
                command,
                env={**os.environ, "TF_CONFIG": json.dumps(task)},
                stdout=log,
                stderr=log,
            )

    def kill(self, index: int, *, after: float) -> bool:
        """Returns whether it was killed: not if the training ended before."""
        try:
            self.processes[index].wait(after)
        except subprocess.TimeoutExpired:
            self.processes[index].kill()
            self.processes[index].wait()
            return True
        return False

    def wait(self) -> None:
        """Waits for the end of both."""
        try:
            codes = [process.wait(LONGEST_S) for process in self.processes.values()]
        except subprocess.TimeoutExpired:
            codes = ["none: the training hangs"]
        if any(codes):
            for index, process in self.processes.items():
                process.kill()
                print(Path(f"{self.out}_{index}.log").read_text()[-2000:])
            sys.exit(f"codes {codes}")

    def learnt(self) -> dict[str, np.ndarray]:
        """The last weights."""
        return safetensors.numpy.load_file(self.out / "weights.safetensors")


def _same(name: str, expected: dict[str, np.ndarray], actual: dict[str, np.ndarray]) -> bool:
    if name.endswith(OWN):
        error = np.abs(actual[name] - expected[name]).max()
        return bool(error <= ROUNDING * np.abs(expected[name]).max())
    return bool(np.array_equal(actual[name], expected[name]))


if __name__ == "__main__":
    app.run(main)
