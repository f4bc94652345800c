"""Where models run.  A target loads a model; the session it returns is measured round by round."""

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from android_bench.errors import FlagError
from shufflelite.errors import InputError

DEFAULT_DELEGATE = "xnnpack"  # that every runtime takes where it is not told another
DELEGATES: Mapping[str, Sequence[str]] = {  # that can be chosen, by the target's name
    "host": ("xnnpack", "none"),
    "adb": ("xnnpack", "gpu", "nnapi", "none"),
    "adb-apk": ("xnnpack", "gpu", "nnapi", "none"),
    "ssh": ("xnnpack", "gpu", "none"),
    "emulated": (),
}
HAS_NOT = {  # options that the target is without
    "host": ("cores", "benchmark_binary"),
    "emulated": ("runtime", "threads", "cores", "benchmark_binary"),
}
ADB_PORT = "ANDROID_ADB_SERVER_PORT"
MAX_THREADS = 256
MAX_THREADS_PER_CORE = 4  # of this machine


class TargetError(Exception):
    """A model that could not be run, in one line; the other models are not concerned."""


@dataclass(frozen=True)
class Options:
    """What is asked of a target; None leaves it to the target."""

    runtime: str = "litert"  # on the host: "litert" or "tflite-runtime"
    threads: int = 1
    profile: bool = False  # cost of each operator, in Facts.profile
    cores: str | None = None  # on a device: "big", "little", or numbers as in "4-7"
    benchmark_binary: str | None = None  # on a device: a file of the benchmark tool
    delegate: str | None = None  # of DELEGATES


@dataclass(frozen=True)
class Machine:
    """What ran the models; None where it does not tell."""

    cpu: str
    governor: str | None
    load_average: float | None  # over the last minute
    temperature_c: float | None = None
    fingerprint: str | None = None  # of a device: model, build, ABI
    cores: tuple[int, ...] = ()  # that the models are kept to; empty: all


@dataclass(frozen=True)
class Round:
    """One model's timed inferences in one round."""

    median_ms: float
    p5_ms: float
    p95_ms: float
    min_ms: float
    runs: int


@dataclass(frozen=True)
class Counted:
    """Guest instructions of one inference by class, on an emulated core: exact, and no time."""

    instructions: Mapping[str, int]


@dataclass(frozen=True)
class OperatorTime:
    """One row of a profile; `ms` is per inference, over all `calls` of it."""

    name: str
    type: str
    ms: float
    calls: int
    delegated: bool | None


@dataclass(frozen=True)
class OperatorCount:
    """One row of a profile on an emulated core; `instructions` as `ms` above."""

    name: str
    type: str
    instructions: int
    calls: int
    delegated: bool | None


@dataclass(frozen=True)
class Facts:
    """What a session knows of its model besides the times; None: not told.  MB are 2**20 bytes."""

    init_ms: float | None  # constructing the interpreter and allocating its tensors
    first_ms: float | None  # the first inference after that
    peak_memory_mb: float | None  # growth of the process's peak since just before loading
    process_peak_mb: float | None  # the peak itself, with the runtime and Python
    delegate_partitions: int | None
    undelegated_operators: Mapping[str, int] | None
    runtime_version: str | None
    profile: Sequence[OperatorTime | OperatorCount] = ()
    notes: Sequence[str] = ()  # what a reader of the figures must know


class Session(Protocol):
    """One loaded and warm model.  Each method raises TargetError when the model has died."""

    def measure(self, *, runs: int) -> Round | Counted:
        """One round: `runs` inferences, after an untimed one."""

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

    def close(self) -> None:
        """Frees what the target holds; always called."""


def check(spec: str, options: Options) -> None:
    """Looks at what can be told without asking any device.

    Raises:
      FlagError: An unknown target, or asked for what it does not have.
      InputError: The environment is wrong.
    """
    if "," in spec:
        several = " ".join(f"--target={one}" for one in spec.split(","))
        raise FlagError(f"--target={spec}: expected one target; repeat the flag: {several}")
    name, _, where = spec.partition(":")
    if name not in DELEGATES or (name == "host" and spec != name):
        near = difflib.get_close_matches(name, DELEGATES, n=1)
        hint = f"Did you mean {near[0]!r}? " if near and near[0] != spec else ""
        raise FlagError(f"Unknown target {spec!r}. {hint}Known: {', '.join(DELEGATES)}.")
    if name == "emulated":
        from android_bench.emulated import cores

        cores.find(where)
    for option in HAS_NOT.get(name, ("runtime",)):
        if getattr(options, option) != getattr(Options(), option):
            raise FlagError(f"The target {spec} has no --{option}: leave it out.")
    if options.delegate is not None and options.delegate not in DELEGATES[name]:
        if not DELEGATES[name]:
            raise FlagError(f"The target {spec} has no --delegate: leave it out.")
        known = " or ".join(DELEGATES[name])
        raise FlagError(f"The target {spec} has no delegate {options.delegate}: choose {known}.")
    most = MAX_THREADS
    if name == "host":
        most = min(most, MAX_THREADS_PER_CORE * (os.cpu_count() or 1))
    if not 1 <= options.threads <= most:
        raise FlagError(f"--threads={options.threads}: expected 1 to {most} on the target {spec}.")
    port = os.environ.get(ADB_PORT, "5037")
    if name.startswith("adb") and not (port.isdecimal() and 0 < int(port) < 1 << 16):
        # To be told before adbutils is imported, which reads it then.
        raise InputError(f"{ADB_PORT}: expected the port of the adb server, got {port!r}.")


def open_target(spec: str, *, options: Options) -> Target:
    """The target that `--target` names, with what is asked of it.

    Raises:
      FlagError: See `check`.
      InputError: It is not there, or not as it must be.
    """
    check(spec, options)
    name, _, where = spec.partition(":")
    if name == "host":
        from android_bench.targets.host import HostTarget

        return HostTarget(
            runtime=options.runtime,
            threads=options.threads,
            profile=options.profile,
            delegate=options.delegate or DEFAULT_DELEGATE,
        )
    if name == "emulated":
        from android_bench.targets.emulated import EmulatedTarget

        return EmulatedTarget(where, profile=options.profile)
    if name == "ssh":
        from android_bench.targets import ssh

        return ssh.open_target(where, options=options)
    from android_bench.targets import adb

    return adb.open_target(where, options=options, apk=name == "adb-apk")
