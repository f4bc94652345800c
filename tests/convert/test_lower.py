from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tf_keras as keras

from convert.lower import lower
from keras_models import registry
from keras_models.checkpoints.random_weights import randomize
from keras_models.layers import ChannelShuffle

TRAINING_ONLY = (keras.layers.BatchNormalization, keras.layers.ReLU, keras.layers.Dropout)
NETWORKS = [
    *((name, {}) for name in registry.names()),
    ("shufflenet_v2", {"variant": "megvii"}),
    ("shufflenet_v2", {"stem": "cifar", "width": 0.5}),
    ("mobilenet_v1", {"width": 0.25}),
]
layers = keras.layers


@pytest.fixture(
    scope="module",
    params=NETWORKS,
    ids=lambda network: "-".join([network[0], *map(str, network[1].values())]),
)
def network(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    name, options = request.param
    model = registry.create(name, input_shape=(64, 64, 3), num_classes=10, **options)
    randomize(model, seed=0)
    return model, lower(model)


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


def test_a_networks_deployment_form_is_the_same_function(network: tuple[Any, Any]) -> None:
    model, deployed = network
    assert_same_function(deployed, model)


def test_only_what_training_needs_is_gone_and_names_stay(network: tuple[Any, Any]) -> None:
    model, deployed = network
    kept = [layer.name for layer in model.layers if not isinstance(layer, TRAINING_ONLY)]
    assert sorted(layer.name for layer in deployed.layers) == sorted(kept)
    for layer in deployed.layers:
        assert not isinstance(layer, TRAINING_ONLY)
        assert type(layer) is type(model.get_layer(layer.name))


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
        lambda: [layers.Conv2D(4, 1), ChannelShuffle(2)],
    ],
    ids=["input", "relu", "own activation", "shuffle"],
)
def test_a_batch_norm_without_a_convolution_is_refused_by_name(
    chain: Callable[[], list[Any]],
) -> None:
    model = build(*chain(), layers.BatchNormalization(name="alone"))
    with pytest.raises(ValueError, match="Batch norm 'alone' has no convolution"):
        lower(model)


def test_a_batch_norm_behind_a_concat_is_refused() -> None:
    inputs = keras.Input((6, 6, 3))
    branches = [layers.Conv2D(4, 1)(inputs), layers.Conv2D(4, 1)(inputs)]
    x = layers.BatchNormalization(name="joint")(layers.Concatenate()(branches))
    with pytest.raises(ValueError, match="Batch norm 'joint' has no convolution"):
        lower(keras.Model(inputs, x))


def test_a_batch_norm_may_not_change_a_convolution_that_another_layer_reads() -> None:
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 1)(inputs)
    x = layers.Add()([x, layers.BatchNormalization(name="greedy")(x)])
    with pytest.raises(ValueError, match="Batch norm 'greedy' has no convolution"):
        lower(keras.Model(inputs, x))


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


def test_two_layers_on_one_folded_convolution_share_it() -> None:
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 1, name="conv")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    ends = [layers.Conv2D(2, 1, name="left")(x), layers.Conv2D(2, 1, name="right")(x)]
    model = disturb(keras.Model(inputs, layers.Concatenate(name="joined")(ends)))
    deployed = lower(model)
    names = sorted(layer.name for layer in deployed.layers[1:])
    assert names == ["conv", "joined", "left", "right"]
    assert_same_function(deployed, model)
