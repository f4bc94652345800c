"""Weights of the networks in Keras applications, under our names and in our shapes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from keras_models.checkpoints.weights import (
    IMAGENET,
    MOBILENET_V2_UNITS,
    Weights,
    unit_names,
    without_fc1,
)
from keras_models.images.decode import Preprocessing

_DENSE = {"classifier/kernel", "fc1/kernel"}  # in Keras 1x1 convolutions, in some versions

_V1_LAYERS = {"conv_preds": "classifier"}
_V1_UNIT = re.compile(r"conv_(dw|pw)_(\d+)(_bn)?")
_V1_KINDS = {"dw": "depthwise", "pw": "pointwise"}

_V2_LAYERS = {
    "Conv1": "conv1",
    "bn_Conv1": "conv1_bn",
    "Conv_1": "conv2",
    "Conv_1_bn": "conv2_bn",
    "Logits": "classifier",  # until Keras 2.2
    "predictions": "classifier",
}
_V2_UNIT = re.compile(r"(?:expanded_conv|block_(\d+))_(expand|depthwise|project)(_BN)?")
_V2_UNITS = unit_names(MOBILENET_V2_UNITS, first_stage=1)

_V3_LAYERS = {
    "conv": "conv1",
    "conv_bn": "conv1_bn",
    "conv_1": "conv2",
    "conv_1_bn": "conv2_bn",
    "conv_2": "fc1",
    "logits": "classifier",
}
_V3_UNIT = re.compile(
    r"expanded_conv_(?:(\d+)_)?"
    r"(expand|depthwise|squeeze_excite_conv|squeeze_excite_conv_1|project)(_bn)?"
)
_V3_KINDS = {"squeeze_excite_conv": "se_reduce", "squeeze_excite_conv_1": "se_expand"}

_EFFICIENTNET_LAYERS = {
    "stem_conv": "conv1",
    "stem_bn": "conv1_bn",
    "top_conv": "conv2",
    "top_bn": "conv2_bn",
    "predictions": "classifier",
}
_EFFICIENTNET_UNIT = re.compile(
    r"block(\d+)([a-z])_(expand_conv|expand_bn|dwconv2|bn|se_reduce|se_expand|project_conv|project_bn)"
)
_EFFICIENTNET_KINDS = {
    "expand_conv": "expand",
    "dwconv2": "depthwise",
    "bn": "depthwise_bn",
    "project_conv": "project",
}
# Units: variant.  Keras has no XL.
_EFFICIENTNETS = {21: "b0", 27: "b1", 28: "b2", 32: "b3", 40: "s", 57: "m", 79: "l"}
_B_RESOLUTIONS = {"b0": 224, "b1": 240, "b2": 260, "b3": 300}
_OPTIONS = {"padding": "same", "bn_epsilon": 1e-3}


def mobilenet_v1(arrays: Mapping[str, np.ndarray]) -> Weights | None:
    """Recognizes MobileNet, which pads odd resolutions in its own way."""
    if "conv_dw_1/depthwise_kernel" not in arrays:
        return None
    return Weights(
        _rename(arrays, _v1_name),
        source="Keras applications MobileNet",
        models=("mobilenet_v1",),
        preprocessing=Preprocessing(),
        options={"padding": "bottom_right"},
    )


def mobilenet_v2(arrays: Mapping[str, np.ndarray]) -> Weights | None:
    """Recognizes MobileNetV2."""
    if "block_16_project/kernel" not in arrays:
        return None
    return Weights(
        _rename(arrays, _v2_name),
        source="Keras applications MobileNetV2",
        models=("mobilenet_v2",),
        preprocessing=Preprocessing(),
        options=_OPTIONS,
    )


def mobilenet_v3(arrays: Mapping[str, np.ndarray]) -> Weights | None:
    """Recognizes MobileNetV3Large and MobileNetV3Small, also minimalistic ones."""
    if not any(f"expanded_conv_10{separator}project/kernel" in arrays for separator in "/_"):
        return None
    renamed = _rename(arrays, _v3_name)
    variant = "large" if "unit15_project/kernel" in renamed else "small"
    return Weights(
        renamed,
        source=f"Keras applications MobileNetV3{variant.title()}",
        models=(f"mobilenet_v3_{variant}",),
        preprocessing=Preprocessing(),
        options={
            **_OPTIONS,
            "minimalistic": not any("_se_" in name for name in renamed),
            **without_fc1(renamed),
        },
    )


def efficientnet_v2(arrays: Mapping[str, np.ndarray]) -> Weights | None:
    """Recognizes EfficientNetV2, which reads 0 to 255 and begins with its own preprocessing."""
    if "block4a_dwconv2/depthwise_kernel" not in arrays:
        return None
    variant = _EFFICIENTNETS.get(sum("_project_conv/" in name for name in arrays))
    if variant is None:
        return None
    if variant in _B_RESOLUTIONS:
        resolution = _B_RESOLUTIONS[variant]
        preprocessing = replace(
            IMAGENET, crop_fraction=resolution / (resolution + 32), interpolation="bicubic"
        )
    else:  # evaluated on whole pictures
        center = (128.0, 128.0, 128.0)
        preprocessing = Preprocessing(mean=center, std=center, crop_fraction=1.0)
    return Weights(
        _rename(arrays, _efficientnet_name),
        source=f"Keras applications EfficientNetV2{variant.upper()}",
        models=(f"efficientnet_v2_{variant}",),
        preprocessing=preprocessing,
        options=_OPTIONS,
    )


IMPORTERS = (mobilenet_v1, mobilenet_v2, mobilenet_v3, efficientnet_v2)


def _rename(
    arrays: Mapping[str, np.ndarray], layer_name: Callable[[str], str]
) -> dict[str, np.ndarray]:
    renamed = {}
    for key, array in arrays.items():
        layer, _, weight = key.rpartition("/")
        name = f"{layer_name(layer)}/{weight}"
        renamed[name] = array[0, 0] if name in _DENSE and array.ndim == 4 else array
    return renamed


def _v1_name(layer: str) -> str:
    unit = _V1_UNIT.fullmatch(layer)
    if unit is None:
        return _V1_LAYERS.get(layer, layer)
    return f"unit{unit[2]}_{_V1_KINDS[unit[1]]}{unit[3] or ''}"


def _v2_name(layer: str) -> str:
    unit = _V2_UNIT.fullmatch(layer)
    if unit is None or int(unit[1] or 0) >= len(_V2_UNITS):
        return _V2_LAYERS.get(layer, layer)
    return f"{_V2_UNITS[int(unit[1] or 0)]}_{unit[2]}{(unit[3] or '').lower()}"


def _v3_name(layer: str) -> str:
    # Keras 2 has expanded_conv_1/expand/BatchNorm, Keras 3 expanded_conv_1_expand_bn.
    keras_3 = layer.lower().replace("/", "_").replace("_batchnorm", "_bn")
    unit = _V3_UNIT.fullmatch(keras_3)
    if unit is None:
        return _V3_LAYERS.get(keras_3, layer)
    return f"unit{int(unit[1] or 0) + 1}_{_V3_KINDS.get(unit[2], unit[2])}{unit[3] or ''}"


def _efficientnet_name(layer: str) -> str:
    unit = _EFFICIENTNET_UNIT.fullmatch(layer)
    if unit is None:
        return _EFFICIENTNET_LAYERS.get(layer, layer)
    number = ord(unit[2]) - ord("a") + 1
    return f"stage{unit[1]}_unit{number}_{_EFFICIENTNET_KINDS.get(unit[3], unit[3])}"
