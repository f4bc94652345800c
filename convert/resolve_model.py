"""Completes the settings of a conversion from its weights.  Imports no TensorFlow."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from convert.settings import Model
from keras_models import checkpoints, registry
from keras_models.checkpoints import bundled, native
from keras_models.checkpoints.native import Trained
from shufflelite.errors import InputError


def complete(model: Model) -> Model:
    """Chooses the weights if none are named, and takes unset values from them.

    Without weights, a model that is named alone, or with exactly the options, resolution and
    classes of the bundled network, gets the bundled weights; any other gets random ones.  Options,
    resolution and classes that are not set are those of the weights, if their file describes them,
    or else the paper's.

    Raises:
      InputError: unknown model, an option that it does not have or of another type, or bundled
        weights of a model that has none.
    """
    for option, flag in (("input_shape", "resolution"), ("num_classes", "num_classes")):
        if option in model.options:
            raise InputError(f"Expected --{flag}, got --option {option}.")
    model = dataclasses.replace(model, options=registry.check(model.name, model.options))
    if model.weights is None:
        model = dataclasses.replace(model, weights="bundled" if _is_bundled(model) else "random")
    trained = _trained(model)
    if trained is None or trained.model != model.name:  # whose weights are refused later
        return dataclasses.replace(model, num_classes=model.classes)
    return dataclasses.replace(
        model,
        options={**trained.options, **model.options},
        resolution=trained.resolution if model.resolution is None else model.resolution,
        num_classes=trained.num_classes if model.num_classes is None else model.num_classes,
    )


def describe(name: str, options: Mapping[str, object], resolution: int, classes: int) -> str:
    """The network in words."""
    words = " ".join([name, *(f"{option}={value}" for option, value in options.items())])
    return f"{words}, {resolution} x {resolution}, {classes} classes"


def _is_bundled(model: Model) -> bool:
    weights = bundled.find(model.name)
    if weights is None:
        return False
    trained = weights.trained
    whole = trained.options, trained.resolution, trained.num_classes
    requested = model.options, model.resolution, model.num_classes
    return model.resolution_multiplier == 1 and requested in (({}, None, None), whole)


def _trained(model: Model) -> Trained | None:
    """What the weights' own file says of the network; None: nothing."""
    if model.weights == "bundled":
        return bundled.require(model.name, setting="--weights").trained
    is_ours = model.source in (None, checkpoints.OURS)
    if not is_ours or model.weights in registry.NAMED_WEIGHTS:
        return None
    return native.describe(Path(str(model.weights)))
