"""Reads whole files up to a size: a file of another kind may be larger than the memory."""

from pathlib import Path

from shufflelite.errors import InputError

TEXT_BYTES = 8 << 20  # settings, class names
TABLE_BYTES = 1 << 28  # lists of pictures, rows of results
TFLITE_BYTES = (1 << 31) - 1  # FlatBuffers' own limit


def read_bytes(path: Path, most: int) -> bytes:
    """Reads a file of at most `most` bytes; a larger one is an InputError."""
    check(path, most)
    return path.read_bytes()


def read_text(path: Path, most: int = TEXT_BYTES, *, encoding: str = "utf-8") -> str:
    """Reads a text file, as `read_bytes`; also raises UnicodeDecodeError."""
    text = read_bytes(path, most).decode(encoding)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def check(path: Path, most: int) -> None:
    """Raises InputError if the file has more than `most` bytes."""
    size = path.stat().st_size
    if size > most:
        raise InputError(f"{path}: expected at most {most} bytes, got {size}.")
