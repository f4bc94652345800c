"""Weights as users name them, and what a network must be to take them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_models.checkpoints import Weights, bundled, download
from keras_models.errors import InputError
from keras_models.registry import NAMED_WEIGHTS


def find(
    weights: str, *, model: str, options: Mapping[str, Any], resolution: int, setting: str
) -> Path:
    """The file of weights of that name.

    Args:
      weights: "bundled", "imagenet", which is downloaded once, or a file.
      model: In the registry.
      options: Of its builder, as the user gave them.
      resolution: Of the network, in pixels.
      setting: What named the weights, for messages.

    Raises:
      InputError: there are none, or they cannot be fetched.
    """
    if weights == "imagenet":
        return download.download(download.find(model, options=options, resolution=resolution))
    if weights == "bundled":
        if ours := bundled.find(model):
            return ours.path
        raise InputError(
            f"Expected {setting} to be another than bundled: {model} has no bundled weights; there "
            f"are of {', '.join(bundled.every())}."
        )
    path = Path(weights)
    if not path.is_file():
        raise InputError(
            f"Expected {setting} to be {', '.join(NAMED_WEIGHTS)} or a file, got {weights!r}, "
            "which is none."
        )
    return path


def builder_options(
    read: Weights, *, weights: str, model: str, options: Mapping[str, Any], setting: str
) -> dict[str, Any]:
    """The builder's options: the user's, and what the weights need to mean what they did.

    Args:
      read: The weights.
      weights: Their name, for messages.
      model: In the registry.
      options: As the user gave them.
      setting: What named the model, for messages.

    Raises:
      InputError: weights of another network, or options that contradict them.
    """
    if read.models and model not in read.models:
        raise InputError(
            f"{weights}: these are the weights of {read.source}: expected {setting} to be "
            f"{' or '.join(read.models)}, got {model}."
        )
    for name, value in read.options.items():
        if options.get(name, value) != value:
            raise InputError(
                f"{weights}: the weights of {read.source} need {name}={value}, got "
                f"{options[name]}: leave it out."
            )
    return {**options, **read.options}
