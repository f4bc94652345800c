"""ShuffleNet V2 against NumPy, as the paper and its appendix say."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from keras_models import counts
from keras_models.checkpoints import load
from keras_models.shufflenet_v2 import VARIANTS, shufflenet_v2
from tests.keras_models.reference import Arrays, assert_same_logits, conv_bn, images, relu, windows

UNITS = {2: 4, 3: 8, 4: 4}  # stage: units, Table 5


class Reference:
    """ShuffleNet V2 in NumPy, from the paper's Figures 3(c), 3(d), Table 5 and its appendix."""

    def __init__(
        self, arrays: Arrays, *, residual: bool = False, symmetric_padding: bool = False
    ) -> None:
        self.arrays = arrays
        self.residual = residual
        self.symmetric = symmetric_padding

    def logits(self, x: np.ndarray, *, stem: str) -> np.ndarray:
        x = relu(self.conv_bn(x, "conv1", strides=2 if stem == "imagenet" else 1))
        if stem == "imagenet":
            x = windows(x, 3, strides=2, symmetric=self.symmetric, fill=-np.inf).max(axis=(4, 5))
        for stage, units in UNITS.items():
            for unit in range(1, units + 1):
                x = self.unit(x, f"stage{stage}_unit{unit}", strides=2 if unit == 1 else 1)
        x = relu(self.conv_bn(x, "conv5")).mean(axis=(1, 2))
        return x @ self.arrays["classifier/kernel"] + self.arrays["classifier/bias"]

    def unit(self, x: np.ndarray, name: str, *, strides: int) -> np.ndarray:
        if strides == 2:
            left = self.conv_bn(x, f"{name}_left_depthwise", strides=2)
            left, right = relu(self.conv_bn(left, f"{name}_left_project")), x
        else:
            left, right = np.split(x, 2, axis=-1)
        added = strides == 1 and self.residual
        shortcut = right
        right = relu(self.conv_bn(right, f"{name}_expand"))
        right = self.conv_bn(right, f"{name}_depthwise", strides=strides)  # no ReLU behind it
        right = self.conv_bn(right, f"{name}_project")
        if not added:
            right = relu(right)
        if f"{name}_se_reduce/kernel" in self.arrays:
            right = right * self.gate(right, name)
        if added:
            right = relu(shortcut + right)
        return np.stack([left, right], axis=-1).reshape(*left.shape[:-1], -1)  # left, right, ...

    def gate(self, x: np.ndarray, name: str) -> np.ndarray:
        x = x.mean(axis=(1, 2), keepdims=True)
        for part in ("reduce", "expand"):
            kernel, bias = (self.arrays[f"{name}_se_{part}/{k}"] for k in ("kernel", "bias"))
            x = x @ kernel[0, 0] + bias
            x = relu(x) if part == "reduce" else 1 / (1 + np.exp(-x))
        return x

    def conv_bn(self, x: np.ndarray, name: str, *, strides: int = 1) -> np.ndarray:
        return conv_bn(self.arrays, x, name, strides=strides, symmetric=self.symmetric)


@pytest.mark.parametrize(("stem", "resolution"), [("imagenet", 64), ("cifar", 32)])
def test_network_computes_what_the_paper_says(
    stem: str, resolution: int, randomize: Callable[[Any], Any]
) -> None:
    model = shufflenet_v2(
        width=0.5, stem=stem, input_shape=(resolution, resolution, 3), num_classes=10
    )
    reference = Reference(load.model_arrays(randomize(model)))
    expected = reference.logits(images(resolution).astype(np.float64), stem=stem)
    assert_same_logits(model.predict(images(resolution), verbose=0), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"padding": "symmetric"},
        {"squeeze_excite": True},
        {"residual": True},
        {"squeeze_excite": True, "residual": True},
    ],
    ids=str,
)
def test_network_computes_what_the_appendix_says(
    options: dict[str, Any], randomize: Callable[[Any], Any]
) -> None:
    model = randomize(shufflenet_v2(width=0.5, **options, input_shape=(64, 64, 3), num_classes=10))
    for layer in model.layers:
        if "_se_" in layer.name and layer.weights:  # gates far from 0 and 1, which amplify errors
            layer.set_weights([w / 10 for w in layer.get_weights()])
    reference = Reference(
        load.model_arrays(model),
        residual="residual" in options,
        symmetric_padding="padding" in options,
    )
    expected = reference.logits(images(64).astype(np.float64), stem="imagenet")
    assert_same_logits(model.predict(images(64), verbose=0), expected)


def test_squeeze_excite_has_half_of_the_units_channels_as_neurons() -> None:
    plain, with_se = (
        counts.total(
            counts.count(
                shufflenet_v2(squeeze_excite=with_se, stem="cifar", input_shape=(32, 32, 3))
            )
        )
        for with_se in (False, True)
    )
    neurons = [116 // 2] * 4 + [232 // 2] * 8 + [464 // 2] * 4
    assert with_se[1] - plain[1] == sum(2 * n * n for n in neurons)
    assert with_se[0] - plain[0] == sum(2 * n * (n + 1) for n in neurons)


def mirrored(position: int, channels: int) -> int:
    """The channel of "megvii" that holds this channel of "torchvision", and the reverse.

    A channel that torchvision's unit passes on moves from p to 2p, and one that megvii's passes
    on from p to p / 2.  So a channel climbs the chain o, 2o, 4o, ... below `channels` (o odd) in
    one network while it descends the same chain in the other.
    """
    if position == 0:
        return 0
    power = position & -position
    top = position // power
    while 2 * top < channels:
        top *= 2
    return top // power


def to_megvii(arrays: Arrays) -> dict[str, np.ndarray]:
    """Weights of the same function in the "megvii" variant, by the permutation of each stage."""
    out = {name: array for name, array in arrays.items() if name != "classifier/bias"}

    def permute(layer: str, *, inputs: Any = slice(None), outputs: Any = slice(None)) -> None:
        if f"{layer}/kernel" in out:
            out[f"{layer}/kernel"] = out[f"{layer}/kernel"][:, :, inputs][..., outputs]
        else:
            name = f"{layer}/depthwise_kernel"
            out[name] = out[name][:, :, outputs]
        for name in [name for name in out if name.startswith(f"{layer}_bn/")]:
            out[name] = out[name][outputs]

    previous: Any = slice(None)
    for stage, units in UNITS.items():
        half = arrays[f"stage{stage}_unit1_project/kernel"].shape[-1]
        order = np.array([mirrored(p, 2 * half) for p in range(2 * half)])
        left, right = order[:half] // 2, order[half:] // 2  # torchvision interleaves the branches
        permute(f"stage{stage}_unit1_left_depthwise", outputs=previous)
        permute(f"stage{stage}_unit1_left_project", inputs=previous, outputs=left)
        permute(f"stage{stage}_unit1_expand", inputs=previous)
        for unit in range(2, units + 1):
            permute(f"stage{stage}_unit{unit}_expand", inputs=order[1::2] - half)
        for unit in range(1, units + 1):
            permute(f"stage{stage}_unit{unit}_project", outputs=right)
        previous = order
    permute("conv5", inputs=previous)
    return out


def test_variants_are_one_function_up_to_a_permutation_where_their_branches_are_alike(
    randomize: Callable[[Any], Any],
) -> None:
    torchvision, megvii = (  # of 0.5: wider ones have another first unit
        shufflenet_v2(
            width=0.5, variant=variant, stem="cifar", input_shape=(32, 32, 3), num_classes=10
        )
        for variant in ("torchvision", "megvii")
    )
    arrays = load.model_arrays(randomize(torchvision))
    arrays["classifier/bias"] = np.zeros(10, np.float32)  # megvii's classifier has none
    load.load_weights(torchvision, arrays, origin="random")
    expected = torchvision.predict(images(32), verbose=0)

    load.load_weights(megvii, to_megvii(arrays), origin="permuted")
    assert_same_logits(megvii.predict(images(32), verbose=0), expected)

    del arrays["classifier/bias"]
    load.load_weights(megvii, arrays, origin="as they are")
    wrong = megvii.predict(images(32), verbose=0)
    assert np.abs(wrong - expected).max() > 0.1 * np.abs(expected).max()


ALIGNED = {  # (width, align): conv1, stages 2 to 4, conv5
    (0.5, 16): (32, 64, 96, 192, 1024),
    (1.0, 8): (24, 128, 240, 464, 1024),
    (1.0, 16): (32, 128, 256, 480, 1024),
    (1.0, 32): (32, 128, 256, 512, 1024),
    (1.5, 16): (32, 192, 352, 704, 1024),
    (2.0, 16): (32, 256, 512, 992, 2048),
}


@pytest.mark.parametrize(("width", "align"), ALIGNED)
@pytest.mark.parametrize("variant", VARIANTS)
def test_aligned_widths_fill_the_tiles_of_every_pointwise_convolution(
    width: float, align: int, variant: str
) -> None:
    model = shufflenet_v2(width=width, align=align, variant=variant)
    conv1, *stages, conv5 = ALIGNED[width, align]
    assert (model.get_layer("conv1").filters, model.get_layer("conv5").filters) == (conv1, conv5)
    for stage, channels in enumerate(stages, start=2):
        assert model.get_layer(f"stage{stage}_unit1_concat").output.shape[-1] == channels
    for layer in model.layers:
        if getattr(layer, "kernel_size", None) == (1, 1):
            assert (layer.filters % align, layer.input.shape[-1] % align) == (0, 0)


@pytest.mark.parametrize("width", [0.01, 0.35, 1.3])
def test_any_width_scales_the_stages_to_even_channels(width: float) -> None:
    model = shufflenet_v2(width=width, input_shape=(32, 32, 3), stem="cifar", allow_any_width=True)
    for stage, full in {2: 116, 3: 232, 4: 464}.items():
        channels = model.get_layer(f"stage{stage}_unit1_concat").output.shape[-1]
        assert channels % 2 == 0
        assert abs(channels - width * full) <= 1
    assert model.output.shape == (None, 1000)
