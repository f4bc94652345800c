"""MobileNet V2 against its paper's tables."""

import re
from typing import Any

import pytest

from keras_models.mobilenet_v2 import STAGES, mobilenet_v2
from shufflelite.errors import InputError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"width": 0.25},
            "Expected a width multiplier of 0.35, 0.5, 0.75, 1.0, 1.3, 1.4, got 0.25: "
            "allow_any_width takes others.",
        ),
        (
            {"input_shape": (224, 31, 3)},
            "Expected a resolution of at least 32 (the network's total stride), got 31.",
        ),
        (
            {"padding": "valid"},
            "Expected padding to be same, symmetric or bottom_right, got 'valid'.",
        ),
        ({"dropout": 1.0}, "Expected dropout to be at least 0 and below 1, got 1.0."),
    ],
)
def test_what_cannot_be_built_is_refused_with_what_can(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        mobilenet_v2(**options)


@pytest.mark.parametrize("width", [0.1, 2.0])
def test_any_width_scales_each_layer_to_a_multiple_of_8_channels(width: float) -> None:
    model = mobilenet_v2(width=width, input_shape=(32, 32, 3), allow_any_width=True)
    full = {"conv1": 32} | {
        f"stage{i}_unit{unit}_project": stage.channels
        for i, stage in enumerate(STAGES, start=1)
        for unit in range(1, stage.repeats + 1)
    }
    for name, channels in full.items():
        scaled = model.get_layer(name).filters
        assert scaled % 8 == 0
        assert scaled >= 0.9 * width * channels
        assert scaled - width * channels <= 8
    assert model.get_layer("conv2").filters == (2560 if width == 2 else 1280)


def test_images_shrink_where_table_2_has_them() -> None:
    model = mobilenet_v2(width=0.35)
    sizes = {"conv1": 112, "stage1": 112, "stage2": 56, "stage3": 28, "stage4": 14}
    sizes |= {"stage5": 14, "stage6": 7, "stage7": 7, "conv2": 7}
    last = {
        layer.name.split("_")[0]: layer for layer in model.layers if layer.output.shape.rank == 4
    }
    assert {row: last[row].output.shape[1] for row in sizes} == sizes


def test_shortcuts_join_units_of_the_same_shape() -> None:
    model = mobilenet_v2(width=0.35, input_shape=(32, 32, 3))
    added = {layer.name for layer in model.layers if layer.name.endswith("_add")}
    expected = {
        f"stage{i}_unit{unit}_add"
        for i, stage in enumerate(STAGES, start=1)
        for unit in range(2, stage.repeats + 1)
    }
    assert added == expected


def test_padding_and_epsilon_reach_every_layer() -> None:
    strided = ["conv1", *(f"stage{i}_unit1_depthwise" for i in (2, 3, 4, 6))]
    model = mobilenet_v2(width=0.35, input_shape=(64, 65, 3), padding="symmetric", bn_epsilon=1e-5)
    layers = {layer.name: layer for layer in model.layers}
    padded = {n.removesuffix("_pad"): x.padding for n, x in layers.items() if n.endswith("_pad")}
    assert padded == dict.fromkeys(strided, ((1, 1), (1, 1)))
    assert {x.epsilon for name, x in layers.items() if name.endswith("_bn")} == {1e-5}
