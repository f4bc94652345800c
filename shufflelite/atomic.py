"""Writes files whole or not at all, and hashes them."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from shufflelite.errors import InputError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which becomes `path` if the body succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Adds the path to an OSError that has none, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def write(path: Path, data: bytes) -> None:
    """Writes a whole file, such as a picture or a table, or none."""
    with named(path), replacing(path) as temporary:
        temporary.write_bytes(data)


def sha256(path: Path) -> str:
    """Returns the SHA-256 of the file in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_folder(folder: Path, *, flag: str) -> None:
    """Makes the folder; raises InputError if it cannot be written, before any long work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"something")
    except OSError as error:
        raise InputError(f"{flag}: {folder} cannot be written in: {error.strerror}") from error


def runs_elsewhere(process: int) -> bool:
    """Whether another process with this ID runs: its unfinished files are no leftovers."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return process != os.getpid()
