"""Keras' own networks with their weights in a file, and ours with the weights of that file."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras

from keras_models import checkpoints, registry
from keras_models.checkpoints import keras_applications, load
from keras_models.efficientnet_v2 import VARIANTS

APPLICATIONS = {
    "mobilenet_v1": tf_keras.applications.MobileNet,
    "mobilenet_v2": tf_keras.applications.MobileNetV2,
    "mobilenet_v3_large": tf_keras.applications.MobileNetV3Large,
    "mobilenet_v3_small": tf_keras.applications.MobileNetV3Small,
    "efficientnet_v2_b0": tf_keras.applications.EfficientNetV2B0,
    "efficientnet_v2_b1": tf_keras.applications.EfficientNetV2B1,
    "efficientnet_v2_b2": tf_keras.applications.EfficientNetV2B2,
    "efficientnet_v2_b3": tf_keras.applications.EfficientNetV2B3,
    "efficientnet_v2_s": tf_keras.applications.EfficientNetV2S,
}


def application(name: str, resolution: int, **options: Any) -> Any:
    if "width" in options:
        options["alpha"] = options.pop("width")
    return APPLICATIONS[name](
        input_shape=(resolution, resolution, 3),
        weights=None,
        classifier_activation=None,
        **options,
    )


@pytest.mark.parametrize(
    ("name", "resolution", "options"),
    [
        ("mobilenet_v1", 193, {"width": 0.25}),
        ("mobilenet_v2", 224, {"width": 0.35}),
        ("mobilenet_v2", 97, {"width": 1.4}),
        ("mobilenet_v3_large", 97, {"width": 0.75}),
        ("mobilenet_v3_small", 224, {}),
        ("mobilenet_v3_small", 97, {"minimalistic": True}),
        ("efficientnet_v2_b0", 97, {}),
        pytest.param("efficientnet_v2_b1", 64, {}, marks=pytest.mark.slow),
        pytest.param("efficientnet_v2_b2", 65, {}, marks=pytest.mark.slow),
        ("efficientnet_v2_b3", 65, {}),
        pytest.param("efficientnet_v2_s", 64, {}, marks=pytest.mark.slow),
    ],
)
def test_network_computes_what_keras_own_does(
    name: str,
    resolution: int,
    options: dict[str, Any],
    tmp_path: Path,
    randomize: Callable[[Any], Any],
) -> None:
    # Preprocessing inside the network has a test of its own: random networks as deep as these
    # make anything of its rounding errors.
    inside = {} if name in ("mobilenet_v1", "mobilenet_v2") else {"include_preprocessing": False}
    keras_model = randomize(application(name, resolution, **options, **inside))
    keras_model.save_weights(tmp_path / "x.h5")

    weights = checkpoints.read_weights(tmp_path / "x.h5")
    assert weights.models == (name,)
    arguments = {"input_shape": (resolution, resolution, 3), **options, **weights.options}
    ours = registry.create(name, **arguments)
    load.load_weights(ours, weights.arrays, origin="x.h5")

    assert ours.count_params() == keras_model.count_params()
    inputs = np.random.default_rng(1).uniform(-1, 1, (2, resolution, resolution, 3))
    expected = keras_model(inputs.astype(np.float32)).numpy()
    scale = np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 0.01 * scale, "the logits hardly depend on the image"
    actual = ours(inputs.astype(np.float32)).numpy()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("mobilenet_v3_small", "Conv"),
        ("efficientnet_v2_b0", "stem_conv"),
        ("efficientnet_v2_s", "stem_conv"),
    ],
)
def test_preprocessing_inside_keras_own_is_that_of_the_weights(
    name: str, first: str, tmp_path: Path
) -> None:
    keras_model = application(name, 32, include_top=False)
    keras_model.save_weights(tmp_path / "x.h5")
    preprocessing = checkpoints.read_weights(tmp_path / "x.h5").preprocessing
    assert preprocessing is not None
    pixels = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(1, 32, 32, 3)
    inside = tf_keras.Model(keras_model.input, keras_model.get_layer(first).input)
    np.testing.assert_allclose(
        preprocessing.to_input(pixels), inside(pixels.astype(np.float32)), rtol=0, atol=2e-6
    )


@pytest.mark.parametrize(
    ("variant", "fraction", "interpolation"),
    [  # evaluation in the authors' code: B as EfficientNet was, the others on whole pictures
        ("b0", 224 / 256, "bicubic"),
        ("b1", 240 / 272, "bicubic"),
        ("b2", 260 / 292, "bicubic"),
        ("b3", 300 / 332, "bicubic"),
        ("s", 1.0, "bilinear"),
        ("m", 1.0, "bilinear"),
        ("l", 1.0, "bilinear"),
    ],
)
def test_variants_of_efficientnet_are_told_apart_by_their_units(
    variant: str, fraction: float, interpolation: str
) -> None:
    table = VARIANTS[variant]
    arrays = {
        f"block{i}{chr(ord('a') + unit)}_{layer}": np.zeros(())
        for i, stage in enumerate(table.stages, start=1)
        for unit in range(math.ceil(stage.repeats * table.depth))
        for layer in ("dwconv2/depthwise_kernel", "project_conv/kernel")
    }
    imported = keras_applications.efficientnet_v2(arrays)
    assert imported is not None
    assert imported.models == (f"efficientnet_v2_{variant}",)
    assert imported.preprocessing.crop_fraction == pytest.approx(fraction)
    assert imported.preprocessing.interpolation == interpolation
    last = f"stage{len(table.stages)}_unit{math.ceil(table.stages[-1].repeats * table.depth)}"
    assert f"{last}_depthwise/depthwise_kernel" in imported.arrays


def test_weights_without_classifier_stay_without(tmp_path: Path) -> None:
    application("mobilenet_v3_small", 32, include_top=False).save_weights(tmp_path / "x.h5")
    weights = checkpoints.read_weights(tmp_path / "x.h5")
    ours = registry.create("mobilenet_v3_small", input_shape=(32, 32, 3), **weights.options)
    missing = load.model_arrays(ours).keys() - weights.arrays.keys()
    assert missing == {"classifier/kernel", "classifier/bias"}
    assert weights.arrays.keys() <= load.model_arrays(ours).keys()


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "efficientnet_v2_b0"])
def test_our_own_weights_are_no_ones_else(name: str) -> None:
    arrays = load.model_arrays(registry.create(name, input_shape=(32, 32, 3)))
    assert [importer(arrays) for importer in keras_applications.IMPORTERS] == [None] * 4
