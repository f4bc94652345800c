"""The files that a command's --models names, and short labels for them."""

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from shufflelite.display import printable

BUNDLED = "model.tflite"  # says nothing, its folder does


def expand(arguments: Iterable[str]) -> list[Path]:
    """Expands paths, comma-separated paths and patterns; keeps paths that do not exist."""
    return [path for argument in arguments for path in _expand(argument)]


def names(paths: Sequence[Path]) -> list[str]:
    """Short labels: the bundle's folder, or the file's stem, with parent folders if those clash.

    Files with equal stems keep their extensions.  A file that is listed again gets a number.
    """
    absolute = [Path(os.path.abspath(path)) for path in paths]
    short = [_parts(path) for path in absolute]
    clashes = [
        any(other != path and also == own for other, also in zip(absolute, short, strict=True))
        for path, own in zip(absolute, short, strict=True)
    ]
    parts = [
        path.parts if clash and path.name != BUNDLED else own
        for path, own, clash in zip(absolute, short, clashes, strict=True)
    ]
    labels = []
    for index, own in enumerate(parts):
        others = [other for other in parts if other != own]
        depth = 1
        while any(other[-depth:] == own[-depth:] for other in others) and depth < len(own):
            depth += 1
        again = parts[:index].count(own)
        labels.append(printable("/".join(own[-depth:])) + (f"#{again + 1}" if again else ""))
    return labels


def _parts(path: Path) -> tuple[str, ...]:
    return path.parent.parts if path.name == BUNDLED else path.with_suffix("").parts


def _expand(argument: str) -> list[Path]:
    if os.path.exists(argument):
        return [Path(argument)]
    if "," in argument:
        return [path for part in argument.split(",") if part for path in _expand(part)]
    return [Path(path) for path in sorted(glob.glob(argument))] or [Path(argument)]
