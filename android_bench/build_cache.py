"""The files of a sweep: converted by the `convert` command, cached by everything they depend on.

An entry is <cache>/<key>/<bundle>/ and, beside the bundle, the digests of its files: a damaged
entry is converted again.
"""

import contextlib
import functools
import hashlib
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
from shufflelite import atomic, isolated, lock
from shufflelite.errors import InputError
from shufflelite.versions import version

Option = bool | int | float | str

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "shufflelite",
    "keras_models",
    "convert",
    "tflite_file",
)  # our packages that a bundle depends on
VERSIONS = (
    "tensorflow",
    "tf_keras",
    "tensorflow-model-optimization",
    "numpy",
    "ai-edge-litert",
)
NETWORK_FLAGS = (
    "model",
    "width",
    "groups",
    "stem",
    "variant",
    "option",
    "allow_any_width",
    "resolution",
)
SWEEP_FLAGS = ("out", "config", "set", "json", "list", "resolution_multiplier", "int8")
PICTURES = 8
MAX_RESOLUTION = 4096  # making pictures takes a gigabyte there
TIMEOUT_S = 1800.0
CONVERT = (
    sys.executable,
    "-m",
    "shufflelite",
    "convert",
)  # not a convert.py that happens to be here


class BuildError(Exception):
    """A network that could not be converted, in one line; other networks are not affected."""


@dataclass(frozen=True)
class NetworkSpec:
    """A network to convert, with options of its builder sorted by name."""

    model: str
    resolution: int
    options: tuple[tuple[str, Option], ...] = ()

    def __str__(self) -> str:
        return " ".join(
            [self.model, *(f"{name}={value}" for name, value in self.options), f"{self.resolution}"]
        )


@dataclass(frozen=True)
class BuildSpec:
    """What all networks of a sweep have in common."""

    flags: Mapping[str, Option]  # of the `convert` command
    inputs: Mapping[str, Option]  # the same, with files and folders replaced by their digests
    makes_pictures: bool  # for calibration, if neither weights nor pictures are given
    versions: Mapping[str, str | None]
    sources: str  # digest of our packages


def network_spec(model: str, options: Mapping[str, Option], resolution: int | None) -> NetworkSpec:
    """A network by its name in the registry; None: at the resolution of its paper."""
    default = registry.find(model).resolution
    resolution = default if resolution is None else resolution
    if not 1 <= resolution <= MAX_RESOLUTION:
        raise InputError(
            f"{model}: expected 'resolution' to be 1 to {MAX_RESOLUTION}, got {resolution}."
        )
    return NetworkSpec(model, resolution, tuple(sorted(options.items())))


def build_spec(flags: Mapping[str, Option]) -> BuildSpec:
    """Collects everything that determines the bytes of a bundle, except the network.

    Raises:
      InputError: a flag belongs to a network or to the sweep itself.
    """
    for flag in flags:
        if flag in NETWORK_FLAGS:
            raise InputError(f"[convert]: {flag!r} belongs to a network: put it into [[grid]].")
        if flag in SWEEP_FLAGS:
            raise InputError(f"[convert]: {flag!r} is set by the sweep itself: leave it out.")
    flags = {"precision": "int8", "weights": "random", **flags}
    versions = {name: version(name) for name in VERSIONS}
    return BuildSpec(
        flags=flags,
        inputs={name: _content(value) for name, value in sorted(flags.items())},
        makes_pictures=flags["precision"] in ("int8", "int16x8")
        and flags["weights"] == "random"
        and "calibration" not in flags,
        versions={**versions, "python": platform.python_version()},
        sources=_digest_of_packages(),
    )


def entry(network: NetworkSpec, spec: BuildSpec, *, cache: Path) -> Path:
    """The network's entry in the cache, whether it exists or not."""
    inputs = _inputs(network, spec, _pictures(network, spec))
    return cache / hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def build(
    network: NetworkSpec, spec: BuildSpec, *, cache: Path, timeout_s: float = TIMEOUT_S
) -> Path:
    """Converts the network into its entry of the cache; returns the .tflite file.

    Raises:
      BuildError: `convert` failed, or took longer than `timeout_s`.
      InputError: `convert` does not know one of the flags.
      OSError: the cache cannot be written.
    """
    folder = entry(network, spec, cache=cache)
    with lock.exclusive(cache / f".{folder.name}.lock"):
        # Another process may have built it meanwhile.
        return find(folder) or _build(network, spec, folder, timeout_s)


def _build(network: NetworkSpec, spec: BuildSpec, folder: Path, timeout_s: float) -> Path:
    pictures = _pictures(network, spec)
    cache = folder.parent
    atomic.clear_leftovers(cache)
    partial = atomic.temporary_name(cache / f".{folder.name}")
    try:
        partial.mkdir(parents=True)
        command = _command(network, spec, partial)
        if pictures is not None:
            sha256 = hashlib.sha256(pictures).hexdigest()
            path = cache / f"pictures_{network.resolution}_{sha256[:16]}.npz"
            if not path.is_file() or path.read_bytes() != pictures:
                atomic.write(path, pictures)
            command.append(f"--calibration={path}")
        _run(command, timeout_s=timeout_s)
        files = sorted(path for path in partial.rglob("*") if path.is_file())
        digests = {path.relative_to(partial).as_posix(): atomic.sha256(path) for path in files}
        content = {**_inputs(network, spec, pictures), "files": digests}
        text = json.dumps(content, indent=2, sort_keys=True) + "\n"
        (partial / "entry.json").write_text(text, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one
        with contextlib.suppress(OSError):  # built by another sweep, if there are no locks
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    model = find(folder)
    if model is None:
        raise BuildError(f"{folder}: expected a whole bundle, found none: is the disk full?")
    return model


def find(folder: Path) -> Path | None:
    """The .tflite file of a complete and undamaged entry, or None."""
    try:
        digests = json.loads((folder / "entry.json").read_text(encoding="utf-8"))["files"]
        (model,) = (name for name in digests if name.endswith("/model.tflite"))
        whole = all(atomic.sha256(folder / name) == digest for name, digest in digests.items())
        return folder / model if whole else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


@functools.lru_cache
def made_pictures(resolution: int) -> bytes:
    """An .npz file of clouds: noise with equal power in every octave, as in photographs.

    With random weights, the ranges of int8 need plausible values, not real ones.
    """
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(PICTURES):
        clouds = np.zeros((resolution, resolution, 3), np.float32)
        octaves = [2**power for power in range(1, resolution.bit_length())]
        for size in octaves:
            channels = [_enlarge(rng.uniform(-1, 1, (size, size)), resolution) for _ in range(3)]
            clouds += np.stack(channels, axis=-1)
        clouds /= np.sqrt(max(1, len(octaves)))
        pictures.append(np.round(127.5 + 127.5 * np.clip(clouds, -1, 1)).astype(np.uint8))
    file = io.BytesIO()
    np.savez(file, images=np.stack(pictures))
    return file.getvalue()


def _enlarge(channel: np.ndarray, resolution: int) -> np.ndarray:
    picture = Image.fromarray(channel.astype(np.float32))
    return np.asarray(picture.resize((resolution, resolution), Image.Resampling.BILINEAR))


def _pictures(network: NetworkSpec, spec: BuildSpec) -> bytes | None:
    return made_pictures(network.resolution) if spec.makes_pictures else None


def _inputs(network: NetworkSpec, spec: BuildSpec, pictures: bytes | None) -> dict[str, object]:
    """Everything that the bytes of the bundle depend on."""
    return {
        "model": network.model,
        "resolution": network.resolution,
        "options": dict(network.options),
        "convert": dict(spec.inputs),
        "made_pictures": pictures and hashlib.sha256(pictures).hexdigest(),
        "versions": dict(spec.versions),
        "sources": spec.sources,
    }


def _command(network: NetworkSpec, spec: BuildSpec, out: Path) -> list[str]:
    return [
        *CONVERT,
        f"--model={network.model}",
        f"--resolution={network.resolution}",
        *(f"--option={name}={json.dumps(value)}" for name, value in network.options),
        *(f"--{flag}={_text(value)}" for flag, value in spec.flags.items()),
        f"--out={out}",
    ]


def _text(value: Option) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _run(command: Sequence[str], *, timeout_s: float) -> None:
    """Runs `convert`; its processes end with this function, whatever happens."""
    with tempfile.TemporaryFile() as stderr:
        paths = os.pathsep.join(sys.path)  # it imports what we import
        process = subprocess.Popen(
            isolated.guarded(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": paths},
            start_new_session=True,  # this process handles Ctrl-C
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
        stderr.seek(0)
        lines = stderr.read().decode(errors="replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        if code < 0:
            raise BuildError(f"convert was killed by {signal.Signals(-code).name}: out of memory?")
        if code == 2:
            raise InputError(f"[convert]: {last.removeprefix('convert: ')}")
        raise BuildError(last or f"convert exited with {code}")


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
        folder = ROOT / package
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
