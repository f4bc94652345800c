"""Renames and transposes PyTorch's weights into ours: what its importers share."""

from collections.abc import Mapping

import numpy as np

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
            our_weight, array = renamed
            converted[f"{layer}/{our_weight}"] = array
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
