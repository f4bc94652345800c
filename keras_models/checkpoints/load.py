"""Weights by name into a model, all or nothing, and back to a file."""

import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from keras_models.checkpoints.files import counted_names, weight_keys
from shufflelite import atomic
from shufflelite.errors import InputError


def load_weights(model: Any, arrays: Mapping[str, np.ndarray], *, origin: str) -> None:
    """Assigns `arrays` to the variables of `model`: each to one of its name and shape.

    Args:
        model: A Keras model.
        arrays: As `files.read` returns them.
        origin: Where they come from, for messages.

    Raises:
        InputError: A variable without array, an array without variable, or another shape. The
            model is then as it was.
    """
    variables = _variables(model)
    arrays = with_layer_names(model, arrays)
    missing = [name for name in variables if name not in arrays]
    unexpected = [name for name in arrays if name not in variables]
    misshapen = [
        f"{name}: {tuple(arrays[name].shape)} instead of {tuple(variable.shape)}"
        for name, variable in variables.items()
        if name in arrays and tuple(arrays[name].shape) != tuple(variable.shape)
    ]
    mistyped = [
        f"{name}: {arrays[name].dtype} instead of {variable.dtype.name}"
        for name, variable in variables.items()
        if name in arrays and variable.dtype.is_floating and arrays[name].dtype.kind != "f"
    ]
    problems = [
        f"{len(names)} {problem} ({_first(names)})"
        for problem, names in (
            ("missing", missing),
            ("left over", unexpected),
            ("of another shape", misshapen),
            ("of another type", mistyped),
        )
        if names
    ]
    if problems:
        raise InputError(
            f"{origin}: expected the {len(variables)} arrays of {model.name}, got {len(arrays)}: "
            f"{', '.join(problems)}. Are these the weights of another network or width?"
        )
    for name, variable in variables.items():
        variable.assign(arrays[name].astype(variable.dtype.as_numpy_dtype))


def with_layer_names(model: Any, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames `arrays` to the model's layer names where their file only counts layers."""
    names = _counted_paths(model)
    renamed = {}
    for key, array in _without_container(names, arrays).items():
        layer, slash, weight = key.rpartition("/")
        renamed[f"{names.get(layer, layer)}{slash}{weight}"] = array
    return renamed


def model_arrays(model: Any) -> dict[str, np.ndarray]:
    """Returns the weights of `model` under the names that `load_weights` expects."""
    return {name: variable.numpy() for name, variable in _variables(model).items()}


def save(model: Any, path: str | Path) -> None:
    """Writes the weights of `model` as .safetensors or .npz; the same weights, the same bytes."""
    path = Path(path)
    arrays = {name: np.ascontiguousarray(a) for name, a in sorted(model_arrays(model).items())}
    if path.suffix not in (".safetensors", ".npz"):
        raise InputError(f"{path}: expected a name that ends in .safetensors or .npz.")
    if path.suffix == ".safetensors":
        data = safetensors.numpy.save(arrays)
    else:
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        data = stream.getvalue()
    atomic.write(path, data)


def _layers(model: Any) -> Iterable[Any]:
    for layer in model.layers:
        if hasattr(layer, "layers"):  # a nested model
            yield from _layers(layer)
        else:
            yield layer


def _variables(model: Any) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    for layer in _layers(model):
        keys = weight_keys(layer.name, [variable.name for variable in layer.weights])
        for key, variable in zip(keys, layer.weights, strict=True):
            if key in variables:
                raise ValueError(f"Two weights of {model.name} are called {key}.")
            variables[key] = variable
    return variables


def _counted_paths(model: Any) -> dict[str, str]:
    layers = {layer.name: layer for layer in model.layers}
    counted = counted_names((type(layer).__name__, name) for name, layer in layers.items())
    paths = {}
    for count, name in counted.items():
        paths[f"layers/{count}"] = name
        if hasattr(layers[name], "layers"):
            inner = _counted_paths(layers[name])
            paths |= {f"layers/{count}/{path}": name for path, name in inner.items()}
    return paths


def _without_container(
    paths: Iterable[str], arrays: Mapping[str, np.ndarray]
) -> Mapping[str, np.ndarray]:
    """Takes the layers of the one model within a file's model for its own, if `paths` have none."""
    containers = {
        match[0] for name in arrays if (match := re.match(r"layers/\w+/(?=layers/)", name))
    }
    if len(containers) != 1 or any(path.startswith(tuple(containers)) for path in paths):
        return arrays
    (container,) = containers
    renamed = {name.removeprefix(container): array for name, array in arrays.items()}
    return renamed if len(renamed) == len(arrays) else arrays


def _first(names: list[str]) -> str:
    return "; ".join(names[:3]) + ("; ..." if len(names) > 3 else "")
