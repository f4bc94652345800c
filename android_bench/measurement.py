"""The dataclasses and protocols of a measurement, which all targets share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shufflelite.config import Bounded, setting

DEFAULT_DELEGATE = "xnnpack"  # of every runtime
UNKNOWN = "unknown"  # delegate: the runtime does not report what it took


class TargetError(Exception):
    """One model could not be run, in one line; the other models are measured."""


@dataclass(frozen=True)
class Options:
    """Options of a target; None: the target's default."""

    TOPIC = "target"

    runtime: str = setting(
        "litert", choices=("litert", "tflite-runtime"), help="TFLite runtime on the host."
    )
    threads: int = setting(1, help="Threads of the runtime.")
    profile: bool = setting(
        False, topic="measurement", help="Also measure the cost of each operator."
    )  # in Facts.profile
    cores: str | None = setting(
        None,
        value_name="CORES",
        help="Cores on devices: big, little, or numbers as in 4-7. Default: big.",
    )
    benchmark_binary: str | None = setting(
        None, value_name="FILE", help="The benchmark tool for devices. Default: downloaded."
    )
    delegate: str | None = setting(
        None,
        choices=("xnnpack", "gpu", "nnapi", "none"),
        help="Delegate on devices; on the host xnnpack or none. Default: xnnpack.",
    )

    @property
    def requested_delegate(self) -> str:
        """The delegate by name, also where it is left to the runtime."""
        return self.delegate or DEFAULT_DELEGATE


@dataclass(frozen=True)
class Plan(Bounded):
    """How much to measure."""

    TOPIC = "measurement"

    rounds: int = setting(
        20,
        least=1,
        help="Rounds over all models. Emulated targets always use 2: instruction counts are "
        "deterministic.",
    )
    runs: int = setting(10, least=1, help="Timed inferences of each model in each round.")
    warmup: int = setting(5, least=0, help="Untimed inferences after the first one.")
    seed: int = setting(0, least=0, help="Seed of the random inputs.")
    max_seconds: float | None = setting(None, least=0, help="Start no new round after this time.")


@dataclass(frozen=True)
class Machine:
    """The machine that ran the models; None: not reported."""

    cpu: str
    governor: str | None
    load_average: float | None  # over the last minute
    temperature_c: float | None = None
    fingerprint: str | None = None  # of a device: model, build, ABI
    cores: tuple[int, ...] = ()  # that the models run on; empty: all
    instruction_set: str | None = None  # such as "avx2", "dotprod"


@dataclass(frozen=True)
class Round:
    """One model's timed inferences in one round."""

    median_ms: float
    p5_ms: float
    p95_ms: float
    min_ms: float
    runs: int

    def __post_init__(self) -> None:
        if not self.median_ms > 0:
            raise TargetError(
                "an inference took 0 us by the clock there: it is too short to be measured alone"
            )


@dataclass(frozen=True)
class Counted:
    """Guest instructions of one inference by class, on an emulated core: exact, but not a time."""

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
    """Facts on a model besides its times; None: not reported.  MB are 2**20 bytes."""

    init_ms: float | None  # constructing the interpreter and allocating its tensors
    first_ms: float | None  # the first inference after that
    peak_memory_mb: float | None  # growth of the process's peak since just before loading
    process_peak_mb: float | None  # the peak itself, with the runtime and Python
    delegate: str  # that took operators: "none" if there is none, UNKNOWN if that is not reported
    delegate_partitions: int | None
    undelegated_operators: Mapping[str, int] | None
    runtime_version: str | None
    profile: Sequence[OperatorTime | OperatorCount] = ()
    notes: Sequence[str] = ()  # on the conditions of the measurement


class Session(Protocol):
    """One loaded and warm model.  Each method raises TargetError when the model has died."""

    def measure(self, *, runs: int) -> Round | Counted:
        """One round: `runs` inferences, after an untimed one."""

    def finish(self) -> Facts:
        """Returns the facts; called once, after the last round."""

    def close(self) -> None:
        """Frees the model's resources; always called."""


class Target(Protocol):
    """A machine that runs models, with its runtime and number of threads."""

    def machine(self) -> Machine:
        """The machine as it is now."""

    def load(self, path: Path, *, warmup: int, seed: int) -> Session:
        """Loads a model, runs it once and then `warmup` times; raises TargetError."""

    def close(self) -> None:
        """Frees the target's resources; always called."""
