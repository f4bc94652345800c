"""Weights of PyTorch's networks into ours: the same logits as PyTorch computed, without PyTorch.

golden/regenerate.py wrote the logits; the weights are drawn anew from the names that it wrote.
"""

import json
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from keras_models import checkpoints, registry
from keras_models.checkpoints import load, megvii, timm, torchvision
from keras_models.checkpoints.weights import EFFICIENTNET_V2_UNITS, Weights
from keras_models.images.decode import Preprocessing
from shufflelite.errors import InputError

GOLDEN = Path(__file__).parent / "golden"
DRAWN = runpy.run_path(str(GOLDEN / "drawn.py"))
SHAPES = json.loads((GOLDEN / "state_dicts.json").read_text())
IMPORTERS = {
    "megvii_shufflenet_v1_g3": megvii.shufflenet_v1,
    "megvii_shufflenet_v1_g8": megvii.shufflenet_v1,
    "megvii_shufflenet_v2": megvii.shufflenet_v2,
    "torchvision_shufflenet_v2": torchvision.shufflenet_v2,
    "torchvision_mobilenet_v2": torchvision.mobilenet_v2,
    "torchvision_mobilenet_v3_small": torchvision.mobilenet_v3,
    "torchvision_efficientnet_v2_s": torchvision.efficientnet_v2,
}
ALL = [importer for importers in checkpoints.IMPORTERS.values() for importer in importers]


def state_dict(network: str) -> dict[str, np.ndarray]:
    draw = DRAWN["draw"]
    return {name: draw(name, tuple(shape)) for name, shape in SHAPES[network].items()}


def image(size: int) -> np.ndarray:
    return DRAWN["image"](size).transpose(0, 2, 3, 1)


def logits(imported: Any, size: int, **options: Any) -> np.ndarray:
    """Outputs of our network with `imported` weights."""
    (name,) = imported.models
    model = registry.create(name, input_shape=(size, size, 3), **imported.options, **options)
    load.load_weights(model, imported.arrays, origin="golden")
    return model(image(size)).numpy()[0]


def assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    # Sums in another order differ by up to 2e-6 of the largest logit; the least mistake, 1e-3
    # instead of 1e-5 as the batch norms' epsilon, by 7e-4.
    assert np.abs(actual - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("network", IMPORTERS)
def test_networks_compute_what_pytorch_computes(network: str) -> None:
    imported = IMPORTERS[network](state_dict(network))
    assert imported is not None
    with np.load(GOLDEN / "logits.npz") as golden:
        expected = {key: golden[key] for key in golden if key.startswith(f"{network}/")}
    assert expected
    for key, values in expected.items():
        assert_close(logits(imported, int(key.rpartition("/")[2])), values)


@pytest.mark.parametrize("name", ["narrow.pth", "narrow.pth.tar", "narrow.ckpt"])
def test_files_of_pytorch_are_read_recognized_and_compute_the_same(name: str) -> None:
    weights = checkpoints.read_weights(GOLDEN / name)
    assert weights.source == "megvii shufflenet_v1"
    assert weights.options == {
        "variant": "megvii",
        "groups": 3,
        "stem": "imagenet",
        "shuffle": True,
        "padding": "symmetric",
    }
    with np.load(GOLDEN / "logits.npz") as golden:
        expected = golden["narrow/64"]
    assert_close(logits(weights, 64, width=0.1, num_classes=10, allow_any_width=True), expected)


@pytest.mark.parametrize("network", IMPORTERS)
def test_every_weight_is_renamed_and_no_other_source_claims_it(network: str) -> None:
    arrays = state_dict(network)
    claims = [imported for importer in ALL if (imported := importer(arrays)) is not None]
    (imported,) = claims
    assert imported.source.replace(" ", "_") == network.removesuffix("_g3").removesuffix("_g8")
    counters = sum(name.endswith("num_batches_tracked") for name in arrays)
    assert len(imported.arrays) == len(arrays) - counters
    assert not set(imported.arrays) & set(arrays)


@pytest.mark.parametrize("network", IMPORTERS)
def test_what_no_layer_has_keeps_its_name(network: str) -> None:
    arrays = state_dict(network)
    convolution = next(name for name in arrays if arrays[name].ndim == 4)
    arrays |= {
        "extra.weight": np.zeros(1),
        "features.0.extra": np.zeros(1),
        convolution: np.zeros(2),
        convolution.replace("weight", "running_mean"): np.zeros(3),
    }
    imported = IMPORTERS[network](arrays)
    assert imported is not None
    unknown = {name for name in imported.arrays if name in arrays}
    assert unknown == {
        "extra.weight",
        "features.0.extra",
        convolution,
        convolution.replace("weight", "running_mean"),
    }


CLASSIFIERS = {
    "megvii_shufflenet_v2": "classifier.0",
    "torchvision_shufflenet_v2": "fc",
    "torchvision_mobilenet_v2": "classifier.1",
    "torchvision_mobilenet_v3_small": "classifier.3",
}


def with_head(network: str, head: str, prefix: str = "") -> dict[str, np.ndarray]:
    """A state dict whose classifier has another name; `prefix` precedes all others."""
    own = f"{CLASSIFIERS[network]}."
    return {
        name.replace(own, f"{head}.") if name.startswith(own) else f"{prefix}{name}": array
        for name, array in state_dict(network).items()
    }


@pytest.mark.parametrize("network", CLASSIFIERS)
@pytest.mark.parametrize(
    ("head", "prefix"),
    [
        ("head", ""),
        ("classifier.4.linear", ""),
        ("module.model.fc", "module.model."),
        ("head", "backbone."),
        ("_orig_mod.net.head.1", "_orig_mod.net.encoder."),
    ],
)
def test_a_head_of_any_name_behind_any_prefix_is_the_classifier(
    network: str, head: str, prefix: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(with_head(network, head, prefix), path)
    plain = IMPORTERS[network](state_dict(network))
    weights = checkpoints.read_weights(path)
    assert plain is not None
    assert weights.options == plain.options
    assert weights.arrays.keys() == plain.arrays.keys()
    for name, array in plain.arrays.items():
        np.testing.assert_array_equal(weights.arrays[name], array, err_msg=name)


def test_a_mobilenet_v3_may_have_its_classifier_behind_the_pooling(tmp_path: Path) -> None:
    arrays = state_dict("torchvision_mobilenet_v3_small")
    arrays = {name: a for name, a in arrays.items() if not name.startswith("classifier.")}
    for head in ("classifier", "classifier.0", "fc"):
        own = {f"{head}.weight": np.ones((5, 576)), f"{head}.bias": np.ones(5)}
        weights = checkpoints.read_weights(saved({**arrays, **own}, tmp_path / "x.npz"))
        assert weights.options["fc1"] is False
        assert weights.arrays["classifier/kernel"].shape == (576, 5)
        assert np.isfinite(logits_of(weights)).all()


def logits_of(weights: Weights) -> np.ndarray:
    classes = weights.arrays["classifier/kernel"].shape[-1]
    return logits(weights, 64, num_classes=classes)


def test_the_authors_shufflenets_may_have_a_bias(tmp_path: Path) -> None:
    arrays = state_dict("megvii_shufflenet_v2")
    plain = megvii.shufflenet_v2(arrays)
    assert plain is not None
    bias = np.arange(1000, dtype=np.float32)
    path = saved({**arrays, "classifier.0.bias": bias}, tmp_path / "x.npz")
    weights = checkpoints.read_weights(path)
    assert weights.options["classifier_bias"] is True
    np.testing.assert_allclose(logits_of(weights) - bias, logits_of(plain), atol=1e-3)


def test_a_head_of_two_layers_is_named(tmp_path: Path) -> None:
    arrays = with_head("torchvision_mobilenet_v2", "head.0")
    arrays |= {"head.2.weight": np.ones((5, 1000)), "head.2.bias": np.ones(5)}
    with pytest.raises(InputError) as caught:
        checkpoints.read_weights(saved(arrays, tmp_path / "x.npz"))
    assert str(caught.value) == (
        f"{tmp_path / 'x.npz'}: torchvision mobilenet_v2 and layers that it does not have (head.0 "
        "(1280, 1000), head.2 (1000, 5)): expected one behind the pooling, the classifier."
    )


def mobilenet_v3_of_timm(**arrays: np.ndarray) -> dict[str, np.ndarray]:
    """Names as timm gives them, of the small one; torchvision's weights under them."""
    modules: dict[str, str] = {}
    stages = [(0, 0), (1, 0), (1, 1), *((2, u) for u in range(3)), (3, 0), (3, 1)]
    stages += [(4, u) for u in range(3)]
    for unit, (stage, number) in enumerate(stages, start=1):
        block = f"blocks.{stage}.{number}"
        roles = [("conv_pw", "bn1", "expand"), ("conv_dw", "bn2", "depthwise")]
        roles += [("conv_pwl", "bn3", "project")]
        if unit == 1:  # without expansion
            roles = [("conv_dw", "bn1", "depthwise"), ("conv_pw", "bn2", "project")]
        for convolution, batch_norm, role in roles:
            modules[f"unit{unit}_{role}"] = f"{block}.{convolution}"
            modules[f"unit{unit}_{role}_bn"] = f"{block}.{batch_norm}"
        modules[f"unit{unit}_se_reduce"] = f"{block}.se.conv_reduce"
        modules[f"unit{unit}_se_expand"] = f"{block}.se.conv_expand"
    modules |= {"conv1": "conv_stem", "conv1_bn": "bn1", "fc1": "conv_head"}
    modules |= {"conv2": "blocks.5.0.conv", "conv2_bn": "blocks.5.0.bn1"}
    modules |= {"classifier": "classifier"}
    kinds = {"gamma": "weight", "beta": "bias", "bias": "bias", "kernel": "weight"}
    kinds |= {"depthwise_kernel": "weight"}
    kinds |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
    imported = torchvision.mobilenet_v3(state_dict("torchvision_mobilenet_v3_small"))
    assert imported is not None
    for name, array in imported.arrays.items():
        layer, _, weight = name.rpartition("/")
        if weight == "depthwise_kernel":
            array = array.transpose(2, 3, 0, 1)
        elif layer == "fc1" and weight == "kernel":  # a convolution in timm
            array = array.T[:, :, np.newaxis, np.newaxis]
        elif weight == "kernel":
            array = array.T if array.ndim == 2 else array.transpose(3, 2, 0, 1)
        arrays[f"{modules[layer]}.{kinds[weight]}"] = np.ascontiguousarray(array)
    return arrays


def test_timm_s_names_lead_to_the_same_arrays() -> None:
    reference = torchvision.mobilenet_v3(state_dict("torchvision_mobilenet_v3_small"))
    imported = timm.mobilenet_v3(mobilenet_v3_of_timm())
    assert imported is not None
    assert reference is not None
    assert imported.models == reference.models
    assert sorted(imported.arrays) == sorted(reference.arrays)
    for name, array in reference.arrays.items():
        np.testing.assert_array_equal(imported.arrays[name], array, err_msg=name)


def test_timm_and_timm_tf_cannot_be_told_apart_and_must_be_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(mobilenet_v3_of_timm(), path)
    with pytest.raises(InputError) as caught:
        checkpoints.read_weights(path)
    assert str(caught.value) == (
        f"{path}: timm mobilenet_v3_small and timm_tf mobilenet_v3_small have the same names of "
        "weights, but do not compute the same: say which of the sources it is, timm or timm_tf."
    )
    torch = checkpoints.read_weights(path, source="timm")
    tensorflow = checkpoints.read_weights(path, source="timm_tf")
    assert torch.options == {"padding": "symmetric", "bn_epsilon": 1e-5}
    assert tensorflow.options == {"padding": "same", "bn_epsilon": 1e-3}
    assert tensorflow.preprocessing == Preprocessing()
    assert torch.preprocessing is not None
    assert torch.preprocessing.interpolation == "bicubic"


def test_a_minimalistic_mobilenet_of_timm_needs_no_source(tmp_path: Path) -> None:
    arrays = {n: array for n, array in mobilenet_v3_of_timm().items() if ".se." not in n}
    safetensors.numpy.save_file(arrays, tmp_path / "x.safetensors")
    weights = checkpoints.read_weights(tmp_path / "x.safetensors")
    assert weights.source == "timm_tf mobilenet_v3_small"
    assert weights.options["minimalistic"] is True


def efficientnet_v2_of_timm(units: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The first weights of each unit, by which a network is recognized."""
    kinds = [("conv",), ("conv_exp", "conv_pwl"), ("conv_exp", "conv_pwl")]
    kinds += [("conv_pw", "conv_dw", "conv_pwl")] * (len(units) - 3)
    return {
        f"blocks.{stage}.{unit}.{convolution}.weight": np.zeros((1, 1, 1, 1), np.float32)
        for stage, (count, convolutions) in enumerate(zip(units, kinds, strict=True))
        for unit in range(count)
        for convolution in convolutions
    }


@pytest.mark.parametrize(("units", "model"), EFFICIENTNET_V2_UNITS.items())
def test_units_tell_which_efficientnet_v2_it_is_and_fit_ours(
    units: tuple[int, ...], model: str
) -> None:
    imported = timm.tf_efficientnet_v2(efficientnet_v2_of_timm(units))
    assert imported is not None
    assert imported.models == (model,)
    assert registry.find(model)
    assert "stage1_unit1_project/kernel" in imported.arrays
    assert f"stage2_unit{units[1]}_expand/kernel" in imported.arrays
    assert f"stage{len(units)}_unit{units[-1]}_depthwise/depthwise_kernel" in imported.arrays
    assert not any(name.startswith("blocks") for name in imported.arrays)


@pytest.mark.parametrize(
    ("network", "renamed"),
    [
        ("torchvision_shufflenet_v2", ("stage2.0", "stage1.0")),
        ("torchvision_mobilenet_v2", ("features.1.", "features.01.")),
        ("torchvision_mobilenet_v3_small", ("features.1.", "features.111.")),
        ("torchvision_efficientnet_v2_s", ("features.1.1.", "features.1.x.")),
        ("megvii_shufflenet_v1_g3", ("features.0.", "features.x.")),
        ("megvii_shufflenet_v2", ("conv_last", "LastSE")),  # ShuffleNetV2+ has such names
    ],
)
def test_networks_like_those_are_not_taken_for_them(network: str, renamed: tuple[str, str]) -> None:
    arrays = {name.replace(*renamed): array for name, array in state_dict(network).items()}
    assert [importer(arrays) for importer in ALL] == [None] * len(ALL)


def test_wide_shufflenets_of_torchvision_saw_larger_pictures() -> None:
    narrow = {"stage2.0.branch1.2.weight": np.zeros((58, 24, 1, 1), np.float32)}
    wide = {"stage2.0.branch1.2.weight": np.zeros((88, 24, 1, 1), np.float32)}
    sizes = []
    for arrays in (narrow, wide):
        imported = torchvision.shufflenet_v2(arrays)
        assert imported is not None
        sizes.append(round(224 / imported.preprocessing.crop_fraction))
    assert sizes == [256, 232]


def test_megvii_s_pictures_are_bgr_without_normalization() -> None:
    pixels = np.array([[[[255, 128, 0]]]], np.uint8)
    np.testing.assert_array_equal(megvii.PREPROCESSING.to_input(pixels)[0, 0, 0], [0, 128, 255])


def saved(arrays: Mapping[str, np.ndarray], path: Path) -> Path:
    np.savez(path, **arrays)
    return path


def test_a_source_that_does_not_know_the_names_is_refused(tmp_path: Path) -> None:
    path = saved({"conv1/kernel": np.zeros(3, np.float32)}, tmp_path / "x.npz")
    assert checkpoints.read_weights(path).source is None
    assert checkpoints.read_weights(path, source="shufflelite").source is None
    with pytest.raises(InputError, match=r"x\.npz: expected the weights of a network of megvii, f"):
        checkpoints.read_weights(path, source="megvii")
    with pytest.raises(InputError, match=r"one of shufflelite, keras, torchvision, megvii, timm, "):
        checkpoints.read_weights(path, source="pytorch")


def test_a_source_that_is_named_is_the_only_one_asked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected the weights of a network of torchvision"):
        checkpoints.read_weights(GOLDEN / "narrow.pth", source="torchvision")
    weights = checkpoints.read_weights(GOLDEN / "narrow.pth", source="shufflelite")
    assert weights.source is None
    assert "first_conv.0.weight" in weights.arrays


def test_damaged_shapes_never_raise_anything_else() -> None:
    rng = np.random.default_rng(0)
    for network in IMPORTERS:
        arrays = state_dict(network)
        for name in rng.choice(list(arrays), 40, replace=False):
            damaged = {**arrays, name: np.zeros(rng.integers(0, 4, rng.integers(0, 6)))}
            imported = [importer(damaged) for importer in ALL]
            assert all(one is None or isinstance(one, Weights) for one in imported)
