"""Weights from files, ours and other people's: one module per source."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keras_models.checkpoints import files, keras_applications, megvii, native, timm, torchvision
from keras_models.checkpoints.recognized import Imported
from keras_models.images.decode import Preprocessing
from shufflelite.errors import InputError

OURS = "shufflelite"
IMPORTERS: Mapping[str, tuple[Callable[[Mapping[str, np.ndarray]], Imported | None], ...]] = {
    "keras": keras_applications.IMPORTERS,
    "torchvision": torchvision.IMPORTERS,
    "megvii": megvii.IMPORTERS,
    "timm": timm.IMPORTERS,
    "timm_tf": timm.TF_IMPORTERS,
}
SOURCES = (OURS, *IMPORTERS)


@dataclass(frozen=True, eq=False)
class Weights:
    """Arrays under our names; the rest says nothing for a file that tells no more.

    Attributes:
      arrays: "layer/weight" -> array, as `load_weights` expects.
      preprocessing: What the network was trained on, where that is known.
      source: Whose network and which, as in "torchvision shufflenet_v2".
      options: What of the builder makes ours compute the same function.
      models: Names in the registry of the networks that it can be.
      resolution: Height and width trained at.
      class_names: In the order of the logits.
    """

    arrays: Mapping[str, np.ndarray]
    preprocessing: Preprocessing | None = None
    source: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    resolution: int | None = None
    class_names: tuple[str, ...] | None = None


def read_weights(path: str | Path, source: str | None = None) -> Weights:
    """Reads a file of weights and recognizes what we trained and the networks of other libraries.

    Args:
      path: A file that `files.read` reads.
      source: One of SOURCES, instead of finding out.

    Raises:
      InputError: A file that cannot be read, an unknown source, names that are not those of
        `source`, or names that several sources have.
    """
    if source not in (None, *SOURCES):
        raise InputError(
            f"Expected the weights' source to be one of {', '.join(SOURCES)}, got {source!r}."
        )
    arrays = files.read(path)
    if source in (None, OURS) and (ours := native.describe(Path(path))):
        return Weights(
            arrays,
            ours.preprocessing,
            f"{OURS} {ours.model}",
            ours.options,
            (ours.model,),
            ours.resolution,
            ours.class_names,
        )
    if "optimizer/0000" in arrays:
        raise InputError(
            f"{path}: expected weights, got the checkpoint of a training: take weights.safetensors "
            "or best.safetensors beside it."
        )
    if source == OURS:
        return Weights(arrays)
    recognized = {
        name: imported
        for name, importers in IMPORTERS.items()
        for importer in importers
        if (imported := importer(arrays)) is not None
    }
    found = {name: one for name, one in recognized.items() if source in (None, name)}
    if len(found) > 1:
        networks = " and ".join(imported.source for imported in found.values())
        raise InputError(
            f"{path}: {networks} have the same names of weights, but do not compute the same: "
            f"say which of the sources it is, {' or '.join(found)}."
        )
    if source is not None and not found:
        those = " or ".join(imported.source for imported in recognized.values())
        raise InputError(
            f"{path}: expected the weights of a network of {source}, found "
            + (f"those of {those}: leave the source out." if those else "others.")
        )
    for imported in found.values():
        return Weights(
            imported.arrays,
            imported.preprocessing,
            imported.source,
            imported.options,
            imported.models,
        )
    return Weights(arrays)
