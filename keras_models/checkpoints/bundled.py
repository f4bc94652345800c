"""The trained weights that come with this project; each file describes its network."""

from dataclasses import dataclass
from pathlib import Path

from keras_models.checkpoints import native
from keras_models.checkpoints.native import Trained
from shufflelite.errors import InputError

FOLDER = Path(__file__).parents[1] / "weights"
LICENSE = "Apache-2.0"  # as their model cards say


@dataclass(frozen=True)
class Bundled:
    """A file of weights and its description."""

    path: Path
    trained: Trained


def every() -> dict[str, Bundled]:
    """Returns the models that have bundled weights: name in the registry -> weights."""
    bundled = {}
    for path in sorted(FOLDER.glob("*.safetensors")):
        if described := native.describe(path):
            bundled[described.model] = Bundled(path, described)
    return bundled


def find(model: str) -> Bundled | None:
    """Returns the weights of that model, or None."""
    return every().get(model)


def require(model: str, *, setting: str) -> Bundled:
    """Returns the weights of that model.

    Raises:
      InputError: it has none; the message names the `setting` that asks for them.
    """
    bundled = every()
    if model not in bundled:
        raise InputError(
            f"Expected a model with bundled weights ({', '.join(bundled) or 'here none has'}), "
            f"got {model}: set {setting} to a file, imagenet or random."
        )
    return bundled[model]
