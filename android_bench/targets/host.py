"""This machine, through the Python interpreter of LiteRT or TFLite: a process for each model."""

import contextlib
import dataclasses
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from android_bench.exit_reason import exit_reason
from android_bench.instruction_set import instruction_set
from android_bench.measurement import (
    DEFAULT_DELEGATE,
    Facts,
    Machine,
    OperatorTime,
    Round,
    TargetError,
)
from shufflelite import isolated

if TYPE_CHECKING:
    from android_bench.op_profiler import IsolatedCost

GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
ISOLATED = {"rounds": 10, "runs": 5, "max_seconds": 10.0}  # for files of single operators
NOTE = (
    "the profile is of operators that ran alone, less the start of an inference: caches are warmer"
    " than in the whole model"
)


@dataclass(frozen=True)
class HostTarget:
    """This machine."""

    runtime: str
    threads: int
    profile: bool = False
    delegate: str = DEFAULT_DELEGATE  # or "none"

    def machine(self) -> Machine:
        """Returns the CPU and its instruction set, its frequency governor and its load."""
        governor = GOVERNOR.read_text().strip() if os.access(GOVERNOR, os.R_OK) else None
        cpuinfo = _cpuinfo()
        load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
        return Machine(
            cpu=_cpu(cpuinfo),
            governor=governor,
            load_average=load,
            instruction_set=instruction_set(cpuinfo),
        )

    def load(self, path: Path, *, warmup: int, seed: int) -> "HostSession":
        """Starts a worker and loads the model in it."""
        session = HostSession(self, path)
        try:
            session.ask(
                "load",
                path=str(path),
                **self._interpreter(),
                warmup=warmup,
                seed=seed,
            )
        except BaseException:  # Ctrl-C too: end the worker
            session.close()
            raise
        return session

    def isolated_costs(self, files: Sequence[Path]) -> "list[IsolatedCost]":
        """Measures the milliseconds of an inference of each file, all in one worker, in rounds."""
        from android_bench.op_profiler import IsolatedCost

        with contextlib.closing(HostSession(self)) as worker:
            measured = worker.ask(
                "isolated_times",
                paths=[str(path) for path in files],
                **self._interpreter(),
                **ISOLATED,
            )
        return [
            IsolatedCost(float(np.median(rounds)) / 1e6, delegated)
            for rounds, delegated in measured
        ]

    def close(self) -> None:
        """Does nothing: each session ends its own worker."""

    def _interpreter(self) -> dict[str, Any]:
        return {"runtime": self.runtime, "threads": self.threads, "delegate": self.delegate}


class HostSession:
    """A worker process and its model."""

    def __init__(self, target: HostTarget, path: Path | None = None) -> None:
        self.target, self.path = target, path
        # A file: a full pipe would block the worker.  It stays open as long as the session.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            isolated.guarded([sys.executable, "-m", "android_bench.host_worker"]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
            },  # same modules as in this process
            start_new_session=True,  # the worker must not get Ctrl-C
        )

    def measure(self, *, runs: int) -> Round:
        """Times `runs` inferences."""
        times_ms = np.array(self.ask("measure", runs=runs)) / 1e6
        p5, median, p95 = np.percentile(times_ms, (5, 50, 95))
        return Round(float(median), float(p5), float(p95), float(times_ms.min()), runs)

    def finish(self) -> Facts:
        """Returns memory, delegation and start-up times."""
        reported = self.ask("finish")
        taken = reported["delegate_partitions"]
        facts = Facts(delegate=DEFAULT_DELEGATE if taken else "none", **reported)
        if not self.target.profile or self.path is None:
            return facts
        from android_bench import op_profiler

        profile, notes = op_profiler.profile_or_note(self.path, self.target, note=NOTE)
        rows = [OperatorTime(one.tensor, one.type, one.cost, 1, one.delegated) for one in profile]
        return dataclasses.replace(facts, profile=rows, notes=notes)

    def close(self) -> None:
        """Ends the worker."""
        self.process.kill()
        self.process.communicate()
        self._stderr.close()

    def ask(self, verb: str, **arguments: Any) -> Any:
        """Sends a request and returns the answer; has no time limit, since models may be slow."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            print(json.dumps({"do": verb, **arguments}), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise TargetError(exit_reason("its worker process", self.process, self._stderr))
        reply = json.loads(line)
        if "error" in reply:
            raise TargetError(reply["error"])
        return reply["answer"]


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def _cpu(cpuinfo: str) -> str:
    named = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return named[1] if named else platform.processor() or platform.machine()
