"""Preprocessing in a file's metadata: the schema's fields, and a sentence for the rest."""

import re
from typing import Any

from convert.verification.runner import IoTensor
from keras_models.images.decode import Preprocessing
from tflite_file.metadata import Metadata

_SENTENCE = re.compile(
    r"The picture in (RGB|BGR), its shorter side scaled to ([1-9]\d{0,5}) \((\w+)\), "
    r"the middle ([1-9]\d{0,5}) x \4 of it\."
)


def describe(preprocessing: Preprocessing, resolution: int) -> str:
    """The sentence for `Metadata.image`."""
    return (
        f"The picture in {preprocessing.channel_order.upper()}, its shorter side scaled to "
        f"{preprocessing.shorter_side(resolution)} ({preprocessing.interpolation}), the middle "
        f"{resolution} x {resolution} of it."
    )


def read(metadata: Metadata, image: IoTensor) -> dict[str, Any]:
    """The fields of `Preprocessing` that the metadata of a file determines.

    Nothing without the order of the channels: means alone would make wrong inputs silently.  Where
    it declares RGB, its readers copy pixels into uint8 inputs unchanged, and so does this.

    Args:
      metadata: The file's metadata, by anyone.
      image: The file's input.
    """
    fields: dict[str, Any] = {}
    if sentence := _SENTENCE.fullmatch(metadata.image):
        order, shorter, interpolation, side = sentence.groups()
        fields = {
            "channel_order": order.lower(),
            "crop_fraction": int(side) / int(shorter),
            "interpolation": interpolation,
        }
    elif not metadata.is_rgb:
        return {}
    if metadata.is_rgb and image.dtype == "uint8":
        return fields | {"mean": (image.zero_point,) * 3, "std": (1 / (image.scale or 1),) * 3}
    for name, values in (("mean", metadata.mean), ("std", metadata.std)):
        if values:
            fields[name] = values * 3 if len(values) == 1 else values
    return fields
