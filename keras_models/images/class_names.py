"""Names of classes: reads them from a file, and finds a data set's among a network's."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shufflelite.errors import InputError


def read(path: str | Path, *, classes: int) -> tuple[str, ...]:
    """Reads a text file that has the name of a class in each line, in the order of the logits."""
    try:
        names = tuple(Path(path).read_text(encoding="utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", "not UTF-8")
        raise InputError(
            f"{path}: expected a text file with a class name a line ({reason})."
        ) from error
    if len(names) != classes:
        raise InputError(f"{path}: expected {classes} class names, one a line, got {len(names)}.")
    return names


def numbers(
    own: Sequence[str], names: Sequence[str] | None, *, classes: int, origin: str, owner: str
) -> np.ndarray:
    """Which classes of a network those of a data set are.

    Args:
      own: Names of the data set's classes.
      names: Of the network's, where they are known; without, all are there in the same order.
      classes: How many the network has.
      origin: The data set, for messages.
      owner: The network, for messages.

    Returns:
      The network's number of each class, (own,) int64.

    Raises:
      InputError: a class that the network does not have, or nothing that tells which is which.
    """
    if names is None:
        if len(own) != classes:
            raise InputError(
                f"{origin}: expected the {classes} classes of {owner}, got {len(own)}, so "
                "which is which is unknown: pass --labels with a class name a line."
            )
        return np.arange(classes)
    if unknown := [name for name in own if names.count(name) != 1]:
        have = "several of them have" if unknown[0] in names else "none of them has"
        raise InputError(
            f"{origin}: expected the classes of {owner}, got {unknown[0]!r}, a name that "
            f"{have} (so it is with {len(unknown)} of {len(own)} classes): pass --labels with such "
            "names in the network's order."
        )
    return np.array([names.index(name) for name in own], np.int64)
