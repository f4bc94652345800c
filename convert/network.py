"""The first stage: builds the network that the settings name, and loads its weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convert.calibration_data import Inputs, from_pictures
from convert.resolve_model import describe
from convert.settings import Model
from keras_models import counts, registry
from keras_models.accuracy import Accuracy
from keras_models.checkpoints import bundled, native, resolve
from keras_models.checkpoints.head import CLASSIFIER
from keras_models.checkpoints.load import load_weights, model_arrays, with_layer_names
from keras_models.checkpoints.random_weights import randomize
from keras_models.images import class_names
from keras_models.images.decode import Preprocessing
from shufflelite import config
from shufflelite.errors import InputError


@dataclass(frozen=True)
class WeightsOrigin:
    """Where the weights come from; None for random ones."""

    origin: str
    source: str | None = None  # whose naming and preprocessing they have
    sha256: str | None = None
    accuracy: Accuracy | None = None  # of the float network, as the weights file reports it


@dataclass(frozen=True, eq=False)
class LoadedNetwork:
    """A training-form model with its weights, preprocessing, class names and costs."""

    model: Any
    options: Mapping[str, Any]  # that the builder was called with
    preprocessing: Preprocessing
    weights: WeightsOrigin
    class_names: tuple[str, ...] | None
    params: int
    multiply_adds: int

    def read_pictures(
        self, source: str, *, limit: int | None = None, seed: int = 0, warn: Callable[[str], None]
    ) -> Inputs:
        """Reads pictures as this network's inputs; see `calibration_data.from_pictures`."""
        return from_pictures(
            source,
            resolution=self.model.input.shape[1],
            classes=self.model.output.shape[-1],
            names=self.class_names,
            preprocessing=self.preprocessing,
            limit=limit,
            seed=seed,
            warn=warn,
        )


def create(model: Model, *, seed: int, warn: Callable[[str], None]) -> LoadedNetwork:
    """Builds the network and loads its weights.

    Raises:
      InputError: unknown name or option, or weights that are not this network's.
    """
    resolution, names = model.input_resolution, None
    if model.labels is not None:
        names = class_names.read(model.labels, classes=model.classes)
    read, weights = None, WeightsOrigin("random")
    options = dict(model.options)
    if model.weights not in (None, "random"):
        found = resolve.read(
            model.weights,
            model=model.name,
            options=options,
            resolution=resolution,
            settings=("--weights", "--model"),
            source=model.source,
        )
        path, read, options = found.path, found.weights, dict(found.options)
        accuracy = _accuracy(path, model)
        weights = WeightsOrigin(model.weights, read.source, found.sha256, accuracy)
    built = registry.create(
        model.name,
        input_shape=(resolution, resolution, 3),
        num_classes=model.classes,
        **options,
    )
    if read is None:
        warn(
            f"random weights: the file is good for measuring latency only ({_alternatives(model)})"
        )
        randomize(built, seed=seed)
    else:
        for note in read.notes:
            warn(f"{path}: {note}")
        _check_classifier(with_layer_names(built, read.arrays), model_arrays(built), path)
        load_weights(built, read.arrays, origin=str(path))
        names = names or read.class_names
        if read.resolution not in (None, resolution):
            warn(f"the weights were trained at {read.resolution}, and this is at {resolution}")
    preprocessing = (read and read.preprocessing) or Preprocessing()
    params, multiply_adds = counts.total(counts.count(built))
    return LoadedNetwork(built, options, preprocessing, weights, names, params, multiply_adds)


def _accuracy(path: Path, model: Model) -> Accuracy | None:
    """The accuracy that weights of our training report, at the resolution of the training."""
    described = native.describe(path)
    if described is None or described.resolution != model.input_resolution:
        return None
    try:
        return config.build(described.origin["accuracy"], Accuracy)
    except (InputError, LookupError, TypeError, AttributeError):  # of another version
        return None


def _alternatives(model: Model) -> str:
    weights = bundled.find(model.name)
    if weights is None:
        return "see --weights"
    trained = weights.trained
    network = describe(trained.model, trained.options, trained.resolution, trained.num_classes)
    return f"bundled are those of {network}"


def _check_classifier(
    arrays: Mapping[str, np.ndarray], network: Mapping[str, np.ndarray], path: Path
) -> None:
    """Detects a backbone without classifier, and a mismatch of the number of classes."""
    missing = network.keys() - arrays.keys()
    if missing and all(name.startswith(CLASSIFIER) for name in missing) and arrays:
        raise InputError(
            f"{path}: it is a backbone without classifier: train one for your classes "
            "('network.weights' of python -m keras_models.train), or pass the weights of the whole "
            "network."
        )
    if not missing and f"{CLASSIFIER}kernel" in network:
        shape, expected = (a[f"{CLASSIFIER}kernel"].shape for a in (arrays, network))
        if shape[:-1] == expected[:-1] and shape != expected:
            raise InputError(
                f"{path}: expected weights for {expected[-1]} classes, got {shape[-1]}: "
                f"pass --num_classes {shape[-1]}, or other weights."
            )
