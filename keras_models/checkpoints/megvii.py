"""Weights of the authors' ShuffleNets, github.com/megvii-model/ShuffleNet-Series."""

from collections.abc import Callable, Mapping

import numpy as np

from keras_models.checkpoints.pytorch import convert, with_batch_norms
from keras_models.checkpoints.weights import SHUFFLENET_UNITS, Weights, unit_names
from keras_models.images.decode import Preprocessing

# Pixels 0..255 in OpenCV's order.  Its bilinear filter does not widen when it shrinks; ours does.
PREPROCESSING = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), channel_order="bgr")

_V1_UNIT = {
    "branch_main_1.0": "reduce",
    "branch_main_1.3": "depthwise",
    "branch_main_2.0": "expand",
}
_V2_UNIT = {
    "branch_proj.0": "left_depthwise",
    "branch_proj.2": "left_project",
    "branch_main.0": "expand",
    "branch_main.3": "depthwise",
    "branch_main.5": "project",
}


def shufflenet_v1(arrays: Mapping[str, np.ndarray]) -> Weights | None:
    """Recognizes ShuffleNet V1; its number of groups is that of the first unit."""
    reduce = arrays.get("features.0.branch_main_1.0.weight")
    expand = arrays.get("features.0.branch_main_2.0.weight")
    if reduce is None or expand is None or expand.ndim != 4 or reduce.ndim != 4:
        return None
    groups, rest = divmod(reduce.shape[0], max(1, expand.shape[1]))
    if rest:
        return None
    return Weights(
        source="megvii shufflenet_v1",
        models=("shufflenet_v1",),
        arrays=convert(arrays, _layers(_V1_UNIT)),
        preprocessing=PREPROCESSING,
        options={
            "variant": "megvii",
            "groups": groups,
            "stem": "imagenet",
            "shuffle": True,
            "padding": "symmetric",
        },
    )


def shufflenet_v2(arrays: Mapping[str, np.ndarray]) -> Weights | None:
    """Recognizes ShuffleNet V2."""
    if "features.0.branch_proj.0.weight" not in arrays or "conv_last.0.weight" not in arrays:
        return None
    return Weights(
        source="megvii shufflenet_v2",
        models=("shufflenet_v2",),
        arrays=convert(arrays, _layers(_V2_UNIT)),
        preprocessing=PREPROCESSING,
        options={
            "variant": "megvii",
            "stem": "imagenet",
            "residual": False,
            "padding": "symmetric",
        },
    )


def _layers(unit: Mapping[str, str]) -> dict[str, str]:
    """Both networks number the units of all stages as one sequence."""
    convolutions = {"first_conv.0": "conv1", "conv_last.0": "conv5"}
    for index, name in enumerate(unit_names(SHUFFLENET_UNITS, first_stage=2)):
        for module, role in unit.items():
            convolutions[f"features.{index}.{module}"] = f"{name}_{role}"
    return {**with_batch_norms(convolutions), "classifier.0": "classifier"}


IMPORTERS: tuple[Callable[[Mapping[str, np.ndarray]], Weights | None], ...] = (
    shufflenet_v1,
    shufflenet_v2,
)
