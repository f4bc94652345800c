"""Finds the weights that a user names, and the builder's options that they need."""

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
class ResolvedWeights:
    """A file of weights; `options` are the builder's: the user's and those the weights need."""

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
) -> ResolvedWeights:
    """Finds the weights of that name and reads them.

    Args:
      weights: "bundled", "imagenet", which is downloaded once, or a file.
      model: In the registry.
      options: Of its builder, as the user gave them.
      resolution: Of the network, in pixels.
      settings: Names of the settings of the weights and of the model, for messages.
      source: One of checkpoints.SOURCES; None: it is detected.

    Raises:
      InputError: there are none, they cannot be fetched or read, they are those of another network,
        the options contradict them, or their values cannot be weights.
    """
    _check_widths(weights, model, options, settings[0])
    path = _find(weights, model, options, resolution, settings[0])
    contents = read_weights(path, source=source)
    _check_numbers(contents.arrays, path)
    merged = _merge_options(contents, weights, model, options, settings[1])
    return ResolvedWeights(path, atomic.sha256(path), contents, merged)


def _check_widths(weights: str, model: str, options: Mapping[str, Any], setting: str) -> None:
    """Refuses weights by name for aligned widths that they do not have."""
    align = options.get("align", 1)
    available = 1  # of all that is published
    if weights == "bundled" and (ours := bundled.find(model)):
        available = ours.trained.options.get("align", 1)
    if weights in ("bundled", "imagenet") and align != available:
        raise InputError(
            f"{model} with align={align} has no {weights} weights: expected {setting} to be random "
            f"or a file, or align={available}."
        )


def _find(
    weights: str, model: str, options: Mapping[str, Any], resolution: int, setting: str
) -> Path:
    if weights == "imagenet":
        return download.download(official.find(model, options=options, resolution=resolution))
    if weights == "bundled":
        return bundled.require(model, setting=setting).path
    path = Path(weights)
    if not path.is_file():
        raise InputError(
            f"Expected {setting} to be {', '.join(NAMED_WEIGHTS)} or a file, got {weights!r}, "
            "which is none."
        )
    return path


def _check_numbers(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Refuses values that fit by name and shape, but that no training of use leaves."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise InputError(f"{path}: expected finite numbers, got others in {name}: train again.")
        if name.endswith("/moving_variance") and array.min(initial=0) < 0:
            raise InputError(f"{path}: expected variances in {name}, got negative numbers.")


def _merge_options(
    contents: Weights, weights: str, model: str, options: Mapping[str, Any], setting: str
) -> dict[str, Any]:
    if contents.models and model not in contents.models:
        raise InputError(
            f"{weights}: these are the weights of {contents.source}: expected {setting} to be "
            f"{' or '.join(contents.models)}, got {model}."
        )
    for name, value in contents.options.items():
        if options.get(name, value) != value:
            raise InputError(
                f"{weights}: the weights of {contents.source} need {name}={value}, got "
                f"{options[name]}: leave it out."
            )
    return {**options, **contents.options}
