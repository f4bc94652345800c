"""The files of a sweep: made by `convert`'s command, and kept in a cache by what they are made of.

An entry is <cache>/<key>/<bundle>/, and beside the bundle the digests of its files: a damaged entry
is made again.
"""

import contextlib
import functools
import hashlib
import importlib.util
import io
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from keras_models import registry
from shufflelite import atomic, lock
from shufflelite.errors import InputError
from shufflelite.versions import version

Option = bool | int | float | str

PACKAGES = ("keras_models", "convert", "tflite_file")  # ours, that a bundle depends on
VERSIONS = (
    "tensorflow",
    "tf_keras",
    "tensorflow-model-optimization",
    "numpy",
    "ai-edge-litert",
)
DIFFER = ("model", "width", "groups", "stem", "variant", "option", "allow_any_width", "resolution")
OURS = ("out", "config", "set", "json", "list", "resolution_multiplier", "int8")
PICTURES = 8
MAX_RESOLUTION = 4096  # making pictures takes a gigabyte there
TIMEOUT_S = 1800.0


class BuildError(Exception):
    """A network that could not be converted, in one line; the others are not concerned."""


@dataclass(frozen=True)
class Wanted:
    """A network to convert; its options are those of its builder, sorted by name."""

    model: str
    resolution: int
    options: tuple[tuple[str, Option], ...] = ()

    def __str__(self) -> str:
        return " ".join(
            [self.model, *(f"{name}={value}" for name, value in self.options), f"{self.resolution}"]
        )


@dataclass(frozen=True)
class Recipe:
    """What all networks of a sweep have in common."""

    flags: Mapping[str, Option]  # of `convert`'s command
    inputs: Mapping[str, Option]  # the same, files and folders by their contents
    makes_pictures: bool  # to calibrate on, where neither weights nor pictures are given
    versions: Mapping[str, str | None]
    sources: str  # digest of our packages


def wanted(model: str, options: Mapping[str, Option], resolution: int | None) -> Wanted:
    """A network by its name in the registry; None: at the resolution of its paper."""
    found = registry.find(model)
    side = found.resolution if resolution is None else resolution
    if not 1 <= side <= MAX_RESOLUTION:
        raise InputError(f"{model}: expected 'resolution' to be 1 to {MAX_RESOLUTION}, got {side}.")
    return Wanted(model, side, tuple(sorted(options.items())))


def recipe(flags: Mapping[str, Option]) -> Recipe:
    """Looks up everything that decides over the bytes of a bundle, the network aside.

    Raises:
      InputError: a flag that is the network's or the sweep's own.
    """
    for flag in flags:
        if flag in DIFFER:
            raise InputError(f"[convert]: {flag!r} belongs to a network: put it into [[grid]].")
        if flag in OURS:
            raise InputError(f"[convert]: {flag!r} is set by the sweep itself: leave it out.")
    flags = {"precision": "int8", "weights": "random", **flags}
    versions = {name: version(name) for name in VERSIONS}
    return Recipe(
        flags=flags,
        inputs={name: _content(value) for name, value in sorted(flags.items())},
        makes_pictures=flags["precision"] in ("int8", "int16x8")
        and flags["weights"] == "random"
        and "calibration" not in flags,
        versions={**versions, "python": platform.python_version()},
        sources=_digest_of_packages(),
    )


def entry(network: Wanted, made_with: Recipe, *, cache: Path) -> Path:
    """Where the cache has the network's bundle, or will have it."""
    told = _told(network, made_with, _pictures(network, made_with))
    return cache / hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def build(network: Wanted, made_with: Recipe, *, cache: Path, timeout_s: float = TIMEOUT_S) -> Path:
    """Converts the network into its entry of the cache; returns the .tflite file.

    Raises:
      BuildError: `convert` could not, or took longer than `timeout_s`.
      InputError: `convert` does not know the recipe's flags.
      OSError: the cache cannot be written.
    """
    place = entry(network, made_with, cache=cache)
    with lock.exclusive(cache / f".{place.name}.lock"):
        # Another process may have made it meanwhile.
        return find(place) or _build(network, made_with, place, cache, timeout_s)


def _build(network: Wanted, made_with: Recipe, place: Path, cache: Path, timeout_s: float) -> Path:
    pictures = _pictures(network, made_with)
    _clear_leftovers(cache)
    partial = cache / f".{place.name}.{os.getpid()}.partial"
    try:
        partial.mkdir(parents=True)
        command = _command(network, made_with, partial)
        if pictures is not None:
            sha256 = hashlib.sha256(pictures).hexdigest()
            path = cache / f"pictures_{network.resolution}_{sha256[:16]}.npz"
            if not path.is_file() or path.read_bytes() != pictures:
                atomic.write(path, pictures)
            command.append(f"--calibration={path}")
        _run(command, timeout_s=timeout_s)
        files = sorted(path for path in partial.rglob("*") if path.is_file())
        digests = {path.relative_to(partial).as_posix(): atomic.sha256(path) for path in files}
        told = {**_told(network, made_with, pictures), "files": digests}
        text = json.dumps(told, indent=2, sort_keys=True) + "\n"
        (partial / "entry.json").write_text(text, encoding="utf-8")
        shutil.rmtree(place, ignore_errors=True)  # a damaged one
        with contextlib.suppress(OSError):  # made by another sweep, where there are no locks
            partial.rename(place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    found = find(place)
    if found is None:
        raise BuildError(f"{place}: expected a whole bundle, found none: is the disk full?")
    return found


def find(place: Path) -> Path | None:
    """The .tflite file of a whole and undamaged entry; None where it is not."""
    try:
        digests = json.loads((place / "entry.json").read_text(encoding="utf-8"))["files"]
        (model,) = (name for name in digests if name.endswith("/model.tflite"))
        whole = all(atomic.sha256(place / name) == told for name, told in digests.items())
        return place / model if whole else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


@functools.lru_cache
def made_pictures(side: int) -> bytes:
    """An .npz file of clouds: noise with as much of it in every octave, as pictures have.

    Ranges of int8 need plausible values, not real ones, where the weights are random.
    """
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(PICTURES):
        clouds = np.zeros((side, side, 3), np.float32)
        octaves = [2**power for power in range(1, side.bit_length())]
        for size in octaves:
            clouds += np.stack(
                [_enlarge(rng.uniform(-1, 1, (size, size)), side) for _ in range(3)], axis=-1
            )
        clouds /= np.sqrt(max(1, len(octaves)))
        pictures.append(np.round(127.5 + 127.5 * np.clip(clouds, -1, 1)).astype(np.uint8))
    file = io.BytesIO()
    np.savez(file, images=np.stack(pictures))
    return file.getvalue()


def _enlarge(channel: np.ndarray, side: int) -> np.ndarray:
    picture = Image.fromarray(channel.astype(np.float32))
    return np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))


def _pictures(network: Wanted, made_with: Recipe) -> bytes | None:
    return made_pictures(network.resolution) if made_with.makes_pictures else None


def _told(network: Wanted, made_with: Recipe, pictures: bytes | None) -> dict[str, object]:
    return {
        "model": network.model,
        "resolution": network.resolution,
        "options": dict(network.options),
        "convert": dict(made_with.inputs),
        "made_pictures": pictures and hashlib.sha256(pictures).hexdigest(),
        "versions": dict(made_with.versions),
        "sources": made_with.sources,
    }


def _command(network: Wanted, made_with: Recipe, out: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "convert"),
        f"--model={network.model}",
        f"--resolution={network.resolution}",
        *(f"--option={name}={json.dumps(value)}" for name, value in network.options),
        *(f"--{flag}={_text(value)}" for flag, value in made_with.flags.items()),
        f"--out={out}",
    ]


def _text(value: Option) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _run(command: Sequence[str], *, timeout_s: float) -> None:
    """Runs `convert`; whatever happens here, nothing of it goes on running."""
    with tempfile.TemporaryFile() as said, tempfile.TemporaryDirectory() as scratch:
        paths = os.pathsep.join(sys.path)  # it shall import what we import
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env={**os.environ, "PYTHONPATH": paths, "TMPDIR": scratch},
            start_new_session=True,  # Ctrl-C is ours to handle
        )
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise BuildError(f"convert was not done after {timeout_s:g} s") from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if not code:
            return
        said.seek(0)
        lines = said.read().decode(errors="replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        if code < 0:
            raise BuildError(f"convert was killed by {signal.Signals(-code).name}: out of memory?")
        if code == 2:
            raise InputError(f"[convert]: {last.removeprefix('convert: ')}")
        raise BuildError(last or f"convert left with {code}")


def _clear_leftovers(cache: Path) -> None:
    """Removes what killed runs left."""
    for left in cache.glob(".*.partial"):
        writer = left.name.split(".")[-2]
        if writer.isdigit() and not atomic.runs_elsewhere(int(writer)):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _content(value: Option) -> Option:
    if not isinstance(value, str) or not os.path.exists(value):
        return value
    path = Path(value)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    names = ((file.relative_to(path).as_posix(), file) for file in files)
    return _digest([(name, file.read_bytes()) for name, file in names])


def _digest_of_packages() -> str:
    content = []
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)  # reads no code: `convert` brings in TensorFlow
        assert spec is not None
        assert spec.submodule_search_locations is not None
        folder = Path(spec.submodule_search_locations[0])
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                name = path.relative_to(folder.parent).as_posix()
                content.append((name, path.read_bytes()))
    return _digest(content)


def _digest(content: Sequence[tuple[str, bytes]]) -> str:
    sha256 = hashlib.sha256()
    for name, data in content:
        sha256.update(f"{len(name)} {name} {len(data)} ".encode() + data)
    return sha256.hexdigest()
