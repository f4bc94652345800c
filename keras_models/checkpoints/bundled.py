"""The trained weights that come with this project; their files say what they are weights of."""

from dataclasses import dataclass
from pathlib import Path

from keras_models.checkpoints import native
from keras_models.checkpoints.native import Trained

FOLDER = Path(__file__).parents[1] / "weights"
LICENSE = "Apache-2.0"  # as their model cards say


@dataclass(frozen=True)
class Bundled:
    """A file of weights, and what it says of itself."""

    path: Path
    trained: Trained


def every() -> dict[str, Bundled]:
    """Model's name in the registry -> its weights, for the models that have some."""
    found = {}
    for path in sorted(FOLDER.glob("*.safetensors")):
        if described := native.describe(path):
            found[described.model] = Bundled(path, described)
    return found


def find(model: str) -> Bundled | None:
    """The weights of that model."""
    return every().get(model)
