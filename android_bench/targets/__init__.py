"""Where models run.  A target loads a model; the session it returns is measured round by round."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from keras_models.errors import InputError

NAMES = ("host",)


class TargetError(Exception):
    """A model that could not be run, in one line; the other models are not concerned."""


@dataclass(frozen=True)
class Machine:
    """What ran the models; None where it does not tell."""

    cpu: str
    governor: str | None
    load_average: float | None  # over the last minute


@dataclass(frozen=True)
class Facts:
    """What a session knows of its model besides the times; MB are 2**20 bytes."""

    init_ms: float  # constructing the interpreter and allocating its tensors
    first_ms: float  # the first inference after that
    peak_memory_mb: float | None  # growth of the process's peak since just before loading
    process_peak_mb: float | None  # the peak itself, with the runtime and Python
    delegate_partitions: int
    undelegated_operators: Mapping[str, int]
    runtime_version: str


class Session(Protocol):
    """One loaded and warm model.  Each method raises TargetError when the model has died."""

    def measure(self, *, runs: int) -> list[int]:
        """Nanoseconds of each of `runs` inferences, after an untimed one."""

    def finish(self) -> Facts:
        """The facts, asked for once after the last measurement."""

    def close(self) -> None:
        """Frees what the model holds; always called, whatever happened before."""


class Target(Protocol):
    """A place to run models, with its runtime and number of threads."""

    def machine(self) -> Machine:
        """The machine as it is now."""

    def load(self, path: Path, *, warmup: int, seed: int) -> Session:
        """Loads a model, runs it once and then `warmup` times; raises TargetError."""


def open_target(spec: str, *, runtime: str, threads: int) -> Target:
    """The target that `--target` names."""
    if spec == "host":
        from android_bench.targets.host import HostTarget

        return HostTarget(runtime=runtime, threads=threads)
    near = difflib.get_close_matches(spec, NAMES, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise InputError(f"Unknown target {spec!r}. {hint}Known: {', '.join(NAMES)}.")
