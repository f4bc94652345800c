"""Checks the files that a command leaves: complete, and those of the older or the new run."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import safetensors.numpy

from android_bench import results

Digests = Mapping[str, str]


def digests(folder: Path, ignored: Sequence[str]) -> dict[str, str]:
    """SHA-256 of each file; for rows of measurements, of the models measured."""
    return {
        name: hashlib.sha256(
            repr(sorted({(row.model, row.sha256) for row in results.read(path)})).encode()
            if path.suffix == ".jsonl"
            else path.read_bytes()
        ).hexdigest()
        for name, path in _files(folder).items()
        if not any(path.match(pattern) for pattern in ignored)
    }


def faults(out: Path, before: Path | None, expected: Digests, changing: Sequence[str]) -> list[str]:
    """What is incomplete, lost, or neither the older nor the new file."""
    problems = [f"{name}: {why}" for name, path in _files(out).items() if (why := _damage(path))]
    older = digests(before, [*changing, "*.jsonl"]) if before else {}
    now, new = digests(out, [*changing, "*.jsonl"]), dict(expected)
    for unit in {_unit(name, expected) for name in older | now}:
        states = [
            {name: digest for name, digest in part.items() if _unit(name, expected) == unit}
            for part in (now, older, new)
        ]
        known = not states[0] or states[0].keys() & (older.keys() | new.keys())
        if known and states[0] not in states[1:]:
            problems.append(f"{unit}: neither the older one nor the new one")
    for name, path in _files(before).items() if before else ():
        if path.suffix == ".jsonl" and not (out / name).read_bytes().startswith(path.read_bytes()):
            problems.append(f"{name}: rows are lost")
    return problems


def _files(folder: Path) -> dict[str, Path]:
    """Files with their final names, by path in the folder."""
    paths = {path.relative_to(folder): path for path in sorted(folder.rglob("*"))}
    return {
        str(name): path
        for name, path in paths.items()
        if path.is_file() and path.suffix != ".part" and not any(p[0] == "." for p in name.parts)
    }


def _unit(name: str, expected: Digests) -> str:
    """What changes together with a file: its bundle, or only itself."""
    folder = str(Path(name).parent)
    return folder if f"{folder}/report.json" in expected else name


def _damage(path: Path) -> str:
    """Why a file is incomplete, or nothing."""
    try:
        if path.suffix == ".safetensors":
            safetensors.numpy.load_file(path)
        elif path.suffix == ".jsonl":
            results.read(path)
        elif path.suffix == ".json":
            json.loads(path.read_bytes())
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                dict(arrays)
        return ""
    except Exception as error:  # of many libraries
        return f"{type(error).__name__}: {error}"
