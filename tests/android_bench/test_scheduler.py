"""Places that work at the same time, and what one that fails means for the others."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from android_bench import results, scheduler
from android_bench.measurement import Machine
from tests.android_bench.rows import row


@dataclass
class Core:
    """A target on this machine; it is never used here."""

    def machine(self) -> Machine:
        raise NotImplementedError

    def load(self, path: Path, *, warmup: int, seed: int) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


@dataclass
class Phone(Core):
    """A target on a machine of its own."""

    identity: str
    stopped: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        self.stopped.set()


class Work:
    """Notes who is at work with whom; those in `together` wait for each other."""

    def __init__(self, *together: str) -> None:
        self.barrier = threading.Barrier(len(together)) if together else None
        self.together = together
        self.busy: set[str] = set()
        self.met: dict[str, set[str]] = {}
        self.threads: dict[str, threading.Thread] = {}

    def __call__(self, name: str) -> str:
        self.busy.add(name)
        self.threads[name] = threading.current_thread()
        if self.barrier and name in self.together:
            self.barrier.wait(timeout=1200)
        self.met[name] = set(self.busy)
        if self.barrier and name in self.together:
            self.barrier.wait(timeout=1200)
        self.busy.remove(name)
        return f"of {name}"


def run(targets: dict[str, Core], work: Callable[[str], str]) -> dict[str, str]:
    finished: dict[str, str] = {}

    def done(name: str, result: str) -> None:
        assert threading.current_thread() is threading.main_thread()
        finished[name] = result

    scheduler.run(targets, work, done=done)
    return finished


def test_devices_work_at_the_same_time_and_this_machine_alone() -> None:
    work = Work("adb:a", "ssh:b")
    targets = {"host": Core(), "adb:a": Phone("1"), "emulated:a53": Core(), "ssh:b": Phone("2")}
    finished = run(targets, work)
    assert finished == {name: f"of {name}" for name in targets}
    assert work.met["adb:a"] == work.met["ssh:b"] == {"adb:a", "ssh:b"}
    assert work.met["host"] == {"host"}
    assert work.met["emulated:a53"] == {"emulated:a53"}


def test_targets_on_one_device_take_turns() -> None:
    work = Work("adb:a", "ssh:b")
    run({"adb:a": Phone("1"), "adb-apk:a": Phone("1"), "ssh:b": Phone("2")}, work)
    assert "adb:a" not in work.met["adb-apk:a"]
    assert "adb-apk:a" not in work.met["adb:a"]


@pytest.mark.parametrize("identities", ["1", "11"])
def test_one_device_needs_no_thread(identities: str) -> None:
    work = Work()
    run({f"adb:{n}": Phone(identity) for n, identity in enumerate(identities)}, work)
    assert set(work.threads.values()) == {threading.main_thread()}


def test_an_error_of_one_is_raised_after_the_others_finish() -> None:
    raised = threading.Event()
    finished: dict[str, str] = {}

    def work(name: str) -> str:
        if name == "adb:a":
            raised.set()
            raise ValueError("a defect")
        assert raised.wait(timeout=1200)
        return name

    with pytest.raises(ValueError, match="a defect"):
        scheduler.run({"adb:a": Phone("1"), "adb:b": Phone("2")}, work, done=finished.__setitem__)
    assert finished == {"adb:b": "adb:b"}


def test_all_are_stopped_if_done_fails() -> None:
    phones = {"adb:a": Phone("1"), "adb:b": Phone("2")}

    def work(name: str) -> str:
        if name == "adb:b":
            assert phones[name].stopped.wait(timeout=1200)
            raise KeyboardInterrupt
        return name

    def done(name: str, result: str) -> None:
        raise OSError("disk full")

    before = threading.active_count()
    with pytest.raises(OSError, match="disk full"):
        scheduler.run(phones, work, done=done)
    assert threading.active_count() == before


def test_rows_of_several_threads_stay_together(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    models = range(5)

    def write(cpu: str) -> None:
        for _ in range(20):
            results.append(out, [row(f"{model}", cpu=cpu) for model in models])

    threads = [threading.Thread(target=write, args=(f"cpu {n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=1200)
    rows = results.read(out)

    def batches() -> Iterator[list[results.Row]]:
        for start in range(0, len(rows), len(models)):
            yield rows[start : start + len(models)]

    assert len(rows) == 6 * 20 * len(models)
    for batch in batches():
        assert [one.model for one in batch] == [f"{model}" for model in models]
        assert len({one.cpu for one in batch}) == 1
