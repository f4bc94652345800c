"""Weights that we trained: a safetensors file that also describes their network."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from keras_models import registry
from keras_models.images.decode import Preprocessing
from shufflelite import atomic, config
from shufflelite.errors import InputError

KEY = "shufflelite"  # the only one: safetensors writes several in any order


@dataclass(frozen=True)
class Trained:
    """The network that weights belong to, and their origin.

    Attributes:
      model: Name in the registry.
      options: Of its builder.
      resolution: Height and width trained at.
      num_classes: Length of the logits.
      class_names: In the order of the logits.
      preprocessing: What the network expects.
      origin: How they were trained: settings, versions, the pictures' hash, accuracy.
    """

    model: str
    options: Mapping[str, Any]
    resolution: int
    num_classes: int
    class_names: tuple[str, ...] | None
    preprocessing: Preprocessing
    origin: Mapping[str, Any]

    def __post_init__(self) -> None:
        for key, most in (("resolution", 4096), ("num_classes", 100_000)):
            if not 1 <= getattr(self, key) <= most:
                raise ValueError(f"expected {key!r} to be 1 to {most}, got {getattr(self, key)}.")
        names = self.class_names
        if names is not None and len(names) != self.num_classes:
            raise ValueError(f"expected {self.num_classes} 'class_names', got {len(names)}.")


def save(path: Path, arrays: Mapping[str, np.ndarray], trained: Trained) -> None:
    """Writes a .safetensors file; the same weights, the same bytes."""
    write(path, arrays, {KEY: json.dumps(dataclasses.asdict(trained))})


def write(path: Path, arrays: Mapping[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Replaces a .safetensors file as a whole."""
    contiguous = {name: np.asarray(array, order="C") for name, array in sorted(arrays.items())}
    atomic.write(path, safetensors.numpy.save(contiguous, metadata))


def describe(path: Path) -> Trained | None:
    """Reads the description that `save` wrote; None for any other file or a missing one.

    Raises:
      InputError: the description is not readable, or not of a network that we have.
    """
    if path.suffix.lower() != ".safetensors" or not path.is_file():
        return None
    try:
        check_header(path)
        with safetensors.safe_open(path, "np") as file:
            text = (file.metadata() or {}).get(KEY)
    except (safetensors.SafetensorError, InputError):  # `files.read` reports the reason
        return None
    if text is None:
        return None
    try:
        trained = config.build(config.parse_json(text), Trained, origin="")
        for key in ("input_shape", "num_classes"):
            if key in trained.options:
                raise InputError(f"expected no {key!r} among the options.")
        options = registry.check(trained.model, trained.options)
    except InputError as error:
        raise InputError(f"{path}: its description cannot be read: {error}") from error
    return dataclasses.replace(trained, options=options)


def check_header(path: Path) -> None:
    """Raises InputError for a header that takes more memory than any network needs."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
    if config.MAX_JSON < length < path.stat().st_size:
        raise InputError(f"expected a header of at most {config.MAX_JSON} bytes, got {length}.")
