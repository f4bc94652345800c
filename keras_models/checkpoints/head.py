"""The classifier of a network that someone trained for other classes, whatever its name."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from keras_models.checkpoints.keras_layers import Layer
from keras_models.checkpoints.keras_preprocessing import is_inert
from keras_models.checkpoints.weights import Weights
from shufflelite.display import one_line
from shufflelite.errors import InputError

CLASSIFIER = "classifier/"  # the last layer of all our networks
_SHARED = (CLASSIFIER, "conv1/", "conv1_bn/")  # names of ours that Keras has too
_KEEP_LOGITS = ("linear", "softmax", "sigmoid")  # activations behind the classifier
_POOLING = "GlobalAveragePooling2D"


def with_classifier(weights: Weights, arrays: Mapping[str, np.ndarray]) -> Weights:
    """Renames the one layer that our network does not have: it is the classifier.

    Args:
      weights: Of a recognized network.  What its importer does not know is called as in the file.
      arrays: The file's.

    Raises:
      InputError: more layers are left over, or one that is no classifier.
    """
    others: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for name, array in weights.arrays.items():
        if name in arrays and not name.startswith(_SHARED):
            layer, _, weight = name.replace("/", ".").rpartition(".")
            others[layer][weight] = array
    ours = {
        name: array
        for name, array in weights.arrays.items()
        if name not in arrays or name.startswith(_SHARED)
    }
    if others:
        kernels = {layer: _kernel(own) for layer, own in others.items()}
        (kernel, *_) = kernels.values()
        if len(others) > 1 or kernel is None or f"{CLASSIFIER}kernel" in ours:
            shapes = [
                f"{name} {'' if k is None else k.shape}".strip() for name, k in kernels.items()
            ]
            raise InputError(
                f"{weights.source} and layers that it does not have "
                f"({one_line(', '.join(shapes[:4]))}): expected one behind the pooling, the "
                "classifier."
            )
        (own,) = others.values()
        ours |= {f"{CLASSIFIER}kernel": kernel}
        ours |= {f"{CLASSIFIER}bias": own["bias"]} if "bias" in own else {}
    return _adapted(replace(weights, arrays=ours)) if f"{CLASSIFIER}kernel" in ours else weights


def check(layers: Sequence[Layer]) -> None:
    """Refuses a head that computes something else than ours: average pooling, then a classifier.

    Args:
      layers: Of a Keras model, each behind its inputs, the last is its output.

    Raises:
      InputError: it does.
    """
    layer, behind = layers[-1], []
    is_pooled = has_classifier = False
    while not (is_pooled and has_classifier):
        behind.append(layer)
        activation = layer.config.get("activation", "linear")
        if layer.kind in ("Dense", "Conv2D") and not has_classifier:
            has_classifier = is_known = activation in _KEEP_LOGITS
        elif layer.kind == _POOLING and not is_pooled:
            is_pooled = is_known = True
        elif layer.kind in ("Activation", "Softmax") and not has_classifier:
            is_known = layer.kind == "Softmax" or activation in _KEEP_LOGITS
        else:
            is_known = is_inert(layer) or layer.kind in ("Flatten", "Reshape")
        if not is_known or len(layer.inputs) != 1:
            raise InputError(
                f"expected {_POOLING} and then Dense for the classes, both once, found "
                f"{', '.join(found.kind for found in behind[::-1])} at the end of the model, which "
                "none of our networks has."
            )
        layer = layer.inputs[0]


def _adapted(weights: Weights) -> Weights:
    """Gives the classifier a bias where our network has one, and two logits for a single score."""
    parts = {n: np.atleast_1d(a) for n, a in weights.arrays.items() if n.startswith(CLASSIFIER)}
    options, notes = dict(weights.options), weights.notes
    if options.get("variant") == "megvii":
        options |= {"classifier_bias": True} if f"{CLASSIFIER}bias" in parts else {}
    elif f"{CLASSIFIER}bias" not in parts:
        parts[f"{CLASSIFIER}bias"] = np.zeros(parts[f"{CLASSIFIER}kernel"].shape[-1], np.float32)
    if parts[f"{CLASSIFIER}kernel"].shape[-1] == 1:  # sigmoid(x) is softmax(0, x)
        parts = {name: np.concatenate([0 * a, a], axis=-1) for name, a in parts.items()}
        notes += ("its one output, the score of a class against another, becomes logits of two",)
    return replace(weights, arrays={**weights.arrays, **parts}, options=options, notes=notes)


def _kernel(own: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The (features, classes) of a dense layer or 1x1 convolution; None of anything else."""
    (name, *more) = own.keys() - {"bias"} or {"bias"}
    if more or name not in ("kernel", "weight"):
        return None
    kernel = own[name] if name == "kernel" else own[name].T  # PyTorch's are (classes, features)
    if kernel.ndim == 4 and kernel.shape[:2] == (1, 1):
        kernel = kernel[0, 0]
    return kernel if kernel.ndim == 2 else None
