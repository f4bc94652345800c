"""Reads state dicts that PyTorch saved, without PyTorch and without the calls in their pickle.

Two layouts: a zip archive since PyTorch 1.6, before that pickles followed by the raw storages.
"""

import io
import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from keras_models.checkpoints import torch_pickle
from keras_models.checkpoints.torch_pickle import (
    ADVICE,
    DTYPES,
    Storage,
    Tensor,
    kind_of,
    quoted,
    sequence,
)
from shufflelite.errors import InputError

# Keys under which training scripts store weights.  Averaged ones come first: they are evaluated.
KEYS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "net", "network")

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_ORDERS = {b"little": "<", b"big": ">"}
_MAX_PICKLE_BYTES = 1 << 26


def read(path: Path, *, max_bytes: int) -> dict[str, np.ndarray]:
    """Reads the tensors of a state dict; `max_bytes` limits all of them together."""
    with path.open("rb") as stream:
        if stream.read(4) == b"PK\x03\x04":
            with zipfile.ZipFile(stream) as archive:
                return _read_zip(archive, path.stat().st_size, max_bytes=max_bytes)
        stream.seek(0)
        if stream.read(1) != b"\x80":  # a pickle of protocol 2 or later
            raise InputError(f"it is neither an archive nor a pickle of torch.save; {ADVICE}.")
        if path.stat().st_size > max_bytes:  # it is read as a whole
            raise InputError(f"its {path.stat().st_size} bytes are more than any weights have.")
        stream.seek(0)
        return _read_legacy(io.BytesIO(stream.read()), max_bytes=max_bytes)


def _read_zip(archive: zipfile.ZipFile, size: int, *, max_bytes: int) -> dict[str, np.ndarray]:
    members = archive.infolist()
    names = {info.filename for info in members}
    if len(names) < len(members):
        raise InputError("two of its members have one name.")
    if any(name.endswith("/constants.pkl") for name in names):
        raise InputError(f"it is a TorchScript program, not weights; {ADVICE}.")
    # PyTorch stores without compression, so nothing can be larger than the file.
    if any(info.compress_type != zipfile.ZIP_STORED for info in members):
        raise InputError(f"its members are compressed, which PyTorch never does; {ADVICE}.")
    if sum(info.file_size for info in members) > size:
        raise InputError("its members declare more bytes than it has.")
    pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise InputError(f"expected one data.pkl in this archive, found {len(pickles)}.")
    folder = pickles[0].removesuffix("data.pkl")
    order = b"little"
    if f"{folder}byteorder" in names:
        order = archive.read(f"{folder}byteorder")
    if order not in _ORDERS:
        raise InputError("its byte order is neither little nor big.")
    if archive.getinfo(pickles[0]).file_size > _MAX_PICKLE_BYTES:
        raise InputError(f"its pickle has more than {_MAX_PICKLE_BYTES} bytes.")
    saved, _ = torch_pickle.read(io.BytesIO(archive.read(pickles[0])))
    tensors = _state_dict(saved)

    def load(storage: Storage) -> np.ndarray:
        name = f"{folder}data/{storage.key}"
        if name not in names:
            raise InputError(f"expected a member data/{quoted(storage.key)}, found none.")
        return _values(archive.read(name), storage, order=_ORDERS[order])

    return _arrays(tensors, load, max_bytes=max_bytes)


def _read_legacy(stream: io.BytesIO, *, max_bytes: int) -> dict[str, np.ndarray]:
    if torch_pickle.read(stream)[0] != _MAGIC:
        raise InputError("it is a pickle, but not of torch.save.")
    if torch_pickle.read(stream)[0] != _PROTOCOL:
        raise InputError(f"expected protocol {_PROTOCOL} of torch.save.")
    torch_pickle.read(stream)  # sizes of C types where it was saved; the storages are little-endian
    saved, storages = torch_pickle.read(stream)
    tensors = _state_dict(saved)
    keys = sequence(torch_pickle.read(stream)[0])
    contents: dict[str, bytes] = {}
    for key in keys:
        storage = storages.get(key) if isinstance(key, str) else None
        if storage is None or key in contents:
            raise InputError("its list of storages is not that of its tensors.")
        count = int.from_bytes(_exactly(stream, 8), "little")
        if count != storage.count:
            raise InputError(f"expected {storage.count} values in a storage, found {count}.")
        contents[key] = _exactly(stream, count * _item_bytes(storage))

    def load(storage: Storage) -> np.ndarray:
        if storage.key not in contents:
            raise InputError(f"expected a storage {quoted(storage.key)}, found none.")
        return _values(contents[storage.key], storage, order="<")

    return _arrays(tensors, load, max_bytes=max_bytes)


def _arrays(
    tensors: Mapping[str, Tensor], load: Callable[[Storage], np.ndarray], *, max_bytes: int
) -> dict[str, np.ndarray]:
    # Tensors share storages, and storages have parts that no tensor has.
    storages = {t.storage.key: t.storage for t in tensors.values()}
    declared = sum(math.prod(t.size) * _item_bytes(t.storage) for t in tensors.values())
    declared = max(declared, sum(s.count * _item_bytes(s) for s in storages.values()))
    if declared > max_bytes:
        raise InputError(f"its tensors declare {declared} bytes, more than any weights have.")
    values = {key: load(storage) for key, storage in storages.items()}
    return {name: _view(values[tensor.storage.key], tensor) for name, tensor in tensors.items()}


def _exactly(stream: io.BytesIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise InputError(f"expected {count} more bytes, found {len(data)}: it was cut off.")
    return data


def _item_bytes(storage: Storage) -> int:
    return np.dtype(DTYPES[storage.kind]).itemsize


def _values(data: bytes, storage: Storage, *, order: str) -> np.ndarray:
    expected = storage.count * _item_bytes(storage)
    if len(data) != expected:
        raise InputError(f"expected {expected} bytes in a storage, found {len(data)}.")
    dtype = np.dtype(order + DTYPES[storage.kind])
    values = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="), copy=False)
    if storage.kind == "BFloat16Storage":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


def _view(values: np.ndarray, tensor: Tensor) -> np.ndarray:
    steps = [step * values.itemsize for step in tensor.stride]
    return np.lib.stride_tricks.as_strided(
        values[tensor.offset :], tensor.size, steps, writeable=False
    )


def _state_dict(saved: object) -> dict[str, Tensor]:
    """Finds the tensors in a checkpoint."""
    key = ""
    if isinstance(saved, dict):
        key = next((name for name in KEYS if isinstance(saved.get(name), dict)), "")
        saved = saved[key] if key else saved
    if not isinstance(saved, dict):
        raise InputError(f"expected a state dict, found {kind_of(saved)}; {ADVICE}.")
    where = f" in {key!r}" if key else ""
    for name, value in saved.items():
        if not isinstance(name, str) or not name.isprintable() or len(name) > 500:
            raise InputError(f"expected names of tensors{where}, found {quoted(name)}.")
        if not isinstance(value, Tensor):
            raise InputError(
                f"expected tensors{where}, or a state dict under one of {', '.join(KEYS)}; "
                f"found {kind_of(value)} as {quoted(name)}; {ADVICE}."
            )
    return saved
