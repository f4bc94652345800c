"""An emulated ARM core, which counts the instructions of an inference exactly."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from android_bench.emulated import cores, process, setup
from android_bench.instruction_set import instruction_set
from android_bench.measurement import DEFAULT_DELEGATE, Counted, Facts, Machine, OperatorCount

if TYPE_CHECKING:
    from android_bench.op_profiler import IsolatedCost

NOTE = "guest instructions of one thread, in no proportion to time: rank and guard with them"
PROFILE_NOTE = (
    "the profile is of operators that ran alone, less the start of an inference: operators that are"
    " no-ops in the whole model (reshape) may copy when isolated"
)


@dataclass(frozen=True)
class EmulatedTarget:
    """A core of `cores.CORES`; raises InputError if it is unknown or not set up."""

    core: str
    profile: bool = False

    def __post_init__(self) -> None:
        cores.find(self.core)
        setup.find()

    def machine(self) -> Machine:
        """Returns the core; its fingerprint covers all versions that the counts depend on."""
        system, core = setup.find(), cores.find(self.core)
        return Machine(
            cpu=f"{core.name}, emulated by QEMU {system.qemu_version}",
            governor=None,
            load_average=None,
            fingerprint=f"emulated:{self.core} {system.digest}",
            instruction_set=instruction_set(cores.files(core)["proc/cpuinfo"]),
        )

    def load(self, path: Path, *, warmup: int, seed: int) -> "EmulatedSession":
        """Starts a guest and loads the model in it."""
        guest = process.Guest(cores.find(self.core), setup.find().folder)
        session = EmulatedSession(guest, path.resolve(), self.profile)
        try:
            session.load(session.path, warmup=warmup, seed=seed)
        except BaseException:  # Ctrl-C too: end the guest
            guest.close()
            raise
        return session

    def isolated_costs(self, files: Sequence[Path]) -> "list[IsolatedCost]":
        """Counts the instructions of an inference of each file, all in one guest."""
        guest = process.Guest(cores.find(self.core), setup.find().folder)
        with contextlib.closing(EmulatedSession(guest, Path())) as session:
            return session.isolated_costs(files)

    def close(self) -> None:
        """Does nothing: each session has its own guest, whose counts no other model shifts."""


@dataclass(frozen=True)
class EmulatedSession:
    """A guest and its model."""

    guest: process.Guest
    path: Path
    profile: bool = False

    def load(self, path: Path, *, warmup: int, seed: int) -> None:
        """Loads a model in place of the previous one."""
        self.guest.ask("load", path=str(path), warmup=warmup, seed=seed)

    def measure(self, *, runs: int) -> Counted:
        """Counts instructions of one inference by class: the mean of `runs`, without overhead."""
        self.guest.ask("measure", runs=runs)
        one, more = self.guest.counted
        return Counted({name: round((more[name] - one[name]) / runs) for name in more})

    def finish(self) -> Facts:
        """Returns delegation and the runtime; times and memory would be the emulator's."""
        delegation = self.guest.ask("finish")
        rows, notes = self._profile() if self.profile else ([], [])
        return Facts(
            init_ms=None,
            first_ms=None,
            peak_memory_mb=None,
            process_peak_mb=None,
            delegate=DEFAULT_DELEGATE if delegation["delegate_partitions"] else "none",
            runtime_version=self.guest.start["runtime_version"],
            profile=rows,
            notes=[NOTE, *notes],
            **delegation,
        )

    def isolated_costs(self, files: Sequence[Path]) -> "list[IsolatedCost]":
        """Counts the instructions of an inference of each file; replaces the model."""
        from android_bench.op_profiler import IsolatedCost

        costs = []
        for path in files:
            self.load(path, warmup=1, seed=0)
            count = sum(self.measure(runs=1).instructions.values())
            costs.append(IsolatedCost(count, not self.guest.ask("finish")["undelegated_operators"]))
        return costs

    def _profile(self) -> tuple[list[OperatorCount], list[str]]:
        from android_bench import op_profiler

        profile, notes = op_profiler.profile_or_note(self.path, self, note=PROFILE_NOTE)
        rows = [
            OperatorCount(one.tensor, one.type, round(one.cost), 1, one.delegated)
            for one in profile
        ]
        return rows, notes

    def close(self) -> None:
        """Ends the guest."""
        self.guest.close()
