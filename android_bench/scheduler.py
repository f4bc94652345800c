"""Does work at several places: devices at the same time, this machine's own cores by themselves."""

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar, runtime_checkable

from android_bench.interrupts import undisturbed
from android_bench.measurement import Target

END_S = 60.0  # for the work at all devices to end after Ctrl-C

_T = TypeVar("_T")


@runtime_checkable
class Device(Protocol):
    """A target on a machine of its own, which work on others does not disturb."""

    identity: str  # of the machine, which several targets may be on

    def stop(self) -> None:
        """Makes the thread that works there end by KeyboardInterrupt; may be called again."""


def run(
    targets: Mapping[str, Target],
    work: Callable[[str], _T],
    *,
    done: Callable[[str, _T], None],
) -> None:
    """Does `work` at each target, by its name.

    Devices come first, this machine's cores after them.  Where the work at one device raises, the
    others go on, and what it raised comes at the end; Ctrl-C ends the work at all of them.

    Args:
      targets: The places; those that share a machine have their turns one after the other.
      work: What to do at one, in a thread of its own if there are several devices.
      done: Takes what the work returned, as soon as it did, in the thread of the caller.
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
    ended: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()  # what each leaves to do

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
    except BaseException:  # Ctrl-C, or nobody takes the results
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
