"""Writes files whole or not at all, and hashes them."""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from shufflelite.errors import InputError


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Adds the path to an OSError that has none, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def write(path: Path, data: bytes) -> None:
    """Writes a whole file, or none, under a name that nobody can predict and plant a link at."""
    with named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(path)
        try:
            with temporary.open("xb") as file:
                file.write(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """A new name beside `path`, which `clear_leftovers` recognizes."""
    return path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")


def clear_leftovers(folder: Path) -> None:
    """Removes files and folders with temporary names of processes that have ended."""
    for path in folder.iterdir():
        if (process := writer_of(path)) and not runs_elsewhere(process):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def writer_of(path: Path) -> int | None:
    """The process that gave the file or folder its temporary name; None: it has another name."""
    match = re.search(r"\.(\d{1,7})\.[0-9a-f]{8}\.part$", path.name)
    return int(match[1]) if match else None


def open_part(path: Path, *, append: bool) -> BinaryIO:
    """Opens a file whose name anybody can predict, and does not follow a link planted there."""
    if not append:
        path.unlink(missing_ok=True)
    no_follow = getattr(os, "O_NOFOLLOW", 0)  # Windows has none

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | no_follow, 0o666)

    return open(path, "ab" if append else "xb", opener=opener)


def part_size(path: Path) -> int:
    """The bytes that `open_part` can append to: 0 for a link, also a hard one."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 else 0


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
