"""AugShuffleNet against NumPy, in both orders of channels."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_models import counts
from keras_models.augshufflenet import augshufflenet
from keras_models.checkpoints import load
from keras_models.shufflenet_v2 import shufflenet_v2
from tests.keras_models.reference import assert_same_logits, conv_bn, images, relu, shuffled

UNITS = {2: 4, 3: 8, 4: 4}  # stage: units
CIFAR = {"stem": "cifar", "input_shape": (32, 32, 3), "num_classes": 10}


class Reference:
    """AugShuffleNet in NumPy, from the description of its two orders of channels."""

    def __init__(
        self, arrays: Mapping[str, np.ndarray], *, ratio: float, variant: str, first_relu: bool
    ) -> None:
        self.arrays = arrays
        self.ratio = ratio
        self.original = variant == "original"
        self.first_relu = first_relu

    def logits(self, x: np.ndarray) -> np.ndarray:
        x = relu(self.conv_bn(x, "conv1"))
        for stage, units in UNITS.items():
            x = self.downsampled(x, f"stage{stage}_unit1")
            for unit in range(2, units + 1):
                name = f"stage{stage}_unit{unit}"
                if stage == 2 and self.original:
                    x = self.shufflenet_v2_unit(x, name)
                else:
                    x = self.aug_unit(x, name, ratio=0.5 if stage == 2 else self.ratio)
        x = relu(self.conv_bn(x, "conv5")).mean(axis=(1, 2))
        return x @ self.arrays["classifier/kernel"] + self.arrays["classifier/bias"]

    def downsampled(self, x: np.ndarray, name: str) -> np.ndarray:
        left = self.conv_bn(x, f"{name}_left_depthwise", strides=2)
        left = relu(self.conv_bn(left, f"{name}_left_project"))
        right = relu(self.conv_bn(x, f"{name}_expand"))
        right = self.conv_bn(right, f"{name}_depthwise", strides=2)
        right = relu(self.conv_bn(right, f"{name}_project"))
        x = np.concatenate([left, right], axis=-1)
        return shuffled(x, 2) if self.original else x

    def aug_unit(self, x: np.ndarray, name: str, *, ratio: float) -> np.ndarray:
        processed = int(ratio * x.shape[-1])
        if self.original:
            new, old = x[..., :processed], x[..., processed:]
            crossing, kept = np.split(old, 2, axis=-1)
        else:
            old, new = x[..., :-processed], x[..., -processed:]
            kept, crossing = np.split(old, 2, axis=-1)
        new = self.conv_bn(new, f"{name}_expand")
        if self.first_relu:
            new = relu(new)
        first, last = np.split(self.conv_bn(new, f"{name}_depthwise"), 2, axis=-1)
        mixed = np.concatenate([last, crossing], axis=-1)
        mixed = relu(self.conv_bn(mixed, f"{name}_project"))
        if self.original:
            return shuffled(np.concatenate([mixed, kept, first], axis=-1), 4)
        return np.concatenate([first, kept, mixed], axis=-1)

    def shufflenet_v2_unit(self, x: np.ndarray, name: str) -> np.ndarray:
        left, right = np.split(x, 2, axis=-1)
        right = relu(self.conv_bn(right, f"{name}_expand"))
        right = self.conv_bn(right, f"{name}_depthwise")
        right = relu(self.conv_bn(right, f"{name}_project"))
        return shuffled(np.concatenate([left, right], axis=-1), 2)

    def conv_bn(self, x: np.ndarray, name: str, *, strides: int = 1) -> np.ndarray:
        return conv_bn(self.arrays, x, name, strides=strides, symmetric=True)


@pytest.mark.parametrize("first_relu", [False, True])
@pytest.mark.parametrize(("variant", "ratio"), [("plus", 0.375), ("original", 0.25)])
def test_network_computes_what_is_described(
    variant: str, ratio: float, first_relu: bool, randomize: Callable[[Any], Any]
) -> None:
    options = {"variant": variant, "first_relu": first_relu, "padding": "symmetric"}
    model = augshufflenet(width=0.5, split_ratio=ratio, **options, **CIFAR)
    arrays = load.model_arrays(randomize(model))
    reference = Reference(arrays, ratio=ratio, variant=variant, first_relu=first_relu)
    expected = reference.logits(images(32).astype(np.float64))
    assert_same_logits(model.predict(images(32), verbose=0), expected)


@pytest.mark.parametrize(("variant", "least"), [("plus", 1.0), ("original", 0.999)])
def test_within_a_stage_every_channel_reaches_every_other(variant: str, least: float) -> None:
    model = augshufflenet(width=0.25, variant=variant, **CIFAR)
    model.set_weights([np.abs(w) for w in model.get_weights()])  # nothing cancels or is cut off
    first = "stage3_unit1_concat" if variant == "plus" else "stage3_unit1_shuffle"
    last = first.replace("unit1", "unit8")
    stage = tf_keras.Model(model.get_layer(first).output, model.get_layer(last).output)
    x = tf.ones((48, 8, 8, 48))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = stage(x)
    one_channel_each = tf.eye(48)[:, None, None] * tf.ones_like(x)
    gradients = tape.gradient(y, x, output_gradients=one_channel_each).numpy()
    assert (gradients.max(axis=(1, 2)) > 0).mean() >= least  # the original leaves out one pair


@pytest.mark.parametrize("variant", ["plus", "original"])
def test_at_a_ratio_of_half_it_costs_what_shufflenet_v2_does(variant: str) -> None:
    ours = augshufflenet(width=0.5, split_ratio=0.5, variant=variant, **CIFAR)
    v2 = shufflenet_v2(width=0.5, **CIFAR)
    assert counts.total(counts.count(ours)) == counts.total(counts.count(v2))


# Published of r = 0.125 (zhuanlan.zhihu.com/p/614027115): 79.6 % of the multiply-adds, and of the
# parameters 76.7 % with 10 classes, 77.9 % with 100.
@pytest.mark.parametrize(
    ("ratio", "classes", "percent"),
    [
        (0.25, 10, (81.7, 83.8)),
        (0.125, 10, (76.9, 79.6)),
        (0.125, 100, (77.8, 79.6)),
    ],
)
def test_a_split_ratio_saves_the_published_part_of_shufflenet_v2(
    ratio: float, classes: int, percent: tuple[float, float]
) -> None:
    options = {**CIFAR, "num_classes": classes}
    ours = counts.total(counts.count(augshufflenet(width=1.5, split_ratio=ratio, **options)))
    v2 = counts.total(counts.count(shufflenet_v2(width=1.5, **options)))
    assert tuple(round(100 * a / b, 1) for a, b in zip(ours, v2, strict=True)) == percent


@pytest.mark.parametrize(("width", "ratio"), [(0.5, 0.375), (1.5, 0.125), (1.0, 0.45)])
def test_a_unit_costs_k_squared_plus_9_k_plus_a_quarter_of_c_squared(
    width: float, ratio: float
) -> None:
    model = augshufflenet(width=width, split_ratio=ratio, **CIFAR)
    for stage, pixels in {2: 16 * 16, 3: 8 * 8, 4: 4 * 4}.items():
        unit = [c for c in counts.count(model) if c.name.startswith(f"stage{stage}_unit3_")]
        channels = unit[-1].output_shape[-1]
        k = round(channels * (0.5 if stage == 2 else ratio))
        assert counts.total(unit)[1] == pixels * (k**2 + 9 * k + channels**2 // 4)


@pytest.mark.parametrize(
    ("width", "ratio", "channels", "processed"),
    [
        (0.5, 0.375, (64, 96, 192), (32, 48, 80)),
        (1.0, 0.375, (128, 256, 480), (64, 96, 192)),
        (1.5, 0.125, (192, 352, 704), (96, 48, 96)),
    ],
)
@pytest.mark.parametrize("variant", ["plus", "original"])
def test_aligned_widths_fill_the_tiles_of_every_pointwise_convolution(
    width: float, ratio: float, channels: tuple[int, ...], processed: tuple[int, ...], variant: str
) -> None:
    model = augshufflenet(width=width, split_ratio=ratio, variant=variant, align=16, **CIFAR)
    for stage, (whole, first) in enumerate(zip(channels, processed, strict=True), start=2):
        assert model.get_layer(f"stage{stage}_unit1_concat").output.shape[-1] == whole
        assert model.get_layer(f"stage{stage}_unit2_expand").filters == first
    for layer in model.layers:
        if getattr(layer, "kernel_size", None) == (1, 1):
            assert (layer.filters % 16, layer.input.shape[-1] % 16) == (0, 0)


@pytest.mark.parametrize(("ratio", "k"), [(0.397727, 140), (0.403409, 142)])
def test_the_ratios_that_an_error_names_can_be_built(ratio: float, k: int) -> None:
    model = augshufflenet(width=1.5, split_ratio=ratio, **CIFAR)
    assert model.get_layer("stage3_unit2_expand").filters == k
    assert model.get_layer("stage4_unit2_expand").filters == 2 * k


@pytest.mark.parametrize("width", [0.01, 0.8, 1.3])
def test_any_width_scales_the_stages_to_channels_that_split(width: float) -> None:
    model = augshufflenet(width=width, variant="original", allow_any_width=True, **CIFAR)
    for stage, full in {2: 120, 3: 240, 4: 480}.items():
        channels = model.get_layer(f"stage{stage}_unit1_concat").output.shape[-1]
        assert channels % 16 == 0
        assert abs(channels - width * full) <= 2 ** (stage + 1) or channels == 2 ** (stage + 2)
