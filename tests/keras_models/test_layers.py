import numpy as np
import pytest
import tf_keras

from keras_models.errors import InputError
from keras_models.layers import ChannelShuffle, channel_split


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
