"""Locks between processes. A lock ends with the process that holds it, however that ends."""

import contextlib
import errno
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import filelock

from shufflelite.errors import InputError

_POLL_S = 0.05
_MOST_REMOVALS = 100  # of a folder that others remove at the same time
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)  # of a file system, as some networks'


@contextlib.contextmanager
def exclusive(path: Path, *, on_busy: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds the lock file `path`, and removes it afterwards with the folders made for it, if empty.

    A killed process leaves the file, and the next one takes it over. On a file system without
    locks nobody is kept out.

    Args:
      path: The lock file.
      on_busy: Called if another process holds it; the wait for that begins when it returns.

    Raises:
      OSError: the file cannot be made.
    """
    lock = filelock.FileLock(path)
    created = _acquire(lock, path, on_busy)
    try:
        yield
    finally:
        # Still locked: a process that waits for the file sees that it is gone, and makes a new one.
        with contextlib.suppress(OSError):  # Windows removes no open file
            path.unlink()
        with contextlib.suppress(OSError):  # not empty: something was written
            for folder in created:
                folder.rmdir()
        lock.release()


def refuse(folder: Path, remedy: str) -> Callable[[], None]:
    """For `on_busy`: raises an InputError instead of waiting."""

    def on_busy() -> None:
        raise InputError(
            f"{folder}: another process writes there: wait until it is done, or {remedy}."
        )

    return on_busy


def lock_file(file: BinaryIO | int) -> None:
    """Waits until no other process has locked this open file; closing it ends the lock."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(file, fcntl.LOCK_EX)


def _acquire(lock: filelock.BaseFileLock, path: Path, on_busy: Callable[[], None]) -> list[Path]:
    """Returns the folders that were made for the lock file."""
    waits, removals = False, 0
    while True:
        created = [folder for folder in path.parents if not folder.exists()]
        try:
            lock.acquire(timeout=0)  # makes the folders, too
            return created
        except filelock.Timeout:
            if not waits:
                on_busy()
            waits = True
            time.sleep(_POLL_S)
        except FileNotFoundError:  # another process has just removed the folder, or it cannot be
            removals += 1
            if removals == _MOST_REMOVALS:
                raise
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return created
