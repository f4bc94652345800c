"""EfficientNetV2 against its paper's tables and its authors' rounding."""

import numpy as np
import pytest

from keras_models import registry
from keras_models.efficientnet_v2 import VARIANTS, efficientnet_v2


def test_the_registry_has_the_variants_and_their_resolutions() -> None:
    entries = {n: registry.find(n) for n in registry.names("efficientnet_v2_*")}
    assert {n: e.resolution for n, e in entries.items()} == {
        f"efficientnet_v2_{name}": variant.resolution for name, variant in VARIANTS.items()
    }
    for entry in entries.values():
        assert [p.resolution for p in entry.published] == [entry.resolution]


def test_b3_is_scaled_in_width_and_depth_as_released() -> None:
    # Widths 1.2 x (32; 16, 32, 48, 96, 112, 192; 1280), repeats 1.4 x (1, 2, 2, 3, 5, 8).
    model = efficientnet_v2(variant="b3", input_shape=(32, 32, 3))
    names = [layer.name for layer in model.layers if layer.name.endswith("_project")]
    assert [sum(n.startswith(f"stage{i}_") for n in names) for i in range(1, 7)] == [
        *(2, 3, 3, 5, 7, 12)
    ]
    filters = [model.get_layer(f"stage{i}_unit1_project").filters for i in range(1, 7)]
    assert filters == [16, 40, 56, 112, 136, 232]
    assert [model.get_layer(name).filters for name in ("conv1", "conv2")] == [40, 1536]


def test_s_avoids_the_mistakes_of_many_copies() -> None:
    model = efficientnet_v2(variant="s", input_shape=(32, 32, 3))
    names = {layer.name for layer in model.layers}
    assert model.get_layer("conv2").filters == 1280
    for unit, inputs in {"stage4_unit1": 64, "stage4_unit2": 128, "stage6_unit1": 160}.items():
        assert model.get_layer(f"{unit}_se_reduce").filters == inputs // 4
    assert not {n for n in names if n.startswith("stage1_") and ("_expand" in n or "_se_" in n)}
    assert "stage1_unit1_project_swish" in names
    assert "stage2_unit1_project_swish" not in names


def test_stochastic_depth_grows_linearly_with_depth() -> None:
    model = efficientnet_v2(variant="b0", input_shape=(32, 32, 3))
    repeats = [stage.repeats for stage in VARIANTS["b0"].stages]
    units = [f"stage{i}_unit{u}" for i, r in enumerate(repeats, start=1) for u in range(1, r + 1)]
    rates = {
        layer.name.removesuffix("_drop"): layer.rate
        for layer in model.layers
        if layer.name.endswith("_drop")
    }
    assert len(units) == 21
    assert rates == {u: pytest.approx(0.2 * units.index(u) / 21) for u in rates}
    # B0's first unit leaves its 32 channels for 16, and so has no shortcut.
    assert set(rates) == {u for u in units if not u.endswith("_unit1")}


def test_stochastic_depth_keeps_the_expectation_and_skips_whole_examples() -> None:
    model = efficientnet_v2(variant="b0", input_shape=(32, 32, 3), stochastic_depth=0.5)
    drop = model.get_layer("stage6_unit8_drop")
    ones = np.ones((4000, 2, 2, 3), np.float32)
    dropped = drop(ones, training=True).numpy()
    assert (dropped == dropped[:, :1, :1, :1]).all()
    assert set(np.unique(dropped).round(4)) == {0, np.float32(1 / (1 - drop.rate)).round(4)}
    # Of 4000 examples; the standard deviation of the mean is 0.015.
    assert dropped.mean() == pytest.approx(1, abs=0.06)
    np.testing.assert_array_equal(drop(ones, training=False), ones)


def test_padding_and_epsilon_reach_every_layer() -> None:
    strided = ["conv1", "stage2_unit1_expand", "stage3_unit1_expand"]
    strided += ["stage4_unit1_depthwise", "stage6_unit1_depthwise"]
    model = efficientnet_v2(
        variant="b0", input_shape=(64, 65, 3), padding="symmetric", bn_epsilon=1e-5
    )
    layers = {layer.name: layer for layer in model.layers}
    padded = {n.removesuffix("_pad"): x.padding for n, x in layers.items() if n.endswith("_pad")}
    assert padded == dict.fromkeys(strided, ((1, 1), (1, 1)))
    assert {x.epsilon for name, x in layers.items() if name.endswith("_bn")} == {1e-5}
