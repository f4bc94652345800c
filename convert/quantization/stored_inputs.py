"""Synthetic inputs of earlier conversions, so that the same weights are not optimized for again.

A file holds the inputs of one `Request`: 32 bytes of its SHA-256, 32 bytes of the pixels' SHA-256,
and the pixels, compressed by zlib.  Those of the bundled weights lie beside them (made by
`scripts/bundle_inputs.py`), others in the user's cache.
"""

import contextlib
import hashlib
import json
import math
import os
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from convert.calibration_data import Inputs
from convert.context import Context
from convert.network import LoadedNetwork
from convert.quantization import synthetic_inputs
from keras_models.checkpoints import bundled
from shufflelite import atomic
from shufflelite.download import cache_folder

SUFFIX = ".inputs"
MAX_FOLDER_BYTES = 64 << 20  # of the user's cache; the inputs that were not used longest make room
ORIGIN = "made from the network's batch norms"


@dataclass(frozen=True, eq=False)
class Request:
    """Everything that decides which inputs are made.

    Attributes:
      name: The network's name in the registry.
      network: The network with its weights.
      samples: The number of inputs.
      seed: Seed of the inputs.
    """

    name: str
    network: LoadedNetwork
    samples: int
    seed: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the pixels, (samples, height, width, 3)."""
        return (self.samples, *self.network.model.inputs[0].shape[1:])

    @cached_property
    def key(self) -> bytes:
        """SHA-256 of the description and the weights."""
        model = self.network.model
        description = {
            "version": synthetic_inputs.VERSION,
            "model": self.name,
            "options": dict(self.network.options),
            "preprocessing": asdict(self.network.preprocessing),
            "shape": self.shape,
            "classes": model.output.shape[-1],
            "seed": self.seed,
        }
        digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
        for array in model.get_weights():
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.digest()


def request_of(context: Context) -> Request:
    """The inputs that a conversion without calibration pictures needs."""
    settings, network = context.settings, context.network
    samples = settings.quantization.calibration_samples
    samples = samples or synthetic_inputs.batch_size(network.model)
    return Request(settings.model.name, network, samples, settings.seed)


def find(request: Request) -> Inputs | None:
    """Returns the stored inputs; None if there are none, or the file is damaged."""
    with_weights = bundled.FOLDER.glob(f"*{SUFFIX}")
    in_cache = _cached(request)
    for paths, place in ((sorted(with_weights), "the weights"), ([in_cache], "the cache")):
        for path in paths:
            if (pixels := read(path, request)) is not None:
                if path == in_cache:
                    with contextlib.suppress(OSError):
                        os.utime(path)  # it was used
                preprocessing = request.network.preprocessing
                return Inputs(f"{ORIGIN}, stored with {place}", preprocessing.to_input(pixels))
    return None


def make(
    request: Request, on_step: Callable[[int, int], None] = lambda done, total: None
) -> Inputs:
    """Makes the inputs.

    Raises:
      InputError: the network has no batch norm to learn from.
    """
    network = request.network
    return synthetic_inputs.synthesize(
        network.model,
        network.preprocessing,
        samples=request.samples,
        seed=request.seed,
        on_step=on_step,
    )


def store(request: Request, inputs: Inputs) -> None:
    """Writes inputs to the user's cache; does nothing where that cannot be written."""
    path = _cached(request)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.clear_leftovers(path.parent)
        write(path, request, inputs)
        _limit(path.parent.glob(f"*{SUFFIX}"), MAX_FOLDER_BYTES)


def read(path: Path, request: Request) -> np.ndarray | None:
    """Returns the uint8 pixels in a file, (samples, h, w, 3); None unless they are those of it."""
    try:
        with path.open("rb") as file:
            if file.read(32) != request.key:
                return None
            digest, size = file.read(32), math.prod(request.shape)
            data = zlib.decompressobj().decompress(file.read(2 * size + 1024), size + 1)
    except (OSError, zlib.error):
        return None
    if len(data) != size or hashlib.sha256(data).digest() != digest:
        return None
    return np.frombuffer(data, np.uint8).reshape(request.shape)


def write(path: Path, request: Request, inputs: Inputs) -> None:
    """Writes inputs that `make` returned to a file.

    Raises:
      OSError: it cannot be written.
    """
    data = synthetic_inputs.to_pixels(inputs.values, request.network.preprocessing).tobytes()
    atomic.write(path, request.key + hashlib.sha256(data).digest() + zlib.compress(data, 9))


def _cached(request: Request) -> Path:
    return cache_folder() / "synthetic_inputs" / f"{request.key.hex()}{SUFFIX}"


def _limit(paths: Iterable[Path], max_bytes: int) -> None:
    """Removes the files that were not used longest until the others fit."""
    status = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # another conversion removed it
            status[path] = path.stat()
    total = 0
    for path in sorted(status, key=lambda p: status[p].st_mtime_ns, reverse=True):
        total += status[path].st_size
        if total > max_bytes:
            path.unlink(missing_ok=True)
