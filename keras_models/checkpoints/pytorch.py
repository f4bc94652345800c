"""PyTorch's names and shapes of weights into ours: what its importers share."""

from collections.abc import Mapping

import numpy as np

from keras_models.images.decode import Preprocessing, Triple

IMAGENET_MEAN: Triple = (123.675, 116.28, 103.53)
IMAGENET_STD: Triple = (58.395, 57.12, 57.375)
IMAGENET = Preprocessing(IMAGENET_MEAN, IMAGENET_STD)

EFFICIENTNET_V2_UNITS = {  # units in each stage: which network it is
    (2, 4, 4, 6, 9, 15): "efficientnet_v2_s",
    (3, 5, 5, 7, 14, 18, 5): "efficientnet_v2_m",
    (4, 7, 7, 10, 19, 25, 7): "efficientnet_v2_l",
    (4, 8, 8, 16, 24, 32, 8): "efficientnet_v2_xl",
    (1, 2, 2, 3, 5, 8): "efficientnet_v2_b0",
    (2, 3, 3, 4, 6, 9): "efficientnet_v2_b1",
    (2, 3, 3, 4, 6, 10): "efficientnet_v2_b2",
    (2, 3, 3, 5, 7, 12): "efficientnet_v2_b3",
}
MOBILENET_V2_UNITS = (1, 2, 3, 4, 3, 3, 1)
SHUFFLENET_UNITS = (4, 8, 4)

_BATCH_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
_DENSE = ("fc1", "classifier")


def convert(arrays: Mapping[str, np.ndarray], layers: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Renames and transposes the weights of `layers`, which maps PyTorch's modules to our layers.

    Anything else keeps its name, so that loading it is refused.
    """
    converted = {}
    for name, array in arrays.items():
        module, _, weight = name.rpartition(".")
        if weight == "num_batches_tracked":
            continue
        layer = layers.get(module)
        renamed = None if layer is None else _convert(layer, weight, array)
        if renamed is None:
            converted[name] = array
        else:
            ours, array = renamed
            converted[f"{layer}/{ours}"] = array
    return converted


def with_batch_norms(convolutions: Mapping[str, str]) -> dict[str, str]:
    """Adds the batch norms, each the next module of an nn.Sequential: "conv1.1" after "conv1.0"."""
    layers = dict(convolutions)
    for module, layer in convolutions.items():
        parent, _, index = module.rpartition(".")
        layers[f"{parent}.{int(index) + 1}"] = f"{layer}_bn"
    return layers


def _convert(layer: str, weight: str, array: np.ndarray) -> tuple[str, np.ndarray] | None:
    if layer.endswith("_bn"):
        return (_BATCH_NORM[weight], array) if weight in _BATCH_NORM else None
    if weight == "bias":
        return "bias", array
    if weight != "weight":
        return None
    if layer in _DENSE and array.ndim in (2, 4):  # 4 where it is a 1x1 convolution
        return "kernel", array.reshape(array.shape[0], -1).T
    if array.ndim != 4:
        return None
    if layer.endswith("depthwise"):  # (c, 1, h, w)
        return "depthwise_kernel", array.transpose(2, 3, 0, 1)
    return "kernel", array.transpose(2, 3, 1, 0)  # (out, in, h, w)
