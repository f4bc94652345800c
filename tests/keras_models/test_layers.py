"""The shared layers against NumPy and their laws."""

from typing import Any

import numpy as np
import pytest
import tf_keras
from numpy.lib.stride_tricks import sliding_window_view

from keras_models import layers
from keras_models.layers import ChannelShuffle, HardSigmoid, HardSwish, channel_split
from shufflelite.errors import InputError


def shuffled(x: np.ndarray, groups: int) -> np.ndarray:
    """ShuffleNet V1, Section 3.1: reshape to (groups, n), transpose, flatten."""
    n = x.shape[-1] // groups
    out = np.empty_like(x)
    for group in range(groups):
        for i in range(n):
            out[..., i * groups + group] = x[..., group * n + i]
    return out


def test_channel_shuffle_feeds_each_group_from_every_group() -> None:
    x = np.array(["r1 r2 r3", "g1 g2 g3", "b1 b2 b3"])  # V1, Figure 1(c): three groups
    names = " ".join(x).split()
    order = ChannelShuffle(3)(np.arange(9.0).reshape(1, 1, 1, 9)).numpy().ravel().astype(int)
    assert " ".join(names[i] for i in order) == "r1 g1 b1 r2 g2 b2 r3 g3 b3"


@pytest.mark.parametrize(("channels", "groups"), [(8, 2), (12, 3), (116, 2), (116, 58), (6, 1)])
def test_channel_shuffle_is_the_papers_and_c_over_g_undoes_it(channels: int, groups: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 5, channels)).astype(np.float32)
    once = ChannelShuffle(groups)(x)
    np.testing.assert_array_equal(once, shuffled(x, groups))
    np.testing.assert_array_equal(ChannelShuffle(channels // groups)(once), x)


def test_channel_shuffle_refuses_channels_that_do_not_divide() -> None:
    with pytest.raises(InputError, match=r"^8 channels do not divide into 3 groups\.$"):
        ChannelShuffle(3)(np.zeros((1, 1, 1, 8)))


def test_a_network_of_these_layers_survives_its_configuration() -> None:
    inputs = tf_keras.Input((2, 2, 8))
    left, right = channel_split(inputs, name="split")
    joined = tf_keras.layers.Concatenate()([right, left])
    model = tf_keras.Model(inputs, ChannelShuffle(4, name="shuffle")(joined))
    copy = tf_keras.models.model_from_json(model.to_json())
    x = np.random.default_rng(0).normal(size=(3, 2, 2, 8)).astype(np.float32)
    expected = shuffled(np.roll(x, 4, axis=-1), 4)
    np.testing.assert_array_equal(model(x), expected)
    np.testing.assert_array_equal(copy(x), expected)


def test_hard_swish_and_hard_sigmoid_are_those_of_mobilenet_v3() -> None:
    x = np.linspace(-5, 5, 41, dtype=np.float32)
    gate = np.clip(x + 3, 0, 6) / 6
    np.testing.assert_allclose(HardSigmoid()(x), gate, atol=1e-7)
    np.testing.assert_allclose(HardSwish()(x), x * gate, atol=1e-6)


@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid"])
def test_squeeze_excite_scales_each_channel_by_what_all_of_them_say(gate: str) -> None:
    rng = np.random.default_rng(0)
    inputs = tf_keras.Input((4, 6, 8))
    model = tf_keras.Model(inputs, layers.squeeze_excite(inputs, 3, gate=gate, name="unit"))
    weights = [rng.normal(size=w.shape) for w in model.get_weights()]
    model.set_weights(weights)
    reduce_kernel, reduce_bias, expand_kernel, expand_bias = weights
    x = rng.normal(size=(2, 4, 6, 8))
    s = np.maximum(x.mean(axis=(1, 2)) @ reduce_kernel[0, 0] + reduce_bias, 0)
    s = s @ expand_kernel[0, 0] + expand_bias
    scale = 1 / (1 + np.exp(-s)) if gate == "sigmoid" else np.clip(s + 3, 0, 6) / 6
    np.testing.assert_allclose(model(x), x * scale[:, None, None], atol=1e-5)


def padded_windows(x: np.ndarray, pads: list[tuple[int, int]], fill: float) -> np.ndarray:
    x = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=fill)
    return sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2]  # (b, h, w, c, 3, 3)


PADS = {  # padding: (before, behind) of an even and of an odd size, for windows of 3 at stride 2
    "same": [(0, 1), (1, 1)],
    "symmetric": [(1, 1), (1, 1)],
    "bottom_right": [(0, 1), (0, 1)],
}


@pytest.mark.parametrize("padding", layers.PADDINGS)
def test_a_padding_puts_its_zeros_where_it_says_at_even_and_odd_sizes(padding: str) -> None:
    rng = np.random.default_rng(0)
    inputs = tf_keras.Input((6, 5, 4))
    options: dict[str, Any] = {"padding": padding, "strides": 2}
    outputs = [
        layers.conv(inputs, 6, kernel=3, groups=2, name="conv", **options),
        layers.depthwise_conv(inputs, name="depthwise", **options),
        layers.max_pool(inputs, padding=padding, name="max"),
        layers.average_pool(inputs, padding=padding, name="average"),
    ]
    model = tf_keras.Model(inputs, outputs)
    kernel, depthwise = weights = [rng.normal(size=w.shape) for w in model.get_weights()]
    model.set_weights(weights)
    x = rng.uniform(size=(2, 6, 5, 4))
    windows = padded_windows(x, PADS[padding], 0)
    halves = zip(np.split(windows, 2, axis=3), np.split(kernel, 2, axis=3), strict=True)
    convolved = [np.einsum("bhwcij,ijco->bhwo", *half) for half in halves]
    expected = [
        np.concatenate(convolved, axis=-1),
        np.einsum("bhwcij,ijcm->bhwc", windows, depthwise),
        windows.max(axis=(4, 5)),
        windows.sum(axis=(4, 5)) / 9,
    ]
    for actual, reference in zip(model(x), expected, strict=True):
        np.testing.assert_allclose(actual, reference, atol=1e-5)


@pytest.mark.parametrize("padding", layers.PADDINGS)
def test_an_average_pool_counts_the_zeros_beyond_the_border(padding: str) -> None:
    inputs = tf_keras.Input((4, 4, 1))
    model = tf_keras.Model(inputs, layers.average_pool(inputs, padding=padding, name="pool"))
    corner, border, inside = 4 / 9, 6 / 9, 1.0
    expected = [[inside, border], [border, corner]]
    if padding == "symmetric":
        expected = [[corner, border], [border, inside]]
    np.testing.assert_allclose(model(np.ones((1, 4, 4, 1)))[0, :, :, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("padding", layers.PADDINGS)
def test_at_stride_1_all_paddings_are_the_same(padding: str) -> None:
    inputs = tf_keras.Input((5, 6, 4))
    outputs = layers.conv(inputs, 2, kernel=3, padding=padding, name="conv")
    assert outputs.shape == (None, 5, 6, 2)
    assert len(tf_keras.Model(inputs, outputs).layers) == 2
