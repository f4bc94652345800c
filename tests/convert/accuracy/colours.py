"""A network that names the strongest channel of a picture, and pictures to ask it for."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras as keras
from PIL import Image

from keras_models.images.decode import Preprocessing
from shufflelite import config

NAMES = ("red", "green", "blue")
SOLID = {"red": (200, 30, 20), "green": (40, 220, 30), "blue": (10, 60, 190)}
KINDS = {  # what the network answers, as the kernel of its classifier
    "right": np.eye(3),  # the channel that is strongest
    "red_only": np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0]]),
    "nan": np.full((3, 3), np.nan),
}
PLAIN = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), crop_fraction=1.0)


def build(*, input_shape: tuple[int, int, int], num_classes: int) -> Any:
    """Names the strongest of a picture's channels."""
    inputs = keras.Input(input_shape, name="image")
    x = keras.layers.GlobalAveragePooling2D(name="global_pool")(inputs)
    x = keras.layers.Dense(num_classes, use_bias=False, name="classifier")(x)
    return keras.Model(inputs, x, name="colours")


def write_bundle(
    folder: Path,
    data: bytes,
    *,
    precision: str = "float32",
    names: Sequence[str] | None = None,
    preprocessing: Preprocessing = PLAIN,
) -> Path:
    """What convert writes, as far as it is read; returns the path of the file."""
    folder.mkdir(parents=True)
    (folder / "model.tflite").write_bytes(data)
    report = {
        "preprocessing": config.to_dict(preprocessing),
        "settings": {"quantization": {"precision": precision}},
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    (folder / "report.json").write_text(json.dumps(report))
    if names is not None:
        (folder / "labels.txt").write_text("\n".join(names) + "\n")
    return folder / "model.tflite"


def write_pictures(folder: Path, shown: dict[str, list[str]], *, side: int = 8) -> Path:
    """A folder for each class, of pictures of colours."""
    for name, colours in shown.items():
        (folder / name).mkdir(parents=True)
        for number, colour in enumerate(colours):
            Image.new("RGB", (side, side), SOLID[colour]).save(folder / name / f"{number}.png")
    return folder
