"""ShuffleNet V1 against NumPy, as the paper and as the released code say."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_models.checkpoints import load
from keras_models.layers import ChannelShuffle
from keras_models.shufflenet_v1 import CHANNELS, shufflenet_v1
from tests.keras_models.reference import (
    assert_same_logits,
    batch_norm,
    images,
    relu,
    shuffled,
    windows,
)

UNITS = {2: 4, 3: 8, 4: 4}  # stage: units, Table 1


class Reference:
    """ShuffleNet V1 in NumPy: Table 1 and Figure 2 of the paper, or the released code's units."""

    def __init__(
        self, arrays: Mapping[str, np.ndarray], *, groups: int, variant: str, padding: str
    ) -> None:
        self.arrays = arrays
        self.groups = groups
        self.released = variant == "megvii"
        self.symmetric = padding == "symmetric"

    def logits(self, x: np.ndarray, *, stem: str) -> np.ndarray:
        imagenet = stem == "imagenet"
        x = relu(self.batch_norm(self.conv(x, "conv1", strides=2 if imagenet else 1), "conv1"))
        if imagenet:
            x = self.windows(x, 3, strides=2, fill=-np.inf).max(axis=(4, 5))
        for stage, units in UNITS.items():
            for unit in range(1, units + 1):
                strides = 2 if unit == 1 and (imagenet or stage > 2) else 1
                x = self.unit(x, f"stage{stage}_unit{unit}", first=unit == 1, strides=strides)
        x = x.mean(axis=(1, 2)) @ self.arrays["classifier/kernel"]
        return x if self.released else x + self.arrays["classifier/bias"]

    def unit(self, x: np.ndarray, name: str, *, first: bool, strides: int) -> np.ndarray:
        y = relu(self.batch_norm(self.conv(x, f"{name}_reduce"), f"{name}_reduce"))
        if not self.released:
            y = shuffled(y, self.groups)
        y = self.depthwise(y, f"{name}_depthwise", strides=strides)
        y = self.batch_norm(y, f"{name}_depthwise")
        if self.released:
            y = shuffled(y, y.shape[-1] // self.groups)
        y = self.batch_norm(self.conv(y, f"{name}_expand"), f"{name}_expand")
        if f"{name}_se_reduce/kernel" in self.arrays:
            y = y * self.gate(y, name)
        if not first:
            return relu(x + y)
        if strides == 2:  # Caffe's and PyTorch's average: always of nine, zeros beyond the border
            x = self.windows(x, 3, strides=2).sum(axis=(4, 5)) / 9
        if self.released:
            return np.concatenate([x, relu(y)], axis=-1)
        return relu(np.concatenate([x, y], axis=-1))

    def gate(self, x: np.ndarray, name: str) -> np.ndarray:
        x = x.mean(axis=(1, 2), keepdims=True)
        x = relu(self.conv(x, f"{name}_se_reduce") + self.arrays[f"{name}_se_reduce/bias"])
        x = self.conv(x, f"{name}_se_expand") + self.arrays[f"{name}_se_expand/bias"]
        return 1 / (1 + np.exp(-x))

    def conv(self, x: np.ndarray, name: str, *, strides: int = 1) -> np.ndarray:
        """Each group of outputs sees as many inputs as the kernel has, its own."""
        kernel = self.arrays[f"{name}/kernel"]
        groups = x.shape[-1] // kernel.shape[2]
        parts = zip(
            np.split(self.windows(x, len(kernel), strides=strides), groups, axis=3),
            np.split(kernel, groups, axis=3),
            strict=True,
        )
        law = "bhwcij,ijco->bhwo"
        return np.concatenate([np.einsum(law, *part, optimize=True) for part in parts], axis=-1)

    def depthwise(self, x: np.ndarray, name: str, *, strides: int) -> np.ndarray:
        kernel = self.arrays[f"{name}/depthwise_kernel"][..., 0]
        return np.einsum("bhwcij,ijc->bhwc", self.windows(x, 3, strides=strides), kernel)

    def batch_norm(self, x: np.ndarray, name: str) -> np.ndarray:
        return batch_norm(self.arrays, x, name)

    def windows(self, x: np.ndarray, size: int, *, strides: int, fill: float = 0.0) -> np.ndarray:
        return windows(x, size, strides=strides, symmetric=self.symmetric, fill=fill)


@pytest.mark.parametrize(
    ("options", "resolution"),
    [
        ({"groups": 3, "width": 0.25}, 64),
        ({"groups": 3, "width": 0.5, "variant": "megvii", "padding": "symmetric"}, 64),
        ({"groups": 8, "width": 0.25, "stem": "cifar", "squeeze_excite": True}, 32),
        ({"groups": 1, "width": 0.25, "stem": "cifar", "padding": "symmetric"}, 16),
    ],
    ids=str,
)
def test_network_computes_what_its_source_says(
    options: dict[str, Any], resolution: int, randomize: Callable[[Any], Any]
) -> None:
    model = randomize(
        shufflenet_v1(**options, input_shape=(resolution, resolution, 3), num_classes=10)
    )
    for layer in model.layers:
        if "_se_" in layer.name and layer.weights:  # gates far from 0 and 1, which amplify errors
            layer.set_weights([w / 10 for w in layer.get_weights()])
    reference = Reference(
        load.model_arrays(model),
        groups=options["groups"],
        variant=options.get("variant", "paper"),
        padding=options.get("padding", "same"),
    )
    stem = options.get("stem", "imagenet")
    expected = reference.logits(images(resolution).astype(np.float64), stem=stem)
    assert_same_logits(model.predict(images(resolution), verbose=0), expected)


@pytest.mark.parametrize("variant", ["paper", "megvii"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_without_the_shuffle_a_group_sees_only_itself(
    shuffle: bool, variant: str, randomize: Callable[[Any], Any]
) -> None:
    model = randomize(
        shufflenet_v1(
            width=0.25, input_shape=(8, 8, 3), stem="cifar", variant=variant, shuffle=shuffle
        )
    )
    start = "stage2_unit1_concat"
    end = "stage2_unit4_add"
    stage = tf_keras.Model(model.get_layer(start).output, model.get_layer(end).output)
    x = np.random.default_rng(0).uniform(size=(1, 8, 8, 60)).astype(np.float32)
    changed = x.copy()
    changed[..., :20] += 1  # the first of three groups
    moved = np.abs(stage(changed) - stage(x)).max(axis=(0, 1, 2)) > 0
    np.testing.assert_array_equal(moved, np.arange(60) < (60 if shuffle else 20))


def test_a_training_step_reaches_every_weight_and_lowers_the_loss() -> None:
    tf_keras.utils.set_random_seed(0)
    model = shufflenet_v1(width=0.25, input_shape=(16, 16, 3), num_classes=3, stem="cifar")
    optimizer = tf_keras.optimizers.SGD(0.001)
    loss_of = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    x, y = tf.constant(images(16, count=6)), tf.constant([0, 1, 2, 0, 1, 2])

    @tf.function
    def step() -> tuple[Any, list[Any]]:
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss, gradients

    first, gradients = step()
    assert all(np.isfinite(g).all() for g in gradients)
    assert all(
        np.abs(g).max() > 0
        for g, v in zip(gradients, model.trainable_variables, strict=True)
        if v.name.endswith("kernel:0")
    )
    for _ in range(5):
        last, _ = step()
    assert last < first


@pytest.mark.parametrize(
    ("groups", "align", "bottlenecks"),
    [
        (1, 16, (48, 80, 144)),
        (2, 4, (64, 112, 208)),
        (3, 8, (72, 144, 288)),
        (3, 4, (72, 144, 252)),
    ],
)
def test_aligned_widths_fill_the_tiles_of_what_a_group_passes_to_another(
    groups: int, align: int, bottlenecks: tuple[int, ...]
) -> None:
    model = shufflenet_v1(groups=groups, align=align)
    for stage, channels in enumerate(bottlenecks, start=2):
        assert channels % (align * groups**2) == 0
        units = range(1, UNITS[stage] + 1)
        reduced = [model.get_layer(f"stage{stage}_unit{unit}_reduce").filters for unit in units]
        assert reduced == [channels] * len(units)
        # The table's channels stay, so that the shortcuts do.
        width = model.get_layer(f"stage{stage}_unit1_concat").output.shape[-1]
        assert width == CHANNELS[groups] * 2 ** (stage - 2)


@pytest.mark.parametrize(("width", "groups"), [(0.25, 2), (0.25, 8), (0.5, 4), (0.01, 8), (0.8, 3)])
def test_the_groups_divide_the_channels_of_every_width(width: float, groups: int) -> None:
    model = shufflenet_v1(width=width, groups=groups, input_shape=(32, 32, 3), allow_any_width=True)
    for stage in UNITS:
        full = CHANNELS[groups] * 2 ** (stage - 2)
        channels = model.get_layer(f"stage{stage}_unit1_concat").output.shape[-1]
        bottleneck = model.get_layer(f"stage{stage}_unit2_reduce").filters
        rounding = 0 if width in (0.25, 0.5) else 2 * groups * 2 ** (stage - 2)
        assert abs(channels - width * full) <= rounding or channels == groups * 2**stage
        assert abs(bottleneck - channels / 4) <= groups / 2
        for layer in model.layers:
            if isinstance(layer, ChannelShuffle):
                assert layer.groups == groups
