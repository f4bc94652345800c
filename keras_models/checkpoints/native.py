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

from keras_models.images.decode import Preprocessing
from shufflelite import atomic, config
from shufflelite.display import one_line
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
      InputError: the description is not readable.
    """
    if path.suffix.lower() != ".safetensors" or not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, "np") as file:
            text = (file.metadata() or {}).get(KEY)
    except safetensors.SafetensorError:  # `files.read` reports the reason
        return None
    if text is None:
        return None
    try:
        fields = json.loads(text)
        names = fields["class_names"]
        preprocessing = config.build(fields["preprocessing"], Preprocessing)
        known = {"class_names": names and tuple(names), "preprocessing": preprocessing}
        return Trained(**{**fields, **known})
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: its description cannot be read ({one_line(error)}).") from error
