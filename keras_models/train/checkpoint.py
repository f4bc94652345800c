"""A training on disk, whole at any moment: one file, replaced at once.

Its arrays are the trainer's variables; its metadata says whose they are and what was measured.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from keras_models.train.settings import TrainingSettings
from shufflelite import config
from shufflelite.atomic import replacing
from shufflelite.errors import InputError

FREE = ("out", "save_every_s", "tensorboard")  # settings that do not change what is computed


@dataclass(frozen=True)
class Epoch:
    """A row of the log; rates in percent, of the test set where there is one."""

    epoch: int
    learning_rate: float  # of its last step
    loss: float
    top1: float
    images_per_s: float
    test_loss: float | None = None
    test_top1: float | None = None
    test_top5: float | None = None


@dataclass(frozen=True)
class Progress:
    """What was done: whole epochs, and sums over the steps of the epoch that is under way."""

    epochs: tuple[Epoch, ...] = ()
    loss_sum: float = 0.0
    right: int = 0
    seconds: float = 0.0


class OtherTrainingError(InputError):
    """A checkpoint of another network, data set or recipe: `difference` says what is another."""

    def __init__(self, message: str, difference: str) -> None:
        super().__init__(message)
        self.difference = difference


def save(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    progress: Progress,
    settings: TrainingSettings,
    start: str,
) -> None:
    """Writes the trainer's variables; `start`: on which pictures, from which weights it began."""
    metadata = {
        "settings": json.dumps(config.to_dict(settings)),
        "progress": json.dumps(asdict(progress)),
        "start": start,
    }
    with replacing(path) as temporary:
        temporary.write_bytes(safetensors.numpy.save(dict(arrays), metadata))


def ended(path: Path, settings: TrainingSettings) -> bool:
    """Whether the training in `path` has all of its epochs; False where none can be read."""
    try:
        with safetensors.safe_open(path, "np") as file:
            epochs = json.loads(file.metadata()["progress"])["epochs"]
        return len(epochs) >= settings.training.epochs
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError):
        return False  # `restore` tells why


def restore(
    path: Path, variables: Mapping[str, Any], settings: TrainingSettings, start: str
) -> Progress:
    """Assigns what `save` wrote to `variables`.

    Raises:
      InputError: no checkpoint, or (OtherTrainingError) one of another network, data set or
        recipe; nothing is then assigned.
    """
    remedy = "choose another 'out', or remove the file to begin anew"
    try:
        with safetensors.safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        before = config.build(json.loads(metadata["settings"]), TrainingSettings)
        stored = json.loads(metadata["progress"])
        progress = Progress(**{**stored, "epochs": tuple(Epoch(**e) for e in stored["epochs"])})
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: no checkpoint of a training ({error}): {remedy}.") from error
    difference = _difference(before, settings)
    if not difference and metadata["start"] != start:
        difference = "other training pictures, or other weights to begin with"
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    if not difference and shapes != {name: tuple(v.shape) for name, v in variables.items()}:
        difference = "weights of another network"
    if difference:
        raise OtherTrainingError(
            f"{path}: the training that began there has {difference}: {remedy}.", difference
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])
    return progress


def _difference(before: TrainingSettings, now: TrainingSettings) -> str:
    """The first setting that changes what is computed, as "training.batch = 64, not 128"."""
    fixed = replace(before, **{name: getattr(now, name) for name in FREE})
    pairs = _flat(config.to_dict(fixed)), _flat(config.to_dict(now))
    for name in sorted(pairs[0].keys() | pairs[1].keys()):
        old, new = (pair.get(name) for pair in pairs)
        if old != new and not name.startswith("data."):  # pictures may move: their hash tells
            return f"{name} = {old!r}, not {new!r}"
    return ""


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        inner = isinstance(value, Mapping)
        flat |= _flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return flat
