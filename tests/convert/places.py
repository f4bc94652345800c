"""What the tests of whole commands share: folders before and after."""

from collections.abc import Mapping
from pathlib import Path


def contents(folder: Path) -> Mapping[Path, bytes | None]:
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}
