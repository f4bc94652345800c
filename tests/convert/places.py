"""What the tests of whole commands share: folders before and after, and two commands at once."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def contents(folder: Path) -> Mapping[Path, bytes | None]:
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def two_at_a_time(function: Callable[[str], T], arguments: Iterable[str]) -> dict[str, T]:
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(arguments, pool.map(function, arguments), strict=True))
