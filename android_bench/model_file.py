"""Checks the given files before a native runtime loads them: names, hashes and operators."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from shufflelite import limited, model_paths
from shufflelite.errors import InputError
from tflite_file.model import read_operators


@dataclass(frozen=True)
class ModelFile:
    """A .tflite file whose tables are not truncated."""

    name: str  # unique among the models of the run
    path: Path
    size_bytes: int
    sha256: str
    operators: Mapping[str, int]  # by type, over all subgraphs
    grouped_convolutions: int = 0

    def notes(self, delegate: str) -> list[str]:
        """What speaks against running it with a delegate."""
        if delegate != "gpu" or not self.grouped_convolutions:
            return []
        return [
            f"{self.name} has {self.grouped_convolutions} grouped convolutions, on which LiteRT's "
            "GPU accelerator ends the process or answers wrongly: its time on a GPU means nothing "
            "before its answers are checked"
        ]


def read_all(words: Iterable[str]) -> list[ModelFile]:
    """Reads the files that `words` name: paths, comma-separated paths, and patterns.

    A file named twice is measured twice, which shows the noise of the machine.
    """
    paths = model_paths.expand(words)
    names = model_paths.names(paths)
    return [_read(path, name=name) for path, name in zip(paths, names, strict=True)]


def _read(path: Path, *, name: str) -> ModelFile:
    if path.is_dir():
        inside = path / "model.tflite"
        hint = f"; it holds {inside}" if inside.exists() else ""
        raise InputError(f"{path}: expected a .tflite file, got a directory{hint}")
    if not path.is_file():
        raise InputError(f"{path}: expected a .tflite file, found no such file")
    data = limited.read_bytes(path, limited.TFLITE_BYTES)
    try:
        found = read_operators(data)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    return ModelFile(
        name=name,
        path=path,
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        operators=dict(Counter(operator.type for operator in found).most_common()),
        grouped_convolutions=sum(operator.groups > 1 for operator in found),
    )
