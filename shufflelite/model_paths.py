"""The files that a command's --models names, and short names for them."""

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

BUNDLED = "model.tflite"  # which says nothing; its folder does


def expand(words: Iterable[str]) -> list[Path]:
    """Paths, comma-separated paths, and patterns, as paths; what is not there too."""
    return [path for word in words for path in _expand(word)]


def names(paths: Sequence[Path]) -> list[str]:
    """Short names: the bundle's folder, else the file's stem; more folders where those are equal.

    A file whose stem another has too keeps its ending.  The same file again gets a number.
    """
    whole = [Path(os.path.abspath(path)) for path in paths]
    short = [_parts(path) for path in whole]
    clashes = [
        any(other != path and also == own for other, also in zip(whole, short, strict=True))
        for path, own in zip(whole, short, strict=True)
    ]
    parts = [
        path.parts if clash and path.name != BUNDLED else own
        for path, own, clash in zip(whole, short, clashes, strict=True)
    ]
    labels = []
    for index, own in enumerate(parts):
        others = [other for other in parts if other != own]
        depth = 1
        while any(other[-depth:] == own[-depth:] for other in others) and depth < len(own):
            depth += 1
        again = parts[:index].count(own)
        labels.append(_shown("/".join(own[-depth:])) + (f"#{again + 1}" if again else ""))
    return labels


def _parts(path: Path) -> tuple[str, ...]:
    return path.parent.parts if path.name == BUNDLED else path.with_suffix("").parts


def _shown(name: str) -> str:
    """In one line whatever it holds."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _expand(word: str) -> list[Path]:
    if os.path.exists(word):
        return [Path(word)]
    if "," in word:
        return [path for part in word.split(",") if part for path in _expand(part)]
    return [Path(path) for path in sorted(glob.glob(word))] or [Path(word)]
