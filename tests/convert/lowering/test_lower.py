"""Lowering: every network computes the same, in the layers that TFLite runs best."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tf_keras as keras

from convert.lowering import lower
from convert.lowering.copy_cost import copy_cost
from convert.lowering.options import Grouped, LoweringOptions
from keras_models import registry
from keras_models.checkpoints.random_weights import randomize
from keras_models.layers import (
    ChannelShuffle,
    ChannelSlice,
    HardSigmoid,
    HardSwish,
    average_pool,
    conv,
    depthwise_conv,
    max_pool,
)

LARGE = [name for name in registry.names("efficientnet_v2_*") if name[-2:] not in ("b0", "_s")]
SIBLINGS = (
    "efficientnet_v2_s",
    "mobilenet_v3_large",
)  # the same layers as smaller networks, deeper
NETWORKS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in registry.names() if name not in LARGE),
    ("shufflenet_v2", {"variant": "megvii", "padding": "symmetric"}),
    ("shufflenet_v2", {"stem": "cifar", "squeeze_excite": True, "residual": True}),
    ("augshufflenet", {"variant": "original", "first_relu": True}),
    ("mobilenet_v1", {"padding": "bottom_right"}),
]
SLOW: list[tuple[str, dict[str, Any]]] = [  # options whose layers the others have, too
    *((name, options) for name, options in NETWORKS if name in SIBLINGS),
    ("shufflenet_v1", {"variant": "megvii", "groups": 8, "padding": "symmetric"}),
    ("shufflenet_v1", {"squeeze_excite": True, "shuffle": False, "stem": "cifar"}),
    ("mobilenet_v3_small", {"minimalistic": True, "padding": "symmetric"}),
]
layers = keras.layers


def batch(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


def disturb(model: Any) -> Any:
    """Random weights everywhere, statistics and biases too."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        layer.set_weights([rng.uniform(0.2, 1.5, w.shape) for w in layer.get_weights()])
    return model


def build(*chain: Any, shape: tuple[int, ...] = (6, 6, 3)) -> Any:
    inputs = x = keras.Input(shape, name="image")
    for layer in chain:
        x = layer(x)
    return disturb(keras.Model(inputs, x))


def assert_same_function(deployed: Any, model: Any) -> None:
    """Within 1e-5 of the largest output: folding changes the order of float32 roundings only."""
    x = batch(4, *model.inputs[0].shape[1:])
    expected = model(x, training=False).numpy()
    assert expected.std(axis=0).max() > 1e-3 * np.abs(expected).max(), "hardly depends on the input"
    np.testing.assert_allclose(
        deployed(x, training=False), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )


@pytest.mark.parametrize(
    "network",
    [
        *(network for network in NETWORKS if network not in SLOW),
        *(pytest.param(network, marks=pytest.mark.slow) for network in SLOW),
    ],
    ids=lambda network: "-".join([network[0], *map(str, network[1].values())]),
)
def test_a_networks_deployment_forms_are_the_same_function(
    network: tuple[str, dict[str, Any]],
) -> None:
    name, options = network
    model = registry.create(name, input_shape=(64, 64, 3), num_classes=10, **options)
    randomize(model, seed=0)
    assert_same_function(lower(model, options=None), model)
    for integer in (False, True):
        deployed = lower(model, integer=integer)
        assert_same_function(deployed, model)
        assert model.output_names == deployed.output_names
        kinds = {type(layer) for layer in deployed.layers}
        assert not kinds & {layers.BatchNormalization, layers.Dropout, layers.AveragePooling2D}
        assert ChannelShuffle not in kinds or "residual" in options
        assert HardSigmoid not in kinds
        assert not (integer and HardSwish in kinds)


def test_the_network_that_is_lowered_stays_as_it_was(small_network: Any) -> None:
    config = small_network.get_config()
    weights = [w.copy() for w in small_network.get_weights()]
    deployed = lower(small_network)
    for layer in deployed.layers:
        layer.set_weights([np.full_like(w, 7) for w in layer.get_weights()])
    assert small_network.get_config() == config
    for before, after in zip(weights, small_network.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("center", [False, True])
def test_a_batch_norm_folds_as_its_formula_says(bias: bool, scale: bool, center: bool) -> None:
    model = build(
        layers.Conv2D(5, 3, use_bias=bias, name="conv"),
        layers.BatchNormalization(scale=scale, center=center, epsilon=0.1, name="bn"),
    )
    kernel, *b = model.get_layer("conv").get_weights()
    *gamma_beta, mean, variance = model.get_layer("bn").get_weights()
    gamma = gamma_beta.pop(0) if scale else 1
    beta = gamma_beta.pop(0) if center else 0
    deviation = np.sqrt(variance + 0.1)
    found = lower(model).get_layer("conv").get_weights()
    np.testing.assert_allclose(found[0], kernel * (gamma / deviation), rtol=1e-6)
    expected = ((b[0] if bias else 0) - mean) * gamma / deviation + beta
    np.testing.assert_allclose(found[1], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Conv2D(6, 3, strides=2, padding="same"),
        lambda: layers.Conv2D(6, 1, use_bias=False),
        lambda: layers.Conv2D(6, 3, groups=3),
        lambda: layers.Conv2D(6, 3, dilation_rate=2),
        lambda: layers.DepthwiseConv2D(3, padding="same"),
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False),
        lambda: layers.Dense(6),
    ],
    ids=["conv", "pointwise", "grouped", "dilated", "depthwise", "multiplied depthwise", "dense"],
)
def test_batch_norm_and_relu_disappear_into_every_kind_of_convolution(
    layer: Callable[[], Any],
) -> None:
    model = build(layer(), layers.BatchNormalization(), layers.Dropout(0.5), layers.ReLU(6.0))
    deployed = lower(model)
    assert len(deployed.layers) == 2
    assert_same_function(deployed, model)


@pytest.mark.parametrize(
    "relu",
    [
        lambda: layers.ReLU(max_value=3.0),
        lambda: layers.ReLU(negative_slope=0.1),
        lambda: layers.ReLU(6.0, threshold=0.5),
        lambda: layers.LeakyReLU(0.3),
    ],
)
def test_what_a_convolution_has_no_activation_for_stays_a_layer(relu: Callable[[], Any]) -> None:
    model = build(layers.Conv2D(4, 1), layers.BatchNormalization(), relu())
    deployed = lower(model)
    assert len(deployed.layers) == 3
    assert_same_function(deployed, model)


def test_a_convolutions_own_activation_stays() -> None:
    model = build(
        layers.Conv2D(4, 1, activation="sigmoid"), layers.ReLU(), layers.Dense(3, activation="tanh")
    )
    assert_same_function(lower(model), model)


@pytest.mark.parametrize(
    "chain",
    [
        lambda: [],
        lambda: [layers.Conv2D(4, 1), layers.ReLU()],
        lambda: [layers.Conv2D(4, 1, activation="relu")],
        lambda: [layers.GlobalAveragePooling2D()],
    ],
    ids=["input", "relu", "own activation", "vector"],
)
def test_a_batch_norm_without_a_convolution_becomes_one_of_a_pixel(
    chain: Callable[[], list[Any]],
) -> None:
    model = build(*chain(), layers.BatchNormalization(name="alone"))
    deployed = lower(model)
    assert type(deployed.get_layer("alone")) is layers.DepthwiseConv2D
    assert_same_function(deployed, model)


def test_a_batch_norm_behind_a_concat_or_a_shuffle_folds_into_each_branch() -> None:
    inputs = keras.Input((6, 6, 3))
    branches = [layers.Conv2D(4, 1)(inputs), layers.DepthwiseConv2D(3, padding="same")(inputs)]
    x = ChannelShuffle(7)(layers.Concatenate()(branches))
    model = disturb(keras.Model(inputs, layers.BatchNormalization()(x)))
    deployed = lower(model)
    kinds = [type(layer) for layer in deployed.layers[1:3]]
    assert kinds == [layers.Conv2D, layers.DepthwiseConv2D]
    assert layers.BatchNormalization not in map(type, deployed.layers)
    assert_same_function(deployed, model)


def test_a_batch_norm_does_not_change_a_convolution_that_another_layer_reads() -> None:
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 1)(inputs)
    x = layers.Add()([x, layers.BatchNormalization(name="other")(x)])
    model = disturb(keras.Model(inputs, x))
    assert_same_function(lower(model), model)


@pytest.mark.parametrize("detour", [False, True], ids=["directly", "behind a dropout"])
def test_a_convolution_read_by_two_is_not_changed_by_the_relu_of_one(detour: bool) -> None:
    inputs = keras.Input((6, 6, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 1)(inputs))
    rectified = layers.ReLU()(layers.Dropout(0.5)(x) if detour else x)
    model = disturb(keras.Model(inputs, layers.Concatenate()([x, rectified])))
    deployed = lower(model)
    assert_same_function(deployed, model)
    untouched, rectified = np.split(deployed(batch(4, 6, 6, 3)).numpy(), 2, axis=-1)
    assert untouched.min() < 0
    np.testing.assert_array_equal(rectified, np.maximum(untouched, 0))


@pytest.mark.parametrize(
    ("first", "second", "left"), [(None, None, 0), (6.0, None, 0), (None, 6.0, 1)]
)
def test_a_relu_of_what_was_clipped_before_is_none(
    first: float | None, second: float | None, left: int
) -> None:
    inputs = keras.Input((6, 6, 3))
    x = layers.ReLU(first)(layers.Conv2D(4, 1)(inputs))
    again = layers.ReLU(second)(layers.Concatenate()([x, layers.Conv2D(2, 1)(inputs)]))
    x = layers.Conv2D(4, 3, name="reads_both")(layers.Concatenate()([x, again]))
    model = disturb(keras.Model(inputs, x))
    model.set_weights([9 * w for w in model.get_weights()])  # some values are above 6
    deployed = lower(model)
    assert sum(isinstance(layer, layers.ReLU) for layer in deployed.layers) == left
    assert_same_function(deployed, model)


def test_two_layers_on_one_folded_convolution_share_it() -> None:
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 1, name="conv")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    ends = [layers.Conv2D(2, 1, name="left")(x), layers.Conv2D(2, 1, name="right")(x)]
    model = disturb(keras.Model(inputs, layers.Concatenate(name="joined")(ends)))
    deployed = lower(model)
    names = sorted(layer.name for layer in deployed.layers[1:-1])
    assert names == ["conv", "left", "right"]
    assert_same_function(deployed, model)


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize("padding", ["same", "symmetric", "bottom_right"])
@pytest.mark.parametrize("read", ["conv", "depthwise_conv", "max_pool", "average_pool"])
def test_zeros_at_the_border_stay_only_where_tensorflow_pads_otherwise(
    read: str, padding: str, side: int
) -> None:
    inputs = x = keras.Input((side, side, 4))
    x = layers.ReLU()(x)
    match read:
        case "conv":
            x = conv(x, 5, kernel=3, strides=2, padding=padding, name="window")
        case "depthwise_conv":
            x = depthwise_conv(x, strides=2, padding=padding, name="window")
        case "max_pool":
            x = max_pool(x, padding=padding, name="window")
        case _:
            x = average_pool(x, padding=padding, name="window")
    model = disturb(keras.Model(inputs, x))
    deployed = lower(model)
    assert_same_function(deployed, model)
    explicit = [layer.name for layer in deployed.layers if layer.name == "window_pad"]
    other = (padding, side) in {("symmetric", 8), ("bottom_right", 9)}
    assert explicit == (["window_pad"] if other else [])


def test_zeros_that_two_windows_read_are_there_once() -> None:
    inputs = keras.Input((8, 8, 4))
    padded = layers.ZeroPadding2D(1, name="pad")(inputs)
    ends = [layers.Conv2D(2, 3, 2, name="left")(padded), layers.Conv2D(2, 3, 2)(padded)]
    model = disturb(keras.Model(inputs, layers.Concatenate()(ends)))
    deployed = lower(model)
    assert [layer.name for layer in deployed.layers].count("pad") == 1
    assert_same_function(deployed, model)


def test_a_relu_behind_a_concat_moves_into_the_convolutions_before_it() -> None:
    inputs = keras.Input((8, 8, 4))
    pool = average_pool(inputs, name="pool")
    branch = layers.BatchNormalization()(layers.Conv2D(6, 3, 2, "same", name="branch")(inputs))
    x = layers.ReLU()(layers.Concatenate(name="concat")([pool, branch]))
    model = disturb(keras.Model(inputs, x))
    deployed = lower(model)
    assert [layer.name for layer in deployed.layers[1:-1]] == ["pool", "branch"]
    assert deployed(batch(1, 8, 8, 4)).numpy().min() == 0
    assert_same_function(deployed, model)


def test_a_relu_behind_a_concat_moves_before_whatever_is_no_convolution() -> None:
    inputs = keras.Input((8, 8, 4))
    pool = average_pool(inputs, name="pool")
    branch = layers.Conv2D(6, 3, 2, "same", name="branch")(inputs)
    scaled = layers.Multiply(name="scaled")([branch, branch])
    x = layers.ReLU(name="relu")(layers.Concatenate(name="concat")([pool, scaled]))
    model = disturb(keras.Model(inputs, x))
    model.set_weights([w - 0.7 for w in model.get_weights()])
    deployed = lower(model)
    names = [layer.name for layer in deployed.layers[1:]]
    assert "relu" not in names
    assert "relu_1" in names
    assert_same_function(deployed, model)


def test_a_relu_stays_behind_a_concat_that_another_layer_reads_too() -> None:
    inputs = keras.Input((8, 8, 4))
    concat = layers.Concatenate()([layers.Conv2D(3, 1)(inputs), layers.Conv2D(3, 1)(inputs)])
    model = disturb(keras.Model(inputs, layers.Add()([concat, layers.ReLU()(concat)])))
    model.set_weights([w - 0.7 for w in model.get_weights()])
    assert_same_function(lower(model), model)


def test_average_pooling_that_leaves_the_border_out_of_its_mean_stays() -> None:
    model = build(layers.AveragePooling2D(3, 2, "same", name="pool"))
    deployed = lower(model)
    assert isinstance(deployed.get_layer("pool"), layers.AveragePooling2D)
    assert_same_function(deployed, model)


def test_a_hard_sigmoid_is_the_convolution_before_it_clipped() -> None:
    model = build(layers.Conv2D(5, 1, name="conv"), HardSigmoid(name="gate"))
    kernel, bias = model.get_layer("conv").get_weights()
    model.set_weights([kernel - 0.7, bias * 3])
    deployed = lower(model)
    assert [type(layer) for layer in deployed.layers[1:]] == [layers.Conv2D, layers.ReLU]
    values = deployed(10 * batch(4, 6, 6, 3)).numpy()
    assert values.min() == 0
    assert values.max() == 1
    assert_same_function(deployed, model)


@pytest.mark.parametrize("shape", [(6, 6, 3), (3,)], ids=["map", "vector"])
def test_a_hard_swish_for_integers_is_a_convolution_and_a_product(shape: tuple[int, ...]) -> None:
    model = build(layers.Dense(4), HardSwish(), layers.Dense(4), shape=shape)
    kernel, bias, *others = model.get_weights()
    model.set_weights([kernel * 5 - 4, bias, *others])
    deployed = lower(model, integer=True)
    assert not any(isinstance(layer, HardSwish) for layer in deployed.layers)
    assert_same_function(deployed, model)


def test_swish_is_a_product_of_two_layers() -> None:
    model = build(layers.Conv2D(4, 1), layers.Activation("swish", name="swish"))
    deployed = lower(model)
    assert type(deployed.get_layer("swish")) is layers.Multiply
    assert type(deployed.get_layer("swish_gate")) is layers.Activation
    assert_same_function(deployed, model)


@pytest.mark.parametrize("variant", ["paper", "megvii"])
@pytest.mark.parametrize(
    "groups", [3, *(pytest.param(groups, marks=pytest.mark.slow) for groups in (2, 4, 8))]
)
@pytest.mark.parametrize("way", Grouped)
def test_every_way_of_a_grouped_convolution_is_the_same_function(
    way: Grouped, groups: int, variant: str
) -> None:
    model = registry.create(
        "shufflenet_v1", input_shape=(64, 64, 3), num_classes=10, groups=groups, variant=variant
    )
    randomize(model, seed=0)
    heights = (2, 4, 8, 16)
    lowering = LoweringOptions(False, dict.fromkeys(heights, way), frozenset(heights))
    deployed = lower(model, options=lowering)
    assert_same_function(deployed, model)
    grouped = [layer for layer in deployed.layers if getattr(layer, "groups", 1) > 1]
    moves = [layer for layer in deployed.layers if isinstance(layer, ChannelSlice)]
    if way is Grouped.ALONG:
        assert sum(layer.kernel_size == (1, groups) for layer in grouped) == 15
        assert not moves
    if way is Grouped.SHUFFLED:
        assert sum(isinstance(layer, ChannelShuffle) for layer in deployed.layers) == 15
        assert not moves
    if way is Grouped.DENSE:
        assert not grouped
        assert not moves


@pytest.mark.slow
def test_channels_are_numbered_anew_only_where_that_copies_less() -> None:
    """In ShuffleNet V2 with residuals each sum mixes the orders of the units before it."""
    for residual in (False, True):
        model = registry.create("shufflenet_v2", input_shape=(64, 64, 3), residual=residual)
        options = [LoweringOptions(shuffles=shuffles) for shuffles in (False, True)]
        costs = [copy_cost(lower(model, options=one)) for one in options]
        assert (costs[0] > costs[1]) == residual
        assert copy_cost(lower(model)) == min(costs)


def test_what_dies_first_is_a_tensor_of_its_own() -> None:
    """116 channels are eight tiles; 58 are the next unit's, 29 the one's behind it, and so on."""
    model = registry.create("shufflenet_v2", width=1.0, input_shape=(64, 64, 3))
    deployed = lower(model)
    parts = [layer for layer in deployed.layers if layer.name.startswith("stage3_unit2_project")]
    assert [part.filters for part in parts if isinstance(part, layers.Conv2D)] == [58, 29, 15, 14]
