"""The weights of a file, under our names; and what the importers share."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_models.images.decode import Preprocessing

IMAGENET = Preprocessing((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
EFFICIENTNET_V2_UNITS = {  # units in each stage: name in the registry
    (2, 4, 4, 6, 9, 15): "efficientnet_v2_s",
    (3, 5, 5, 7, 14, 18, 5): "efficientnet_v2_m",
    (4, 7, 7, 10, 19, 25, 7): "efficientnet_v2_l",
    (4, 8, 8, 16, 24, 32, 8): "efficientnet_v2_xl",
    (1, 2, 2, 3, 5, 8): "efficientnet_v2_b0",
    (2, 3, 3, 4, 6, 9): "efficientnet_v2_b1",
    (2, 3, 3, 4, 6, 10): "efficientnet_v2_b2",
    (2, 3, 3, 5, 7, 12): "efficientnet_v2_b3",
}
MOBILENET_V2_UNITS = (1, 2, 3, 4, 3, 3, 1)  # in stages 1 to 7
SHUFFLENET_UNITS = (4, 8, 4)  # in stages 2 to 4


@dataclass(frozen=True, eq=False)
class Weights:
    """Arrays under our names, and what a recognized file says of its network.

    Attributes:
      arrays: "layer/weight" -> array, as `load_weights` expects.
      source: The library and its network, such as "torchvision shufflenet_v2".
      models: Names in the registry of the networks that the weights can be of.
      preprocessing: What the network was trained on.
      options: Arguments of the builder with which our network computes the same function: padding,
        variant, ....
      resolution: Height and width trained at.
      class_names: In the order of the logits.
      notes: What the file leaves open, one line each, for its reader.
    """

    arrays: Mapping[str, np.ndarray]
    source: str | None = None
    models: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    resolution: int | None = None
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


def unit_names(units: Iterable[int], *, first_stage: int) -> list[str]:
    """Our names of all units, in order: stage2_unit1, stage2_unit2, ...."""
    return [
        f"stage{stage}_unit{unit}"
        for stage, count in enumerate(units, start=first_stage)
        for unit in range(1, count + 1)
    ]


def without_fc1(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The option of a MobileNet V3 whose classifier follows the pooling, under our names."""
    return {} if "fc1/kernel" in arrays else {"fc1": False}
