"""Weights as users name them, and what a network must be to take them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_models.checkpoints import Weights, bundled, official, read_weights
from keras_models.registry import NAMED_WEIGHTS
from shufflelite import atomic, download
from shufflelite.errors import InputError


@dataclass(frozen=True, eq=False)
class Named:
    """A file of weights; `options` are the builder's: the user's, and what the weights need."""

    path: Path
    sha256: str
    weights: Weights
    options: Mapping[str, Any]


def read(
    weights: str,
    *,
    model: str,
    options: Mapping[str, Any],
    resolution: int,
    settings: tuple[str, str],
    source: str | None = None,
) -> Named:
    """Finds the weights of that name and reads them.

    Args:
      weights: "bundled", "imagenet", which is downloaded once, or a file.
      model: In the registry.
      options: Of its builder, as the user gave them.
      resolution: Of the network, in pixels.
      settings: What named the weights, and what the model, for messages.
      source: Whose naming the file has; None: it is recognized.

    Raises:
      InputError: there are none, they cannot be fetched or read, they are those of another network,
        the options contradict them, or they hold what are no weights.
    """
    path = _find(weights, model, options, resolution, settings[0])
    found = read_weights(path, source=source)
    _check_numbers(found.arrays, path)
    complete = _complete(found, weights, model, options, settings[1])
    return Named(path, atomic.sha256(path), found, complete)


def _find(
    weights: str, model: str, options: Mapping[str, Any], resolution: int, setting: str
) -> Path:
    if weights == "imagenet":
        return download.download(official.find(model, options=options, resolution=resolution))
    if weights == "bundled":
        if ours := bundled.find(model):
            return ours.path
        raise InputError(
            f"Expected {setting} to be another than bundled: {model} has no bundled weights; there "
            f"are of {', '.join(bundled.every())}."
        )
    path = Path(weights)
    if not path.is_file():
        raise InputError(
            f"Expected {setting} to be {', '.join(NAMED_WEIGHTS)} or a file, got {weights!r}, "
            "which is none."
        )
    return path


def _check_numbers(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Finds what fits by name and shape and is no use."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise InputError(f"{path}: expected finite numbers, got others in {name}: train again.")
        if name.endswith("/moving_variance") and array.min(initial=0) < 0:
            raise InputError(f"{path}: expected variances in {name}, got negative numbers.")


def _complete(
    read: Weights, weights: str, model: str, options: Mapping[str, Any], setting: str
) -> dict[str, Any]:
    if read.models and model not in read.models:
        raise InputError(
            f"{weights}: these are the weights of {read.source}: expected {setting} to be "
            f"{' or '.join(read.models)}, got {model}."
        )
    for name, value in read.options.items():
        if options.get(name, value) != value:
            raise InputError(
                f"{weights}: the weights of {read.source} need {name}={value}, got "
                f"{options[name]}: leave it out."
            )
    return {**options, **read.options}
