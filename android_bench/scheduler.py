"""Runs work on several targets: devices in parallel, this machine's cores one by one."""

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar, runtime_checkable

from android_bench.interrupts import undisturbed
from android_bench.measurement import Target

END_S = 60.0  # for the work on all devices to end after Ctrl-C

_T = TypeVar("_T")


@runtime_checkable
class Device(Protocol):
    """A target on a machine of its own: work on other targets does not disturb it."""

    identity: str  # of the machine; several targets may share one

    def stop(self) -> None:
        """Ends the thread that works there by KeyboardInterrupt; may be called repeatedly."""


def run(
    targets: Mapping[str, Target],
    work: Callable[[str], _T],
    *,
    done: Callable[[str, _T], None],
) -> None:
    """Does `work` on each target, by its name.

    Devices come first, then this machine's cores.  If the work on one device raises, the others
    continue, and the error is raised at the end; Ctrl-C ends the work on all of them.

    Args:
      targets: The targets; those that share a machine take turns.
      work: The work on one target; with several devices, it runs in a thread of each.
      done: Called with each result as soon as it is there, in the caller's thread.
    """
    devices = {name: one for name, one in targets.items() if isinstance(one, Device)}
    turns: dict[str, list[str]] = {}
    for name, device in devices.items():
        turns.setdefault(device.identity, []).append(name)
    if len(turns) > 1:
        _at_once(list(turns.values()), list(devices.values()), work, done)
    for name in targets:
        if len(turns) <= 1 or name not in devices:
            done(name, work(name))


def _at_once(
    turns: Sequence[Sequence[str]],
    devices: Sequence[Device],
    work: Callable[[str], _T],
    done: Callable[[str, _T], None],
) -> None:
    ended: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()  # for this thread to call

    def do(names: Sequence[str]) -> None:
        for name in names:
            try:
                result = work(name)
            except BaseException as error:
                ended.put(partial(failures.append, error))
            else:
                ended.put(partial(done, name, result))

    failures: list[BaseException] = []
    threads = [threading.Thread(target=do, args=(names,), daemon=True) for names in turns]
    try:
        for thread in threads:
            thread.start()
        for _ in devices:
            ended.get()()
    except BaseException:  # Ctrl-C, or `done` failed
        undisturbed(lambda: _end(devices, threads))
        raise
    if failures:
        raise failures[0]


def _end(devices: Sequence[Device], threads: Sequence[threading.Thread]) -> None:
    end = time.monotonic() + END_S
    while any(thread.is_alive() for thread in threads) and time.monotonic() < end:
        for device in devices:
            device.stop()
        for thread in threads:
            thread.join(timeout=0.5)
