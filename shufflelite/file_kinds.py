"""Whether a file is of the kind that was expected, and whole, where no hash of it is published."""

import zipfile
from collections.abc import Callable
from pathlib import Path

_HDF5_ENDS = {0: 40, 1: 44, 2: 28, 3: 28}  # version of the superblock: where it holds the size


def _is_hdf5(path: Path) -> bool:
    start = _start(path)
    at = _HDF5_ENDS.get(start[8], 0)
    return start.startswith(b"\x89HDF\r\n\x1a\n") and _number(start, at, 8) == path.stat().st_size


def _is_elf(path: Path) -> bool:
    start = _start(path)
    if not start.startswith(b"\x7fELF"):
        return False
    wide, order = start[4] == 2, "big" if start[5] == 2 else "little"
    table, entry, entries = (0x28, 0x3A, 0x3C) if wide else (0x20, 0x2E, 0x30)  # of sections
    end = _number(start, table, 8 if wide else 4, order) + (
        _number(start, entry, 2, order) * _number(start, entries, 2, order)
    )
    return 0 < end <= path.stat().st_size  # the table is the last part of a program


def _is_apk(path: Path) -> bool:
    return _start(path).startswith(b"PK\x03\x04") and zipfile.is_zipfile(path)  # has its last part


_TESTS: dict[str, Callable[[Path], bool]] = {
    "an HDF5 file": _is_hdf5,
    "a program (ELF)": _is_elf,
    "an APK": _is_apk,
}
HDF5, ELF, APK = _TESTS


def problem(path: Path, kind: str) -> str | None:
    """Says what was expected and what came instead; None if the file is a whole one of `kind`."""
    if _TESTS[kind](path):
        return None
    return f"{kind}, whole, got {path.stat().st_size} bytes that start with {_start(path)[:16]!r}"


def _start(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(64).ljust(64, b"\0")


def _number(data: bytes, at: int, length: int, order: str = "little") -> int:
    return int.from_bytes(data[at : at + length], "big" if order == "big" else "little")
