"""MobileNet V2 against its paper's tables."""

import pytest

from keras_models.mobilenet_v2 import STAGES, mobilenet_v2


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
