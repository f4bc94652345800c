"""Fixtures: the network that names colours, its files, weights and pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from convert import export
from convert.settings import Precision, Quantization
from keras_models import registry
from keras_models.checkpoints import native
from keras_models.checkpoints.native import Trained
from tests.convert.accuracy.colours import KINDS, NAMES, PLAIN, build, write_pictures


@pytest.fixture(scope="session")
def colour_files() -> dict[str, bytes]:
    """Each kind of the network as a float .tflite file of 8x8 pictures."""
    made = {}
    for kind, kernel in KINDS.items():
        model = build(input_shape=(8, 8, 3), num_classes=3)
        model.get_layer("classifier").set_weights([kernel])
        made[kind] = export.to_tflite(model, Quantization(precision=Precision.FLOAT32), None)
    return made


@pytest.fixture
def colour_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a kind of the network as a training does, under a name that the registry has."""
    entry = registry.Entry("tests.convert.accuracy.colours:build", paper="", published=(), note="")
    monkeypatch.setitem(registry.MODELS, "colours", entry)

    def write(kind: str, *, names: Sequence[str] | None = NAMES, side: int = 8) -> Path:
        path = tmp_path / f"{kind}.safetensors"
        told = Trained("colours", {}, side, 3, names and tuple(names), PLAIN, {})
        native.save(path, {"classifier/kernel": KINDS[kind].astype(np.float32)}, told)
        return path

    return write


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Ten pictures, two of which lie in the folder of another class."""
    return write_pictures(
        tmp_path / "data",
        {
            "red": ["red", "red", "red", "blue"],
            "green": ["green", "green", "green"],
            "blue": ["blue", "blue", "green"],
        },
    )
