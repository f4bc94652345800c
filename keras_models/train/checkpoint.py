"""The checkpoint of a training: one file, replaced as a whole, which is complete at any moment.

Its arrays are the trainer's variables; its metadata holds the settings and what was measured.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from keras_models.checkpoints import native
from keras_models.train.settings import TrainingSettings
from shufflelite import config
from shufflelite.errors import InputError

OTHER_START = "other training pictures, other initial weights, or another teacher"
REMEDY = "choose another 'out', or remove the file to start a new training"
NOT_IN_RECIPE = ("out", "save_every_s", "tensorboard")  # settings that do not change the weights


@dataclass(frozen=True)
class EpochMetrics:
    """A row of log.csv; rates in percent, those of the test set where there is one."""

    epoch: int
    learning_rate: float  # of its last step
    loss: float
    top1: float
    images_per_s: float
    test_loss: float | None = None
    test_top1: float | None = None
    test_top5: float | None = None


@dataclass(frozen=True)
class TrainingState:
    """The completed epochs, and sums over the completed steps of the current epoch."""

    epochs: tuple[EpochMetrics, ...] = ()
    loss_sum: float = 0.0
    right: int = 0
    seconds: float = 0.0


class OtherTrainingError(InputError):
    """A checkpoint of another network, data set or recipe; `difference` names the first one."""

    def __init__(self, message: str, difference: str) -> None:
        super().__init__(message)
        self.difference = difference


def recipe(settings: TrainingSettings) -> dict[str, Any]:
    """The settings that the weights depend on."""
    plain = config.to_dict(replace(settings, preprocessing=settings.input_preprocessing))
    return {name: value for name, value in plain.items() if name not in NOT_IN_RECIPE}


def save(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    state: TrainingState,
    settings: TrainingSettings,
    start: str,
) -> None:
    """Writes the trainer's variables; `start` identifies pictures, initial weights, teacher."""
    metadata = {
        "settings": json.dumps(config.to_dict(settings)),
        "progress": json.dumps(asdict(state)),
        "start": start,
    }
    native.write(path, arrays, metadata)


def is_complete(path: Path, settings: TrainingSettings) -> bool:
    """Whether the checkpoint has all epochs; False if it cannot be read."""
    try:
        with safetensors.safe_open(path, "np") as file:
            epochs = config.parse_json(file.metadata()["progress"])["epochs"]
        return len(epochs) >= settings.training.epochs
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError):
        return False  # `restore` reports the reason


def check(path: Path, settings: TrainingSettings, start: str) -> None:
    """Checks, before long work, what `restore` will check; `start` is the part known by then.

    Raises:
      InputError: as `restore`.
    """
    with _explained(path):
        with safetensors.safe_open(path, "np") as file:
            metadata = file.metadata() or {}
        stored_settings = config.build(config.parse_json(metadata["settings"]), TrainingSettings)
        stored_start = metadata["start"]
    difference = _difference(stored_settings, settings)
    if not difference and not stored_start.startswith(start):
        difference = OTHER_START
    _refuse(path, difference)


def restore(
    path: Path, variables: Mapping[str, Any], settings: TrainingSettings, start: str
) -> TrainingState:
    """Assigns the arrays that `save` wrote to `variables`.

    Raises:
      InputError: not a checkpoint, or (OtherTrainingError) one of another network, data set or
        recipe; no variable is assigned then.
    """
    with _explained(path):
        with safetensors.safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        stored_settings = config.build(config.parse_json(metadata["settings"]), TrainingSettings)
        state = config.build(config.parse_json(metadata["progress"]), TrainingState, origin="")
    difference = _difference(stored_settings, settings)
    if not difference and metadata["start"] != start:
        difference = OTHER_START
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    if not difference and shapes != {name: tuple(v.shape) for name, v in variables.items()}:
        difference = "weights of another network"
    _refuse(path, difference)
    for name, variable in variables.items():
        variable.assign(arrays[name])
    return state


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path}: not a checkpoint of a training ({error}): {REMEDY}.") from error


def _refuse(path: Path, difference: str) -> None:
    if difference:
        raise OtherTrainingError(
            f"{path}: the training that it belongs to has {difference}: {REMEDY}.", difference
        )


def _difference(stored: TrainingSettings, current: TrainingSettings) -> str:
    """The first different setting of the recipe, as "training.batch = 64, not 128"."""
    old, new = _flat(recipe(stored)), _flat(recipe(current))
    for name in sorted(old.keys() | new.keys()):
        values = old.get(name), new.get(name)
        if values[0] != values[1] and not name.startswith("data."):  # the pictures' hash decides
            return f"{name} = {values[0]!r}, not {values[1]!r}"
    return ""


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        is_table = isinstance(value, Mapping)
        flat |= _flat(value, f"{prefix}{key}.") if is_table else {f"{prefix}{key}": value}
    return flat
