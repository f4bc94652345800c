"""An emulated ARM core: instructions of an inference, counted exactly.  They are no time."""

from dataclasses import dataclass
from pathlib import Path

from android_bench.emulated import cores, process, setup
from android_bench.targets import Counted, Facts, Machine

NOTE = "guest instructions of one thread, in no proportion to time: rank and guard with them"


@dataclass(frozen=True)
class EmulatedTarget:
    """A core of `cores.CORES`; raises InputError where it is unknown, or not set up."""

    core: str

    def __post_init__(self) -> None:
        cores.find(self.core)
        setup.find()

    def machine(self) -> Machine:
        """The core; the fingerprint holds the versions of all that the counts depend on."""
        system = setup.find()
        return Machine(
            cpu=f"{cores.find(self.core).name}, emulated by QEMU {system.qemu_version}",
            governor=None,
            load_average=None,
            fingerprint=f"emulated:{self.core} {system.digest}",
        )

    def load(self, path: Path, *, warmup: int, seed: int) -> "EmulatedSession":
        """Starts a guest and loads the model in it."""
        guest = process.Guest(cores.find(self.core), setup.find().folder)
        try:
            guest.ask("load", path=str(path.resolve()), warmup=warmup, seed=seed)
        except BaseException:  # Ctrl-C too: no guest is left behind
            guest.close()
            raise
        return EmulatedSession(guest)

    def close(self) -> None:
        """Holds nothing: a guest for each session, so that no model moves another's counts."""


@dataclass(frozen=True)
class EmulatedSession:
    """A guest and its model."""

    guest: process.Guest

    def measure(self, *, runs: int) -> Counted:
        """Instructions of one inference by class, the mean of `runs`; without those around it."""
        self.guest.ask("measure", runs=runs)
        one, more = self.guest.counted
        return Counted({name: round((more[name] - one[name]) / runs) for name in more})

    def finish(self) -> Facts:
        """Delegation and the runtime; times and memory would be the emulator's."""
        return Facts(
            init_ms=None,
            first_ms=None,
            peak_memory_mb=None,
            process_peak_mb=None,
            runtime_version=self.guest.start["runtime_version"],
            notes=(NOTE,),
            **self.guest.ask("finish"),
        )

    def close(self) -> None:
        """Ends the guest."""
        self.guest.close()
