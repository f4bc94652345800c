"""Weights of torchvision's networks; the preprocessing is that of its IMAGENET1K_V1."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from keras_models.checkpoints.pytorch import convert, with_batch_norms
from keras_models.checkpoints.weights import (
    EFFICIENTNET_V2_UNITS,
    IMAGENET,
    MOBILENET_V2_UNITS,
    SHUFFLENET_UNITS,
    Weights,
    unit_names,
    without_fc1,
)
from keras_models.images.decode import Preprocessing

_SHUFFLENET_V2_UNIT = {
    "branch1.0": "left_depthwise",
    "branch1.2": "left_project",
    "branch2.0": "expand",
    "branch2.3": "depthwise",
    "branch2.5": "project",
}
_MOBILENET_V3 = {15: "mobilenet_v3_large", 11: "mobilenet_v3_small"}  # by their units
_EFFICIENTNET_V2 = {
    "efficientnet_v2_s": replace(IMAGENET, crop_fraction=1.0),
    "efficientnet_v2_m": replace(IMAGENET, crop_fraction=1.0),
    "efficientnet_v2_l": Preprocessing(crop_fraction=1.0, interpolation="bicubic"),  # Google's
}


def shufflenet_v2(arrays: Mapping[str, np.ndarray]) -> Weights | None:
    """Recognizes ShuffleNet V2."""
    narrowest = arrays.get("stage2.0.branch1.2.weight")
    if narrowest is None:
        return None
    convolutions = {"conv1.0": "conv1", "conv5.0": "conv5"}
    for stage, units in enumerate(SHUFFLENET_UNITS, start=2):
        for unit in range(units):
            for module, role in _SHUFFLENET_V2_UNIT.items():
                name = f"stage{stage}_unit{unit + 1}_{role}"
                convolutions[f"stage{stage}.{unit}.{module}"] = name
    # The two wide ones, with 88 and 122, were trained later, for pictures of 232 pixels.
    wide = len(narrowest) >= 88
    return Weights(
        source="torchvision shufflenet_v2",
        models=("shufflenet_v2",),
        arrays=convert(arrays, {**with_batch_norms(convolutions), "fc": "classifier"}),
        preprocessing=replace(IMAGENET, crop_fraction=224 / 232) if wide else IMAGENET,
        options={
            "variant": "torchvision",
            "stem": "imagenet",
            "residual": False,
            "padding": "symmetric",
        },
    )


def mobilenet_v2(arrays: Mapping[str, np.ndarray]) -> Weights | None:
    """Recognizes MobileNet V2."""
    if "features.1.conv.0.0.weight" not in arrays:
        return None
    names = unit_names(MOBILENET_V2_UNITS, first_stage=1)
    convolutions = {"features.0.0": "conv1", f"features.{len(names) + 1}.0": "conv2"}
    for index, name in enumerate(names, start=1):
        unit = f"features.{index}.conv"
        if index == 1:  # without expansion
            convolutions |= {f"{unit}.0.0": f"{name}_depthwise", f"{unit}.1": f"{name}_project"}
        else:
            convolutions |= {
                f"{unit}.0.0": f"{name}_expand",
                f"{unit}.1.0": f"{name}_depthwise",
                f"{unit}.2": f"{name}_project",
            }
    return Weights(
        source="torchvision mobilenet_v2",
        models=("mobilenet_v2",),
        arrays=convert(arrays, {**with_batch_norms(convolutions), "classifier.1": "classifier"}),
        preprocessing=IMAGENET,
        options={"padding": "symmetric", "bn_epsilon": 1e-5},
    )


def mobilenet_v3(arrays: Mapping[str, np.ndarray]) -> Weights | None:
    """Recognizes MobileNet V3, large and small."""
    units = [name for name in _blocks(arrays) if name.count(".") == 2]
    if len(units) not in _MOBILENET_V3:
        return None
    model = _MOBILENET_V3[len(units)]
    layers = with_batch_norms({"features.0.0": "conv1", f"features.{len(units) + 1}.0": "conv2"})
    for index in range(1, len(units) + 1):
        layers |= _inverted_residual(arrays, f"features.{index}.block", f"unit{index}")
    layers |= {"classifier.3": "classifier"}
    if sum(array.ndim == 2 for array in arrays.values()) > 1:  # else it is the classifier
        layers |= {"classifier.0": "fc1"}
    converted = convert(arrays, layers)
    return Weights(
        source=f"torchvision {model}",
        models=(model,),
        arrays=converted,
        preprocessing=IMAGENET,
        options={"padding": "symmetric", "bn_epsilon": 1e-3, **without_fc1(converted)},
    )


def efficientnet_v2(arrays: Mapping[str, np.ndarray]) -> Weights | None:
    """Recognizes EfficientNetV2-S, -M and -L by their units; EfficientNet has other numbers."""
    units: dict[int, int] = defaultdict(int)
    for name in _blocks(arrays):
        if name.count(".") == 3:
            units[int(name.split(".")[1])] += 1
    model = EFFICIENTNET_V2_UNITS.get(tuple(units[stage] for stage in sorted(units)))
    if model not in _EFFICIENTNET_V2:
        return None
    layers = with_batch_norms({"features.0.0": "conv1", f"features.{len(units) + 1}.0": "conv2"})
    for stage, count in units.items():
        for unit in range(count):
            name = f"stage{stage}_unit{unit + 1}"
            layers |= _inverted_residual(arrays, f"features.{stage}.{unit}.block", name)
    return Weights(
        source=f"torchvision {model}",
        models=(model,),
        arrays=convert(arrays, {**layers, "classifier.1": "classifier"}),
        preprocessing=_EFFICIENTNET_V2[model],
        options={"padding": "symmetric", "bn_epsilon": 1e-3},
    )


def _blocks(arrays: Mapping[str, np.ndarray]) -> set[str]:
    """Names the units: "features.1.block" in MobileNet V3, "features.1.0.block" with stages."""
    matches = (re.match(r"features(\.[0-9]{1,2}){1,2}\.block(?=\.)", name) for name in arrays)
    return {match[0] for match in matches if match}


def _inverted_residual(arrays: Mapping[str, np.ndarray], block: str, name: str) -> dict[str, str]:
    """Names the layers of a unit, whose numbers do not depend on their kind."""
    shapes = {
        index: arrays[f"{block}.{index}.0.weight"].shape
        for index in range(4)
        if f"{block}.{index}.0.weight" in arrays
    }
    convolutions = {}
    for index, shape in shapes.items():
        depthwise = shape[1:2] == (1,)
        role = "project" if index == max(shapes) else "depthwise" if depthwise else "expand"
        convolutions[f"{block}.{index}.0"] = f"{name}_{role}"
    layers = with_batch_norms(convolutions)
    for index in range(4):
        layers[f"{block}.{index}.fc1"] = f"{name}_se_reduce"
        layers[f"{block}.{index}.fc2"] = f"{name}_se_expand"
    return layers


IMPORTERS = (shufflenet_v2, mobilenet_v2, mobilenet_v3, efficientnet_v2)
