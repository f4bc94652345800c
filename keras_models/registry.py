"""Names of networks, the figures published for them, and their builders.  Imports no TensorFlow."""

import difflib
import fnmatch
import importlib
import inspect
from dataclasses import dataclass
from typing import Any

from keras_models.errors import InputError


@dataclass(frozen=True)
class Published:
    """A variant with 1000 classes as published.

    Attributes:
      width: width multiplier.
      resolution: height and width of the images.
      params: trainable parameters; exact, where the publications round them.
      mmadds: multiply-adds in millions.
      top1: accuracy on ImageNet's validation set in percent.
    """

    width: float
    resolution: int
    params: int
    mmadds: int
    top1: float


@dataclass(frozen=True)
class Entry:
    """A family of networks: its builder, where it comes from, and its published variants."""

    builder: str  # "module:function", imported on first use
    paper: str
    published: tuple[Published, ...]
    note: str  # where the published figures are from, and which are known to be off


MODELS = {
    "mobilenet_v1": Entry(
        "keras_models.mobilenet_v1:mobilenet_v1",
        paper="https://arxiv.org/abs/1704.04861",
        published=(
            Published(1.0, 224, 4_231_976, 569, 70.9),
            Published(1.0, 192, 4_231_976, 418, 70.0),
            Published(1.0, 160, 4_231_976, 291, 68.0),
            Published(1.0, 128, 4_231_976, 186, 65.2),
            Published(0.75, 224, 2_585_560, 317, 68.4),
            Published(0.75, 192, 2_585_560, 233, 67.2),
            Published(0.75, 160, 2_585_560, 162, 65.3),
            Published(0.75, 128, 2_585_560, 104, 62.1),
            Published(0.5, 224, 1_331_592, 150, 63.3),
            Published(0.5, 192, 1_331_592, 110, 61.7),
            Published(0.5, 160, 1_331_592, 77, 59.1),
            Published(0.5, 128, 1_331_592, 49, 56.3),
            Published(0.25, 224, 470_072, 41, 49.8),
            Published(0.25, 192, 470_072, 34, 47.7),
            Published(0.25, 160, 470_072, 21, 45.5),
            Published(0.25, 128, 470_072, 14, 41.5),
        ),
        note="Figures of the authors' code, the README of TensorFlow-Slim. Its multiply-adds are "
        "2.6 % too low at width 0.75 (the paper has 325 M at 224), and its 34 M for 0.25 at 192 "
        "should be 30 M.",
    ),
    "shufflenet_v2": Entry(
        "keras_models.shufflenet_v2:shufflenet_v2",
        paper="https://arxiv.org/abs/1807.11164",
        published=(
            Published(0.5, 224, 1_366_792, 41, 60.3),
            Published(1.0, 224, 2_278_604, 146, 69.4),
            Published(1.5, 224, 3_503_624, 299, 72.6),
            Published(2.0, 224, 7_393_996, 591, 74.9),
        ),
        note="Figures of the paper's Table 8. Its multiply-adds are about 1 % above those of the "
        "convolutions and the classifier.",
    ),
}


def names(pattern: str = "*") -> list[str]:
    """The names that match a shell pattern, sorted."""
    return sorted(fnmatch.filter(MODELS, pattern))


def find(name: str) -> Entry:
    """The entry of that name; raises InputError with the nearest name where there is none."""
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(names())}."
        raise InputError(f"Unknown model {name!r}. {hint}")
    return MODELS[name]


def create(name: str, **kwargs: Any) -> Any:
    """Builds the network: a Keras model from (b, h, w, 3) to logits (b, classes), float32.

    An argument that is None is left to the builder.

    Raises:
      InputError: unknown name, an argument the builder does not take, or a value it refuses.
    """
    module, function = find(name).builder.split(":")
    builder = getattr(importlib.import_module(module), function)
    known = inspect.signature(builder).parameters
    given = {key: value for key, value in kwargs.items() if value is not None}
    for key in given:
        if key not in known:
            raise InputError(f"{name} has no option {key!r}; it takes {', '.join(known)}.")
    return builder(**given)
