"""Locks against other processes, which end with the process that holds them, however it ends."""

import contextlib
import os
import platform
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from shufflelite.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def alone(path: Path, busy: Callable[[str], None] = lambda holder: None) -> Iterator[None]:
    """Holds `path`, a file that is there meanwhile; the folders made for it go too, if empty.

    A killed process leaves the file, and the next one takes it over.  Where the file system has no
    locks, as some networks', nobody is kept out.

    Args:
      path: Of the lock file; whatever it stands for need not be there.
      busy: Called where another process holds it, with its name; then waits, unless that raises.

    Raises:
      OSError: it cannot be made.
    """
    handle, made = _acquire(path, busy)
    try:
        yield
    finally:
        # Locked to the end: who waits for it sees then that it is gone, and begins anew.
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty: something was written
            for folder in made:
                folder.rmdir()
        os.close(handle)


def refusing(place: Path, remedy: str) -> Callable[[str], None]:
    """For `alone`: does not wait, but says who writes to `place` and what to do."""

    def busy(holder: str) -> None:
        raise InputError(f"{place}: {holder} writes there: wait until it is done, or {remedy}.")

    return busy


def wait_for(file: BinaryIO | int) -> None:
    """Waits until no other process has locked that open file; closing it ends the lock."""
    if fcntl is not None:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)


def _acquire(path: Path, busy: Callable[[str], None]) -> tuple[int, list[Path]]:
    """Returns the file, open and locked, and the folders that were made for it."""
    while True:
        made = [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # another process has just removed the folder
            continue
        try:
            if _is_held(handle):
                busy(_holder(handle))
                wait_for(handle)
            with contextlib.suppress(FileNotFoundError):  # whoever held it has removed it
                if os.path.samestat(os.fstat(handle), path.stat()):
                    _sign(handle)
                    return handle, made
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_held(handle: int) -> bool:
    """Locks the file, unless another process has."""
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # else: a file system without locks
        return isinstance(error, BlockingIOError)
    return False


def _sign(handle: int) -> None:
    with contextlib.suppress(OSError):  # a full disk
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()} {platform.node()}".encode(), 0)


def _holder(handle: int) -> str:
    said = re.fullmatch(r"(\d+) ([\w.-]*)", os.pread(handle, 999, 0).decode(errors="replace"))
    if not said:
        return "another process"
    return f"process {said[1]}" + ("" if said[2] == platform.node() else f" on {said[2]}")
