"""Fills in what a conversion's settings leave to the weights.  Imports no TensorFlow."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from convert.settings import Model
from keras_models import checkpoints, registry
from keras_models.checkpoints import bundled, native
from keras_models.checkpoints.native import Trained
from shufflelite.errors import InputError


def complete(model: Model) -> Model:
    """Chooses the weights where none are named, and takes from them what the user does not say.

    A model without options, resolution and classes is the bundled one, and so is the bundled one
    with all of them; any other has random weights.  Options, resolution and classes that are not
    given are those of the weights, where their file describes them, or else the paper's.

    Raises:
      InputError: unknown model, or bundled weights of a model that has none.
    """
    registry.find(model.name)
    if model.weights is None:
        model = dataclasses.replace(model, weights="bundled" if _is_bundled(model) else "random")
    described = _describe(model)
    if described is None or described.model != model.name:  # whose weights are refused later
        return dataclasses.replace(model, num_classes=model.classes)
    return dataclasses.replace(
        model,
        options={**described.options, **model.options},
        resolution=described.resolution if model.resolution is None else model.resolution,
        num_classes=described.num_classes if model.num_classes is None else model.num_classes,
    )


def in_words(name: str, options: Mapping[str, object], side: int, classes: int) -> str:
    """Which network it is."""
    told = " ".join([name, *(f"{option}={value}" for option, value in options.items())])
    return f"{told}, {side} x {side}, {classes} classes"


def _is_bundled(model: Model) -> bool:
    found = bundled.find(model.name)
    if found is None:
        return False
    theirs = found.trained
    whole = theirs.options, theirs.resolution, theirs.num_classes
    asked = model.options, model.resolution, model.num_classes
    return model.resolution_multiplier == 1 and asked in (({}, None, None), whole)


def _describe(model: Model) -> Trained | None:
    if model.weights == "bundled":
        found = bundled.find(model.name)
        if found is None:
            those = ", ".join(sorted(bundled.every())) or "here none has"
            raise InputError(
                f"Expected a model with bundled weights ({those}), got {model.name}: pass "
                "--weights FILE, imagenet or random."
            )
        return found.trained
    ours = model.source in (None, checkpoints.OURS) and model.weights not in registry.NAMED_WEIGHTS
    return native.describe(Path(str(model.weights))) if ours else None
