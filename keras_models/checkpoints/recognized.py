"""What an importer makes of another library's arrays."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_models.images.decode import Preprocessing


@dataclass(frozen=True, eq=False)
class Imported:
    """A recognized network, under our names.

    Attributes:
      source: Whose network and which, as in "torchvision shufflenet_v2".
      models: Names in the registry of the networks that it can be.
      arrays: "layer/weight" -> array, as `load_weights` expects.
      preprocessing: What the network was trained on.
      options: What of the builder makes ours compute the same function: padding, variant, ....
    """

    source: str
    models: tuple[str, ...]
    arrays: Mapping[str, np.ndarray]
    preprocessing: Preprocessing
    options: Mapping[str, Any] = field(default_factory=dict)
