"""Names of classes, from a text file."""

from pathlib import Path

from shufflelite import limited
from shufflelite.errors import InputError


def read(path: str | Path, *, classes: int) -> tuple[str, ...]:
    """Reads a text file of one class name a line, in the order of the logits."""
    try:
        names = tuple(limited.read_text(Path(path), encoding="utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", "not UTF-8")
        raise InputError(
            f"{path}: expected a text file with a class name a line ({reason})."
        ) from error
    if len(names) != classes:
        raise InputError(f"{path}: expected {classes} class names, one a line, got {len(names)}.")
    return names
