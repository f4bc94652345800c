"""Reads weight files into arrays named "layer/weight"; runs no code of a file.

Keras has two layouts.  Keras 2's HDF5 names each layer and weight.  The store within .keras and
.weights.h5 files counts instead: layers/conv2d_1/vars/0 is the first weight of the second Conv2D.
A .keras file adds the layers' names in config.json, Keras 3 also in attributes.  A .weights.h5 of
tf_keras has neither: its arrays keep names such as "layers/conv2d_1/kernel", which `counted_names`
maps to the layers of a model.
"""

import math
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import safetensors.numpy

from keras_models.checkpoints import native, pth
from shufflelite import config, isolated
from shufflelite.display import one_line
from shufflelite.errors import InputError

MAX_FILE_BYTES = 4 << 30  # it may also hold the state of an optimizer
MAX_BYTES = 1 << 30  # of all arrays that are read; those of the largest network take 0.83 GB
_MAX_ARRAYS = 10_000  # the deepest network has 2,000
_SPARE_BYTES = 1 << 28  # that HDF5 may take beside the arrays
_NUMBERS = ("f", "i", "u")  # kinds of dtypes
_MOST_INFLATED = 2000  # bytes of an array for each that HDF5 stores: gzip makes 1000 of one
_CONTAINERS = ("layers", "_layer_checkpoint_dependencies")  # now, and in TensorFlow 2.12 to 2.13
_NO_LAYERS = (*_CONTAINERS, "optimizer", "vars")
_WEIGHT_NAMES = {  # in the order of Keras' store; a bias that is not used is the last
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "Conv2D": ("kernel", "bias"),
    "Dense": ("kernel", "bias"),
    "DepthwiseConv2D": ("depthwise_kernel", "bias"),
    "Normalization": ("mean", "variance", "count"),
    "PReLU": ("alpha",),
    "SeparableConv2D": ("depthwise_kernel", "pointwise_kernel", "bias"),
}


@dataclass(frozen=True)
class Description:
    """What a file of Keras says of its model.

    Attributes:
      config: The model as Keras describes it; {} in a file of weights alone.
      names: Of the layers in such a file, "model/layer" of those within another model.
    """

    config: Mapping[str, Any]
    names: tuple[str, ...]


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
    try:
        check_size("the file", path.stat().st_size, MAX_FILE_BYTES)
        if path.suffix.lower() in KERAS:
            isolated.run(_TRIAL, str(path), library="HDF5")
        return read_here(path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def read_here(path: Path) -> dict[str, np.ndarray]:
    """Reads them in this process, where HDF5 may crash or hang on a damaged file.

    Raises:
      InputError: Any other content; the message does not name the file.
    """
    expected, reader = _READERS[path.suffix.lower()]
    try:
        arrays = reader(path)
    except (InputError, MemoryError):
        raise
    # On damaged files the libraries raise nearly anything, from KeyError to RuntimeError.
    except Exception as error:
        raise InputError(
            f"expected {expected}, but these {path.stat().st_size} bytes are incomplete or "
            f"something else ({one_line(error)}); get the file again."
        ) from error
    if not arrays:
        raise InputError("expected weights, found none.")
    for name, array in arrays.items():
        _check_kind(name, array.dtype)
    return arrays


def try_here(path: Path) -> str:
    """Reads them within limits; returns why that failed, or nothing."""
    # Slow computers inflate 10 MB in a second.
    seconds = 10 + path.stat().st_size / 10_000_000
    isolated.limit(memory_bytes=MAX_BYTES + _SPARE_BYTES, cpu_s=seconds)
    try:
        read_here(path)
    except MemoryError:
        return f"HDF5 needs more than {MAX_BYTES + _SPARE_BYTES} bytes of memory for it."
    except InputError as error:
        return str(error)
    return ""


def check_size(name: str, size_bytes: int, most: int) -> None:
    """Raises InputError if that is more than `most` bytes."""
    if size_bytes > most:
        raise InputError(f"expected at most {most} bytes of weights, but {name} has {size_bytes}.")


def describe(path: Path) -> Description:
    """Reads what a file of Keras says of its model, once `read` has read its weights."""
    if not h5py.is_hdf5(path):
        with zipfile.ZipFile(path) as archive:
            return Description(_config(archive), ())
    with h5py.File(path, "r") as file:
        root = file.get("model_weights", file)
        container = next((name for name in _CONTAINERS if name in file), None)
        names = _stored_names(file[container]) if container else _names(root, "layer_names")
        return Description(config.parse_json(file.attrs.get("model_config", "{}")), tuple(names))


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
        _check_objects(file)
        root = file.get("model_weights", file)
        if any(name in root.attrs for name in ("layer_names", "layer_names0")):
            model = config.parse_json(file.attrs.get("model_config", "{}"))
            return _arrays(_named_weights(root, dict(_classes(model))))
        return _arrays(_stored_weights(file, {}))


def _read_keras(path: Path) -> dict[str, np.ndarray]:
    if h5py.is_hdf5(path):  # TensorFlow before 2.12 wrote HDF5 whatever the name
        return _read_h5(path)
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryFile() as copied:
        model = _config(archive)
        weights = archive.getinfo("model.weights.h5")
        check_size(weights.filename, weights.file_size, max(MAX_BYTES, path.stat().st_size))
        with archive.open(weights) as stream:
            shutil.copyfileobj(stream, copied)
        with h5py.File(copied, "r") as file:
            _check_objects(file)
            return _arrays(_stored_weights(file, model))


def _config(archive: zipfile.ZipFile) -> Any:
    with archive.open("config.json") as stream:
        return config.parse_json(stream.read(config.MAX_JSON + 1))


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > _MAX_ARRAYS:
            raise InputError(f"expected at most {_MAX_ARRAYS} arrays, got {len(members)}.")
        declared = [_declared_bytes(archive, info) for info in members]
    check_size("the sum of its arrays", sum(declared), MAX_BYTES)
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _declared_bytes(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    """The size of an array by its header."""
    name = info.filename.removesuffix(".npy")
    headers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    with archive.open(info) as stream:
        try:
            version = np.lib.format.read_magic(stream)
        except ValueError as error:
            raise InputError(f"expected numbers in {name}, got no array.") from error
        shape, _, dtype = headers[version](stream)
    _check_kind(name, dtype)
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or size > info.file_size:
        raise InputError(f"{name} declares {size} bytes, which this file does not hold.")
    return size


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    native.check_header(path)
    check_size("the file", path.stat().st_size, MAX_BYTES + config.MAX_JSON)
    return safetensors.numpy.load_file(path)


def _read_pth(path: Path) -> dict[str, np.ndarray]:
    return pth.read(path, max_bytes=MAX_BYTES)


_READERS = {
    ".h5": ("Keras weights in HDF5", _read_h5),
    ".hdf5": ("Keras weights in HDF5", _read_h5),
    ".keras": ("a Keras model archive", _read_keras),
    ".npz": ("a NumPy archive without pickles", _read_npz),
    ".safetensors": ("a safetensors file", _read_safetensors),
    ".ckpt": ("weights of PyTorch", _read_pth),
    ".pt": ("weights of PyTorch", _read_pth),
    ".pth": ("weights of PyTorch", _read_pth),
    ".tar": ("weights of PyTorch in a .pth.tar", _read_pth),
}
KERAS = (".h5", ".hdf5", ".keras")
_TRIAL = """
import pathlib, sys
from keras_models.checkpoints import files
reason = files.try_here(pathlib.Path(sys.argv[1]))
print(reason)
sys.exit(bool(reason))
"""


def _named_weights(
    root: h5py.Group, classes: Mapping[str, str]
) -> Iterator[tuple[str, h5py.Dataset]]:
    for layer in _names(root, "layer_names"):
        names = _names(root[layer], "weight_names")
        for key, name in zip(weight_keys(layer, names), names, strict=True):
            owner, _, weight = key.rpartition("/")
            if weight == "kernel" and classes.get(owner) == "DepthwiseConv2D":  # Keras 3
                key = f"{owner}/depthwise_kernel"
            yield key, _dataset(root[layer], name)


def _names(group: h5py.Group, attribute: str) -> list[str]:
    # HDF5 limits an attribute to 64 kB, so Keras splits long ones: layer_names0, layer_names1, ...
    names = [attribute] if attribute in group.attrs else []
    while f"{attribute}{len(names)}" in group.attrs:
        names.append(f"{attribute}{len(names)}")
    values = [value for name in names for value in group.attrs[name]]
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _stored_weights(
    group: h5py.Group, config: Mapping[str, Any]
) -> Iterator[tuple[str, h5py.Dataset]]:
    """Reads the layers of a model's `group`; `config` is empty where the file has none."""
    container = next((name for name in _CONTAINERS if name in group), None)
    if container is None:
        raise InputError("expected the weights of Keras layers, found none.")
    layers = {layer["config"]["name"]: layer for layer in _layers(config)}
    names = counted_names((layer["class_name"], name) for name, layer in layers.items())
    # A class of one's own stores the layers that are its attributes beside the others.
    attributes = {name: g for name, g in group.items() if name not in _NO_LAYERS}
    for counted, stored in [*group[container].items(), *attributes.items()]:
        name = names.get(counted)
        if any(inner in stored for inner in _CONTAINERS):
            yield from _stored_weights(stored, layers.get(name, {}))
        elif len(variables := stored.get("vars", ())):
            counted_path = stored.name[1:].replace(_CONTAINERS[1], _CONTAINERS[0])
            owner = name or variables.attrs.get("name", counted_path)
            kind = variables.attrs.get("name", counted) if counted in attributes else counted
            weights = _weight_names(kind, len(variables), layers.get(name, {}).get("config"))
            for index, weight in enumerate(weights):
                yield f"{owner}/{weight}", _dataset(variables, str(index))


def _stored_names(layers: h5py.Group) -> Iterator[str]:
    for name, stored in layers.items():
        yield name
        for container in (inner for inner in _CONTAINERS if inner in stored):
            yield from (f"{name}/{inner}" for inner in _stored_names(stored[container]))


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


def _dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    dataset = group[name]
    is_array = isinstance(dataset, h5py.Dataset) and dataset.shape is not None
    if not is_array or dataset.external or dataset.is_virtual:
        raise InputError(f"{name} is no array within this file.")
    _check_kind(name, dataset.dtype)
    size = _size(dataset)
    if size > _MOST_INFLATED * dataset.id.get_storage_size():
        raise InputError(f"{name} declares {size} bytes, which this file does not hold.")
    return dataset


def _size(dataset: h5py.Dataset) -> int:
    return math.prod(dataset.shape) * dataset.dtype.itemsize


def _check_objects(file: h5py.File) -> None:
    """Refuses links, which can point to any other file, and a second name of anything.

    Through second names a small file can declare arrays and groups without end.
    """
    groups, addresses = [file], {h5py.h5o.get_info(file.id).addr}
    while groups:
        group = groups.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise InputError(f"{name} is a link, which no Keras weights have.")
            inner = group[name]
            address = h5py.h5o.get_info(inner.id).addr
            if address in addresses:
                raise InputError(f"{name} is a second name, which no Keras weights have.")
            addresses.add(address)
            if isinstance(inner, h5py.Group):
                groups.append(inner)


def _check_kind(name: str, dtype: np.dtype) -> None:
    if dtype.kind not in _NUMBERS:
        raise InputError(f"expected numbers in {name}, got {dtype}.")


def _arrays(pairs: Iterable[tuple[str, h5py.Dataset]]) -> dict[str, np.ndarray]:
    datasets: dict[str, h5py.Dataset] = {}
    declared = 0
    for key, dataset in pairs:
        if key in datasets:
            raise InputError(f"two of its arrays are called {key}.")
        datasets[key] = dataset
        declared += _size(dataset)
        check_size("the sum of its arrays", declared, MAX_BYTES)
    return {key: dataset[()] for key, dataset in datasets.items()}
