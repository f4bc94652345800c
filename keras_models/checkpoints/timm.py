"""Weights of timm, PyTorch Image Models.

Its networks that begin with "tf_" pad like TensorFlow and have another batch norm epsilon, under
the same names of weights: the file does not tell tf_mobilenetv3_large_100 from
mobilenetv3_large_100.  They are two sources, "timm" and "timm_tf".
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from keras_models.checkpoints.pytorch import convert
from keras_models.checkpoints.weights import (
    EFFICIENTNET_V2_UNITS,
    IMAGENET,
    MOBILENET_V2_UNITS,
    Weights,
    without_fc1,
)
from keras_models.images.decode import Preprocessing

_TORCH = {"padding": "symmetric", "bn_epsilon": 1e-5}
_TENSORFLOW = {"padding": "same", "bn_epsilon": 1e-3}
_MOBILENET_V3 = {  # units in each stage; the last is the last convolution
    (1, 2, 3, 4, 2, 3, 1): "mobilenet_v3_large",
    (1, 2, 3, 2, 3, 1): "mobilenet_v3_small",
}
_BICUBIC = replace(IMAGENET, interpolation="bicubic")
_HALF = Preprocessing(crop_fraction=1.0, interpolation="bicubic")
_TF_EFFICIENTNET_V2 = {
    "efficientnet_v2_b0": _BICUBIC,
    "efficientnet_v2_b1": replace(_BICUBIC, crop_fraction=0.882),
    "efficientnet_v2_b2": replace(_BICUBIC, crop_fraction=0.890),
    "efficientnet_v2_b3": replace(_BICUBIC, crop_fraction=0.904),
    "efficientnet_v2_s": _HALF,
    "efficientnet_v2_m": _HALF,
    "efficientnet_v2_l": _HALF,
    "efficientnet_v2_xl": _HALF,
}
_UNITS = (  # kinds of units: convolution: (batch norm, our name)
    {  # inverted residual
        "conv_pw": ("bn1", "expand"),
        "conv_dw": ("bn2", "depthwise"),
        "conv_pwl": ("bn3", "project"),
    },
    {"conv_dw": ("bn1", "depthwise"), "conv_pw": ("bn2", "project")},  # without expansion
    {"conv_exp": ("bn1", "expand"), "conv_pwl": ("bn2", "project")},  # fused
    {"conv": ("bn1", "project")},  # fused without expansion
)
_UNIT = re.compile(r"blocks\.([0-9]{1,2})\.([0-9]{1,2})\.(conv\w*)\.weight")


def mobilenet_v2(arrays: Mapping[str, np.ndarray]) -> Weights | None:
    """Recognizes MobileNet V2; there is none that begins with "tf_"."""
    units = _units(arrays)
    if _counts(units) != MOBILENET_V2_UNITS:
        return None
    return Weights(
        source="timm mobilenet_v2",
        models=("mobilenet_v2",),
        arrays=convert(arrays, _staged(units)),
        preprocessing=_BICUBIC,
        options=_TORCH,
    )


def mobilenet_v3(arrays: Mapping[str, np.ndarray]) -> Weights | None:
    """Recognizes MobileNet V3; a minimalistic one begins with "tf_"."""
    if _minimalistic(arrays):
        return None
    return _mobilenet_v3(arrays, "timm", _BICUBIC, _TORCH)


def tf_mobilenet_v3(arrays: Mapping[str, np.ndarray]) -> Weights | None:
    """Recognizes MobileNet V3, also a minimalistic one."""
    options: dict[str, Any] = {**_TENSORFLOW}
    if _minimalistic(arrays):
        options["minimalistic"] = True
    return _mobilenet_v3(arrays, "timm_tf", Preprocessing(), options)


def efficientnet_v2(arrays: Mapping[str, np.ndarray]) -> Weights | None:
    """Recognizes EfficientNetV2."""
    preprocessing = replace(_BICUBIC, crop_fraction=1.0)
    known = dict.fromkeys(EFFICIENTNET_V2_UNITS.values(), preprocessing)
    return _efficientnet_v2(arrays, "timm", known, _TORCH)


def tf_efficientnet_v2(arrays: Mapping[str, np.ndarray]) -> Weights | None:
    """Recognizes EfficientNetV2; the preprocessing is that of training on ImageNet-1k alone."""
    return _efficientnet_v2(arrays, "timm_tf", _TF_EFFICIENTNET_V2, _TENSORFLOW)


def _mobilenet_v3(
    arrays: Mapping[str, np.ndarray],
    source: str,
    preprocessing: Preprocessing,
    options: Mapping[str, Any],
) -> Weights | None:
    units = _units(arrays)
    model = _MOBILENET_V3.get(_counts(units))
    if model is None:
        return None
    *inner, last = units
    layers = {"conv_stem": "conv1", "bn1": "conv1_bn", "conv_head": "fc1"}
    layers |= {"classifier": "classifier"}
    for index, unit in enumerate(inner, start=1):
        layers |= _unit(unit, units[unit], f"unit{index}")
    stage, number = last
    layers |= {f"blocks.{stage}.{number}.conv": "conv2", f"blocks.{stage}.{number}.bn1": "conv2_bn"}
    converted = convert(arrays, layers)
    options = {**options, **without_fc1(converted)}
    return Weights(converted, f"{source} {model}", (model,), preprocessing, options)


def _efficientnet_v2(
    arrays: Mapping[str, np.ndarray],
    source: str,
    known: Mapping[str, Preprocessing],
    options: Mapping[str, Any],
) -> Weights | None:
    units = _units(arrays)
    model = EFFICIENTNET_V2_UNITS.get(_counts(units))
    if model is None:
        return None
    layers = _staged(units)
    return Weights(convert(arrays, layers), f"{source} {model}", (model,), known[model], options)


def _minimalistic(arrays: Mapping[str, np.ndarray]) -> bool:
    return not any(".se." in name for name in arrays)


def _units(arrays: Mapping[str, np.ndarray]) -> dict[tuple[int, int], set[str]]:
    """The convolutions of each unit (stage, number), both counted from 0, in order."""
    units: dict[tuple[int, int], set[str]] = defaultdict(set)
    for name in arrays:
        if match := _UNIT.fullmatch(name):
            units[int(match[1]), int(match[2])].add(match[3])
    return dict(sorted(units.items()))


def _counts(units: Mapping[tuple[int, int], set[str]]) -> tuple[int, ...]:
    counts: dict[int, int] = defaultdict(int)
    for stage, _ in units:
        counts[stage] += 1
    return tuple(counts.values())


def _staged(units: Mapping[tuple[int, int], set[str]]) -> dict[str, str]:
    layers = {"conv_stem": "conv1", "bn1": "conv1_bn", "conv_head": "conv2", "bn2": "conv2_bn"}
    layers |= {"classifier": "classifier"}
    for unit, convolutions in units.items():
        stage, number = unit
        layers |= _unit(unit, convolutions, f"stage{stage + 1}_unit{number + 1}")
    return layers


def _unit(unit: tuple[int, int], convolutions: set[str], name: str) -> dict[str, str]:
    module = f"blocks.{unit[0]}.{unit[1]}"
    layers = {
        f"{module}.se.conv_reduce": f"{name}_se_reduce",
        f"{module}.se.conv_expand": f"{name}_se_expand",
    }
    kind = next((kind for kind in _UNITS if kind.keys() == convolutions), {})
    for convolution, (batch_norm, role) in kind.items():
        layers[f"{module}.{convolution}"] = f"{name}_{role}"
        layers[f"{module}.{batch_norm}"] = f"{name}_{role}_bn"
    return layers


IMPORTERS = (mobilenet_v2, mobilenet_v3, efficientnet_v2)
TF_IMPORTERS = (tf_mobilenet_v3, tf_efficientnet_v2)
