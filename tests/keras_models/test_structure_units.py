"""The units of ShuffleNet's Table 4 against NumPy and its multiply-adds."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from keras_models import counts
from keras_models.shufflenet_v1 import shufflenet_v1
from keras_models.structure_units import CHANNELS, CONV1_CHANNELS, structure_units

COMPLEXITIES = (13, 38, 140, 524)  # three of Table 4; 524 is ShuffleNet 2x
VARIANTS = [(unit, mflops) for unit in CHANNELS for mflops in COMPLEXITIES]


def multiply_adds(unit: str, conv1: int, stages: tuple[int, ...]) -> int:
    """Table 1 with another unit, worked out on paper."""
    total, before = 112**2 * 27 * conv1, conv1
    for channels, units, size in zip(stages, (4, 8, 4), (28, 14, 7), strict=True):
        for i in range(units):
            inner = (2 * size) ** 2 if i == 0 else size**2  # positions before the stride
            if unit == "vgg":
                total += size**2 * 9 * channels * (before + channels)
            elif unit == "xception":  # the shortcut brings its own channels at the stride
                b, out = channels // 4, channels - before if i == 0 else channels
                total += inner * before * b + size**2 * (9 * b + b * out)
            else:
                b, groups = channels // 4, 1
                if unit == "resnext":
                    b, groups = max(16, math.ceil(channels / 2 / 16 - 0.5) * 16), 16
                total += inner * before * b + size**2 * (9 * b * b // groups + b * channels)
                total += size**2 * before * channels if i == 0 else 0
            before = channels
    return total + before * 1000


@pytest.mark.parametrize(("unit", "mflops"), VARIANTS)
def test_a_variant_costs_what_it_is_named_by(unit: str, mflops: int) -> None:
    madds = multiply_adds(unit, CONV1_CHANNELS[mflops], CHANNELS[unit][mflops]) / 1e6
    if (unit, mflops) == ("xception", 140):  # the paper's own channels, 143 M in its Table 1
        assert round(madds) == 143
    else:  # the other two of these at 38 and 13 M are the paper's own too
        assert abs(madds - mflops) < (0.02 if unit == "xception" else 0.0115) * mflops


@pytest.mark.parametrize("mflops", [13, 524])
@pytest.mark.parametrize("unit", CHANNELS)
def test_a_network_costs_what_table_1_does_with_its_units(unit: str, mflops: int) -> None:
    _, madds = counts.total(counts.count(structure_units(unit=unit, mflops=mflops)))
    assert madds == multiply_adds(unit, CONV1_CHANNELS[mflops], CHANNELS[unit][mflops])


def test_stage_4_has_the_channels_that_the_paper_states_at_38_million() -> None:
    stated = {"vgg": 50, "resnet": 192, "resnext": 192, "xception": 288}  # Section 4.2
    assert {unit: CHANNELS[unit][38][-1] for unit in CHANNELS} == stated


@pytest.mark.parametrize(("unit", "mflops"), VARIANTS)
def test_a_stage_has_about_twice_the_channels_of_the_one_before(unit: str, mflops: int) -> None:
    stage2, stage3, stage4 = CHANNELS[unit][mflops]
    for ratio in (stage3 / stage2, stage4 / stage3):
        assert 1.8 < ratio < 2.2


def test_xception_like_is_shufflenet_with_one_group(randomize: Callable[[Any], Any]) -> None:
    shape = (64, 96, 3)
    ours = randomize(structure_units(unit="xception", mflops=38, input_shape=shape))
    shuffle = shufflenet_v1(width=0.5, groups=1, input_shape=shape)
    for layer in shuffle.layers:
        layer.set_weights(ours.get_layer(layer.name).get_weights())
    x = np.random.default_rng(1).uniform(-1, 1, (2, *shape)).astype(np.float32)
    expected = shuffle.predict(x, verbose=0)
    assert expected.std(axis=0).max() > 0
    np.testing.assert_array_equal(ours.predict(x, verbose=0), expected)


def reference(model: Any, name: str, x: Any, *, groups: int = 1, relu: bool = True) -> Any:
    """The convolution, batch norm and ReLU of that name by definition, each group by itself."""
    layer, norm = model.get_layer(name), model.get_layer(f"{name}_bn")
    kernel = layer.get_weights()[0]
    out = kernel.shape[-1] // groups
    x = tf.concat(
        [
            tf.nn.conv2d(part, kernel[..., i * out : (i + 1) * out], layer.strides, "SAME")
            for i, part in enumerate(tf.split(x, groups, axis=-1))
        ],
        axis=-1,
    )
    gamma, beta, mean, variance = norm.get_weights()
    x = (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    return np.maximum(x, 0) if relu else x


@pytest.mark.parametrize("unit", ["vgg", "resnet", "resnext"])
def test_units_compute_what_the_originals_define(
    unit: str, randomize: Callable[[Any], Any]
) -> None:
    model = randomize(structure_units(unit=unit, mflops=13, input_shape=(32, 64, 3)))
    last = "stage2_unit2_conv2_relu" if unit == "vgg" else "stage2_unit2_relu"
    outputs = [model.get_layer("max_pool").output, model.get_layer(last).output]
    tapped = type(model)(model.input, outputs)
    image = np.random.default_rng(1).uniform(-1, 1, (2, 32, 64, 3)).astype(np.float32)
    x, actual = tapped.predict(image, verbose=0)
    for name in ("stage2_unit1", "stage2_unit2"):
        if unit == "vgg":
            x = reference(model, f"{name}_conv1", x)
            x = reference(model, f"{name}_conv2", x)
            continue
        shortcut = x
        if name == "stage2_unit1":
            shortcut = reference(model, f"{name}_shortcut", x, relu=False)
        x = reference(model, f"{name}_reduce", x)
        x = reference(model, f"{name}_conv", x, groups=16 if unit == "resnext" else 1)
        x = np.maximum(shortcut + reference(model, f"{name}_expand", x, relu=False), 0)
    assert actual.std() > 0.1
    # Sums of up to 24 * 9 products in another order.
    np.testing.assert_allclose(actual, x, rtol=0, atol=1e-4 * np.abs(x).max())
