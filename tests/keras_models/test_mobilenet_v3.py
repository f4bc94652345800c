"""MobileNet V3 against its paper's tables."""

import pytest

from keras_models.mobilenet_v3 import UNITS, mobilenet_v3


@pytest.mark.parametrize("variant", UNITS)
def test_the_network_has_the_channels_and_sizes_of_its_table(variant: str) -> None:
    model = mobilenet_v3(variant=variant)
    resolution = 112
    for i, unit in enumerate(UNITS[variant], start=1):
        resolution //= unit.strides
        depthwise, project = (model.get_layer(f"unit{i}_{n}") for n in ("depthwise", "project"))
        assert depthwise.output.shape[1:] == (resolution, resolution, unit.expanded)
        assert depthwise.kernel_size == (unit.kernel, unit.kernel)
        assert project.output.shape[1:] == (resolution, resolution, unit.channels)
    assert resolution == 7


# A quarter of the channels that are scaled, in multiples of 8.
@pytest.mark.parametrize(
    ("variant", "reduced"),
    [
        ("large", {4: 24, 5: 32, 6: 32, 11: 120, 12: 168, 13: 168, 14: 240, 15: 240}),
        ("small", {1: 8, 4: 24, 5: 64, 6: 64, 7: 32, 8: 40, 9: 72, 10: 144, 11: 144}),
    ],
)
def test_squeeze_excite_is_reduced_as_released(variant: str, reduced: dict[int, int]) -> None:
    model = mobilenet_v3(variant=variant, input_shape=(32, 32, 3))
    assert reduced == {
        int(layer.name.removeprefix("unit").split("_")[0]): layer.filters
        for layer in model.layers
        if layer.name.endswith("_se_reduce")
    }


@pytest.mark.parametrize("variant", UNITS)
def test_minimalistic_leaves_out_what_slow_processors_lack(variant: str) -> None:
    model = mobilenet_v3(variant=variant, minimalistic=True, input_shape=(32, 32, 3))
    names = [layer.name for layer in model.layers]
    assert not [name for name in names if "_se_" in name or "hard" in name]
    kernels = {layer.kernel_size for layer in model.layers if layer.name.endswith("_depthwise")}
    assert kernels == {(3, 3)}


@pytest.mark.parametrize("width", [0.35, 1.25])
def test_widths_scale_all_layers_but_fc1(width: float) -> None:
    model = mobilenet_v3(width=width, input_shape=(32, 32, 3))
    full = {f"unit{i}_project": u.channels for i, u in enumerate(UNITS["large"], start=1)}
    for name, channels in (full | {"conv1": 16, "conv2": 960}).items():
        scaled = model.get_layer(name).filters
        assert scaled % 8 == 0
        assert scaled >= 0.9 * width * channels
        assert scaled - width * channels <= 8 * (6 if name == "conv2" else 1)
    assert model.get_layer("fc1").units == 1280


def test_padding_and_epsilon_reach_every_layer() -> None:
    strided = ["conv1", *(f"unit{i}_depthwise" for i in (1, 2, 4, 9))]
    model = mobilenet_v3(
        variant="small", input_shape=(64, 65, 3), padding="symmetric", bn_epsilon=1e-5
    )
    layers = {layer.name: layer for layer in model.layers}
    padded = {n.removesuffix("_pad"): x.padding for n, x in layers.items() if n.endswith("_pad")}
    # The window of unit4 and unit9 is 5x5.
    pads = {name: 2 if name in ("unit4_depthwise", "unit9_depthwise") else 1 for name in strided}
    assert padded == {name: ((p, p), (p, p)) for name, p in pads.items()}
    assert {x.epsilon for name, x in layers.items() if name.endswith("_bn")} == {1e-5}
