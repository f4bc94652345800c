"""Weights from files, ours and other people's: one module per source."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from keras_models.checkpoints import (
    files,
    head,
    keras_applications,
    keras_file,
    megvii,
    native,
    prefixes,
    timm,
    torchvision,
)
from keras_models.checkpoints.weights import Weights
from shufflelite.errors import InputError

__all__ = ["IMPORTERS", "OURS", "SOURCES", "Weights", "read_weights"]

OURS = "shufflelite"
IMPORTERS: Mapping[str, tuple[Callable[[Mapping[str, np.ndarray]], Weights | None], ...]] = {
    "keras": keras_applications.IMPORTERS,
    "torchvision": torchvision.IMPORTERS,
    "megvii": megvii.IMPORTERS,
    "timm": timm.IMPORTERS,
    "timm_tf": timm.TF_IMPORTERS,
}
SOURCES = (OURS, *IMPORTERS)


def read_weights(path: str | Path, source: str | None = None) -> Weights:
    """Reads a file of weights and recognizes our own and the networks of other libraries.

    Args:
      path: A file that `files.read` reads.
      source: One of SOURCES; None: it is detected.

    Raises:
      InputError: A file that cannot be read, an unknown source, names that are not those of
        `source`, or names that several sources have.
    """
    if source not in (None, *SOURCES):
        raise InputError(
            f"Expected the weights' source to be one of {', '.join(SOURCES)}, got {source!r}."
        )
    arrays = files.read(path)
    if source in (None, OURS) and (trained := native.describe(Path(path))):
        return Weights(
            arrays,
            source=f"{OURS} {trained.model}",
            models=(trained.model,),
            preprocessing=trained.preprocessing,
            options=trained.options,
            resolution=trained.resolution,
            class_names=trained.class_names,
        )
    if "optimizer/0000" in arrays:
        raise InputError(
            f"{path}: expected weights, got the checkpoint of a training: take weights.safetensors "
            "or best.safetensors beside it."
        )
    try:
        return _import(arrays, Path(path), source)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _import(arrays: Mapping[str, np.ndarray], path: Path, source: str | None) -> Weights:
    file = keras_file.read(path, arrays) if path.suffix.lower() in files.KERAS else None
    named: Mapping[str, np.ndarray] = file.arrays if file else arrays
    weights = Weights(named)
    if source != OURS:
        for candidate in prefixes.candidates(named):
            recognized = {
                name: imported
                for name, importers in IMPORTERS.items()
                for importer in importers
                if (imported := importer(candidate)) is not None
            }
            if recognized:
                named = candidate
                break
        weights = _choose(recognized, source) or weights
    if weights.source is not None:
        weights = head.with_classifier(weights, named)
    return keras_file.complete(weights, file) if file else weights


def _choose(recognized: Mapping[str, Weights], source: str | None) -> Weights | None:
    matches = [weights for name, weights in recognized.items() if source in (None, name)]
    if len(matches) > 1:
        networks = " and ".join(str(weights.source) for weights in matches)
        raise InputError(
            f"{networks} have the same names of weights, but do not compute the same: "
            f"say which of the sources it is, {' or '.join(recognized)}."
        )
    if source is not None and not matches:
        others = " or ".join(str(weights.source) for weights in recognized.values())
        raise InputError(
            f"expected the weights of a network of {source}, found "
            + (f"those of {others}: leave the source out." if others else "others.")
        )
    return matches[0] if matches else None
