"""Reads what is asked for before a native runtime sees it: names, hashes and operators."""

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tflite_file
from keras_models.errors import InputError


@dataclass(frozen=True)
class ModelFile:
    """A .tflite file, whole as far as its tables tell."""

    name: str  # tells it from the other models of the run
    path: Path
    size_bytes: int
    sha256: str
    operators: Mapping[str, int]  # by type, over all subgraphs


def read_all(words: Iterable[str]) -> list[ModelFile]:
    """Reads the files that `words` name: paths, comma-separated paths, and patterns.

    A file named twice is measured twice, which shows the noise of the machine.
    """
    paths = [path for word in words for path in _expand(word)]
    return [_read(path, name=name) for path, name in zip(paths, names(paths), strict=True)]


def names(paths: Sequence[Path]) -> list[str]:
    """Short names: the bundle's folder, else the file's stem; more folders where those are equal.

    The same file again gets a number.
    """
    parts = [_parts(path) for path in paths]
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
    whole = Path(os.path.abspath(path))
    return whole.parent.parts if whole.name == "model.tflite" else whole.with_suffix("").parts


def _shown(name: str) -> str:
    """In one line whatever it holds."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _expand(word: str) -> list[Path]:
    if os.path.exists(word):
        return [Path(word)]
    if "," in word:
        return [path for part in word.split(",") if part for path in _expand(part)]
    return [Path(path) for path in sorted(glob.glob(word))] or [Path(word)]


def _read(path: Path, *, name: str) -> ModelFile:
    if path.is_dir():
        inside = path / "model.tflite"
        hint = f"; it holds {inside}" if inside.exists() else ""
        raise InputError(f"{path}: expected a .tflite file, got a directory{hint}")
    if not path.is_file():
        raise InputError(f"{path}: expected a .tflite file, found no such file")
    data = path.read_bytes()
    if data[4:8] != b"TFL3":
        start = f"one that starts with {data[:8]!r}" if data else "an empty file"
        raise InputError(f"{path}: expected a TFLite file (identifier TFL3), got {start}")
    try:
        types = [operator.type for operator in tflite_file.operators(data)]
    except ValueError as error:
        raise InputError(
            f"{path}: expected a whole TFLite file, got one that {error}; convert or copy it again"
        ) from error
    operators = dict(Counter(types).most_common())
    return ModelFile(name, path, len(data), hashlib.sha256(data).hexdigest(), operators)
