"""Reads weight files into arrays named "layer/weight"; runs no code of a file.

Keras has two layouts.  Keras 2's HDF5 names each layer and weight.  The store within .keras and
.weights.h5 files counts instead: layers/conv2d_1/vars/0 is the first weight of the second Conv2D.
A .keras file adds the layers' names in config.json, Keras 3 also in attributes.  A .weights.h5 of
tf_keras has neither: its arrays keep names such as "layers/conv2d_1/kernel", which `counted_names`
maps to the layers of a model.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import safetensors.numpy

from keras_models.checkpoints import pth
from shufflelite import isolated
from shufflelite.display import one_line
from shufflelite.errors import InputError

MAX_BYTES = 4 << 30  # a small file that declares a larger array or archive member is a bomb
_MOST_INFLATED = 2000  # bytes of an array for each that HDF5 stores: gzip makes 1000 of one
_CONTAINERS = ("layers", "_layer_checkpoint_dependencies")  # now, and in TensorFlow 2.12 to 2.13
_WEIGHT_NAMES = {  # in the order of Keras' store; a bias that is not used is the last
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "Conv2D": ("kernel", "bias"),
    "Dense": ("kernel", "bias"),
    "DepthwiseConv2D": ("depthwise_kernel", "bias"),
    "PReLU": ("alpha",),
    "SeparableConv2D": ("depthwise_kernel", "pointwise_kernel", "bias"),
}


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a file that ends in one of _READERS.

    Raises:
      InputError: Any other file or content.
    """
    path = Path(path)
    if path.suffix.lower() not in _READERS:
        raise InputError(f"{path}: expected weights in a file that ends in {', '.join(_READERS)}.")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "nothing of that name"
        raise InputError(f"{path}: expected a file of weights, found {kind}.")
    if path.suffix.lower() in _HDF5:
        try:
            isolated.run(_TRIAL, str(path), library="HDF5")
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    return read_here(path)


def read_here(path: Path) -> dict[str, np.ndarray]:
    """Reads them in this process, where HDF5 may crash or hang on a damaged file.

    Raises:
      InputError: Any other content.
    """
    expected, reader = _READERS[path.suffix.lower()]
    try:
        arrays = reader(path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    # On damaged files the libraries raise nearly anything, from KeyError to RuntimeError.
    except Exception as error:
        raise InputError(
            f"{path}: expected {expected}, but these {path.stat().st_size} bytes are incomplete or "
            f"something else ({one_line(error)}); get the file again."
        ) from error
    if not arrays:
        raise InputError(f"{path}: expected weights, found none.")
    for name, array in arrays.items():
        kind = getattr(
            array, "dtype", "no array"
        )  # NumPy returns a member of another kind as bytes
        if getattr(kind, "kind", "") not in ("f", "i", "u"):
            raise InputError(f"{path}: expected numbers in {name}, got {kind}.")
    return arrays


def weight_keys(layer: str, weights: Sequence[str]) -> list[str]:
    """Names a layer's weights "layer/weight", from Keras' names such as "layer/weight:0".

    Where the last parts repeat, `layer` is a nested model: the inner layers name its weights.
    """
    paths = [name.removesuffix(":0") for name in weights]
    leaves = [path.rsplit("/", 1)[-1] for path in paths]
    if len(set(leaves)) < len(leaves):
        return paths
    return [f"{layer}/{leaf}" for leaf in leaves]


def counted_names(layers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Maps the names in Keras' store to those of `layers`, which are (class, name) in order."""
    counts: dict[str, int] = {}
    names = {}
    for class_name, name in layers:
        snake = _snake_case(class_name)
        count = counts[snake] = counts.get(snake, -1) + 1
        names[f"{snake}_{count}" if count else snake] = name
    return names


def _read_h5(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path, "r") as file:
        _check_links(file)
        root = file.get("model_weights", file)
        if any(name in root.attrs for name in ("layer_names", "layer_names0")):
            config = json.loads(file.attrs.get("model_config", "{}"))
            return _unique(_named_weights(root, dict(_classes(config))))
        return _unique(_stored_weights(file, {}))


def _read_keras(path: Path) -> dict[str, np.ndarray]:
    if h5py.is_hdf5(path):  # TensorFlow before 2.12 wrote HDF5 whatever the name
        return _read_h5(path)
    with zipfile.ZipFile(path) as archive:
        config = json.loads(_member(archive, "config.json"))
        with h5py.File(io.BytesIO(_member(archive, "model.weights.h5")), "r") as file:
            _check_links(file)
            return _unique(_stored_weights(file, config))


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            _check_size(info.filename, info.file_size)
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(path)


def _read_pth(path: Path) -> dict[str, np.ndarray]:
    return pth.read(path, max_bytes=MAX_BYTES)


_READERS = {
    ".h5": ("Keras weights in HDF5", _read_h5),
    ".hdf5": ("Keras weights in HDF5", _read_h5),
    ".keras": ("a Keras model archive", _read_keras),
    ".npz": ("a NumPy archive without pickles", _read_npz),
    ".safetensors": ("a safetensors file", _read_safetensors),
    ".pt": ("weights of PyTorch", _read_pth),
    ".pth": ("weights of PyTorch", _read_pth),
    ".tar": ("weights of PyTorch in a .pth.tar", _read_pth),
}
_HDF5 = (".h5", ".hdf5", ".keras")
_TRIAL = """
import pathlib, sys
from keras_models.checkpoints import files
files.read_here(pathlib.Path(sys.argv[1]))
"""


def _named_weights(
    root: h5py.Group, classes: Mapping[str, str]
) -> Iterator[tuple[str, np.ndarray]]:
    for layer in _names(root, "layer_names"):
        names = _names(root[layer], "weight_names")
        for key, name in zip(weight_keys(layer, names), names, strict=True):
            owner, _, weight = key.rpartition("/")
            if weight == "kernel" and classes.get(owner) == "DepthwiseConv2D":  # Keras 3
                key = f"{owner}/depthwise_kernel"
            yield key, _array(root[layer], name)


def _names(group: h5py.Group, attribute: str) -> list[str]:
    # HDF5 limits an attribute to 64 kB, so Keras splits long ones: layer_names0, layer_names1, ...
    names = [attribute] if attribute in group.attrs else []
    while f"{attribute}{len(names)}" in group.attrs:
        names.append(f"{attribute}{len(names)}")
    values = [value for name in names for value in group.attrs[name]]
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _stored_weights(
    group: h5py.Group, config: Mapping[str, Any]
) -> Iterator[tuple[str, np.ndarray]]:
    """Reads the layers of a model's `group`; `config` is empty where the file has none."""
    container = next((name for name in _CONTAINERS if name in group), None)
    if container is None:
        raise InputError("expected the weights of Keras layers, found none.")
    layers = {layer["config"]["name"]: layer for layer in _layers(config)}
    names = counted_names((layer["class_name"], name) for name, layer in layers.items())
    for counted, stored in group[container].items():
        name = names.get(counted)
        if any(inner in stored for inner in _CONTAINERS):
            yield from _stored_weights(stored, layers.get(name, {}))
        elif len(variables := stored.get("vars", ())):
            counted_path = stored.name[1:].replace(_CONTAINERS[1], _CONTAINERS[0])
            owner = name or variables.attrs.get("name", counted_path)
            weights = _weight_names(counted, len(variables), layers.get(name, {}).get("config"))
            for index, weight in enumerate(weights):
                yield f"{owner}/{weight}", _array(variables, str(index))


def _weight_names(counted: str, count: int, config: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Returns the names of the `count` weights stored for one layer."""
    snake = re.sub(r"_\d+$", "", counted)
    kind = next((kind for kind in _WEIGHT_NAMES if _snake_case(kind) == snake), None)
    if kind is None:
        raise InputError(
            f"{counted} is no layer whose weights can be named; save the model's weights as .h5."
        )
    names = _WEIGHT_NAMES[kind]
    if kind != "BatchNormalization":
        names = names[:count]
    elif config:
        unused = {"gamma": not config["scale"], "beta": not config["center"]}
        names = tuple(name for name in names if not unused.get(name))
    if len(names) != count:
        raise InputError(
            f"expected {len(names)} weights of {counted} ({', '.join(names)}), found {count}; save "
            "the model as .keras, which says what they are."
        )
    return names


def _layers(config: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return config.get("config", {}).get("layers", ())


def _classes(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for layer in _layers(config):
        yield layer["config"]["name"], layer["class_name"]
        yield from _classes(layer)


def _snake_case(class_name: str) -> str:
    """Repeats Keras' to_snake_case, with which Keras names the groups of its store."""
    name = class_name.rsplit(">", 1)[-1]  # "package>Class" of a registered class
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _array(group: h5py.Group, name: str) -> np.ndarray:
    dataset = group[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
        raise InputError(f"{name} is no array within this file.")
    _check_size(name, dataset.nbytes)
    if dataset.nbytes > _MOST_INFLATED * dataset.id.get_storage_size():
        raise InputError(f"{name} declares {dataset.nbytes} bytes, which this file does not hold.")
    return dataset[()]


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    _check_size(name, archive.getinfo(name).file_size)
    return archive.read(name)


def _check_links(file: h5py.File) -> None:
    """Refuses links, which can point to any other file of this machine."""
    link = file.visititems_links(
        lambda name, link: None if isinstance(link, h5py.HardLink) else name
    )
    if link is not None:
        raise InputError(f"{link} is a link, which no Keras weights have.")


def _check_size(name: str, size_bytes: int) -> None:
    if size_bytes > MAX_BYTES:
        raise InputError(f"{name} declares {size_bytes} bytes, more than any weights have.")


def _unique(pairs: Iterable[tuple[str, np.ndarray]]) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for key, array in pairs:
        if key in arrays:
            raise InputError(f"two of its arrays are called {key}.")
        arrays[key] = array
    return arrays
