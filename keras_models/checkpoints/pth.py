"""State dicts that PyTorch saved, read without PyTorch and without running their pickle.

A .pth file is a pickle, that is a program: whoever loads it lets it call any function.  Even an
Unpickler with an allow-list calls what the list allows, and lets the file set attributes of the
results.  Here the opcodes are read one by one into numbers, texts, lists, tuples and dicts; a
function is only a name that stands for "a tensor" or the like, and nothing can be called at all.

Two layouts: a zip archive since PyTorch 1.6, before that pickles followed by the raw storages.
"""

import io
import math
import pickletools
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_models.errors import InputError

# Where training scripts put the weights.  Averaged ones come first: they are those evaluated.
PARTS = ("state_dict_ema", "model_ema", "state_dict", "model")
WRAPPERS = ("module.", "_orig_mod.")  # of DataParallel and AveragedModel; of torch.compile
ADVICE = "save the network's weights alone, with torch.save(model.state_dict(), path)"

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_MAX_OPCODES = 2_000_000  # a state dict has about 40 a tensor
_MAX_RANK = 8
_ORDERS = {b"little": "<", b"big": ">"}

_DTYPES = {
    "BFloat16Storage": "u2",  # the upper half of a float32
    "BoolStorage": "?",
    "ByteStorage": "u1",
    "CharStorage": "i1",
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "IntStorage": "i4",
    "LongStorage": "i8",
    "ShortStorage": "i2",
}


@dataclass(frozen=True)
class _Storage:
    """The values of one or more tensors; `kind` is one of _DTYPES."""

    key: str
    kind: str
    count: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _OrderedDict(dict):
    """Apart from dict, as only this one may be followed by a state (PyTorch's _metadata)."""


class _Other:
    """An object around the weights that nobody asks for, as a Namespace of arguments."""


def read(path: Path, *, max_bytes: int) -> dict[str, np.ndarray]:
    """Reads the tensors of a state dict; `max_bytes` limits the file and all tensors together."""
    if path.stat().st_size > max_bytes:
        raise InputError(f"its {path.stat().st_size} bytes are more than any weights have.")
    with path.open("rb") as stream:
        if stream.read(4) == b"PK\x03\x04":
            with zipfile.ZipFile(stream) as archive:
                return _read_zip(archive, path.stat().st_size, max_bytes=max_bytes)
        stream.seek(0)
        if stream.read(1) != b"\x80":  # a pickle of protocol 2 or later
            raise InputError(f"it is neither an archive nor a pickle of torch.save; {ADVICE}.")
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
    tensors = _state_dict(_Machine(io.BytesIO(archive.read(pickles[0]))).run())

    def load(storage: _Storage) -> np.ndarray:
        name = f"{folder}data/{storage.key}"
        if name not in names:
            raise InputError(f"expected a member data/{_quoted(storage.key)}, found none.")
        return _values(archive.read(name), storage, order=_ORDERS[order])

    return _arrays(tensors, load, max_bytes=max_bytes)


def _read_legacy(stream: io.BytesIO, *, max_bytes: int) -> dict[str, np.ndarray]:
    if _Machine(stream).run() != _MAGIC:
        raise InputError("it is a pickle, but not of torch.save.")
    if _Machine(stream).run() != _PROTOCOL:
        raise InputError(f"expected protocol {_PROTOCOL} of torch.save.")
    _Machine(stream).run()  # sizes of C types where it was saved; the storages are little-endian
    machine = _Machine(stream)
    tensors = _state_dict(machine.run())
    keys = _sequence(_Machine(stream).run())
    contents: dict[str, bytes] = {}
    for key in keys:
        storage = machine.storages.get(key) if isinstance(key, str) else None
        if storage is None or key in contents:
            raise InputError("its list of storages is not that of its tensors.")
        count = int.from_bytes(_exactly(stream, 8), "little")
        if count != storage.count:
            raise InputError(f"expected {storage.count} values in a storage, found {count}.")
        contents[key] = _exactly(stream, count * _item_bytes(storage))

    def load(storage: _Storage) -> np.ndarray:
        if storage.key not in contents:
            raise InputError(f"expected a storage {_quoted(storage.key)}, found none.")
        return _values(contents[storage.key], storage, order="<")

    return _arrays(tensors, load, max_bytes=max_bytes)


def _arrays(
    tensors: Mapping[str, _Tensor], load: Callable[[_Storage], np.ndarray], *, max_bytes: int
) -> dict[str, np.ndarray]:
    # Tensors share storages, so that the file's size is no limit for all of them together.
    declared = sum(math.prod(t.size) * _item_bytes(t.storage) for t in tensors.values())
    if declared > max_bytes:
        raise InputError(f"its tensors declare {declared} bytes, more than any weights have.")
    storages = {t.storage.key: t.storage for t in tensors.values()}
    values = {key: load(storage) for key, storage in storages.items()}
    return {name: _view(values[tensor.storage.key], tensor) for name, tensor in tensors.items()}


def _exactly(stream: io.BytesIO, count: int) -> bytes:
    found = stream.read(count)
    if len(found) < count:
        raise InputError(f"expected {count} more bytes, found {len(found)}: it was cut off.")
    return found


def _item_bytes(storage: _Storage) -> int:
    return np.dtype(_DTYPES[storage.kind]).itemsize


def _values(data: bytes, storage: _Storage, *, order: str) -> np.ndarray:
    expected = storage.count * _item_bytes(storage)
    if len(data) != expected:
        raise InputError(f"expected {expected} bytes in a storage, found {len(data)}.")
    dtype = np.dtype(order + _DTYPES[storage.kind])
    values = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="), copy=False)
    if storage.kind == "BFloat16Storage":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


def _view(values: np.ndarray, tensor: _Tensor) -> np.ndarray:
    steps = [step * values.itemsize for step in tensor.stride]
    return np.lib.stride_tricks.as_strided(
        values[tensor.offset :], tensor.size, steps, writeable=False
    )


def _state_dict(saved: object) -> dict[str, _Tensor]:
    """Finds the tensors among what else was saved; removes what wrapped the network."""
    part = ""
    if isinstance(saved, dict):
        part = next((name for name in PARTS if isinstance(saved.get(name), dict)), "")
        saved = saved[part] if part else saved
    if not isinstance(saved, dict):
        raise InputError(f"expected a state dict, found {_kind(saved)}; {ADVICE}.")
    where = f" in {part!r}" if part else ""
    for name, value in saved.items():
        if not isinstance(name, str) or not name.isprintable() or len(name) > 500:
            raise InputError(f"expected names of tensors{where}, found {_quoted(name)}.")
        if not isinstance(value, _Tensor):
            raise InputError(
                f"expected tensors{where}, or a state dict under one of {', '.join(PARTS)}; "
                f"found {_kind(value)} as {_quoted(name)}; {ADVICE}."
            )
    tensors = {name: value for name, value in saved.items() if name != "n_averaged"}
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


# What a pickle may name, and what we make of the arguments that it would be called with.


def _ordered_dict(pairs: object = ()) -> _OrderedDict:
    made = _OrderedDict()
    for pair in _sequence(pairs):
        key, value = _sequence(pair)
        _put(made, key, value)
    return made


def _tensor(
    storage: object, offset: object, size: object, stride: object, *ignored: object
) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise InputError("one of its tensors has no storage.")
    start, sizes, steps = _natural(offset), _naturals(size), _naturals(stride)
    if len(sizes) != len(steps) or len(sizes) > _MAX_RANK:
        raise InputError(f"a tensor has {len(sizes)} sizes and {len(steps)} strides.")
    last = start + sum((n - 1) * step for n, step in zip(sizes, steps, strict=True))
    if 0 in sizes:
        last = start - 1
    # More values than the storage has: a stride of 0, with which a few bytes fill any memory.
    if last >= storage.count or math.prod(sizes) > storage.count:
        raise InputError(f"a tensor reaches beyond the {storage.count} values of its storage.")
    return _Tensor(storage, start, sizes, steps)


def _parameter(data: object, *ignored: object) -> _Tensor:
    if not isinstance(data, _Tensor):
        raise InputError("one of its parameters has no tensor.")
    return data


def _other(*ignored: object) -> _Other:
    return _Other()


_NAMES: Mapping[str, Callable[..., object]] = {
    "collections OrderedDict": _ordered_dict,
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": _parameter,
    # Beside the weights in checkpoints of training scripts.
    "argparse Namespace": _other,
    "collections Counter": _other,
    "numpy dtype": _other,
    "numpy.core.multiarray scalar": _other,
    "numpy._core.multiarray scalar": _other,
    "_codecs encode": _other,  # the bytes of such a scalar
    "torch Size": _other,
    "torch device": _other,
}


@dataclass(frozen=True)
class _Name:
    """The name of a function or class; `make` stands for calling it."""

    make: Callable[..., object]


@dataclass(frozen=True)
class _StorageType:
    kind: str


def _natural(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise InputError(f"expected a size, offset or stride, found {_kind(value)} out of range.")
    return value


def _naturals(value: object) -> tuple[int, ...]:
    return tuple(_natural(item) for item in _sequence(value))


def _sequence(value: object) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise InputError(f"expected a list or tuple, found {_kind(value)}.")
    return value


def _put(target: object, key: object, value: object) -> None:
    # A key is hashed: tuples of tuples that the memo repeats would take exponential time.
    if not isinstance(target, dict) or not (
        isinstance(key, str) or (isinstance(key, int) and abs(key) < 1 << 63)
    ):
        raise InputError(f"expected a dict with texts as keys, found {_kind(key)}.")
    target[key] = value


class _Machine:
    """Reads one pickle of `stream`; `storages` are those that it mentions."""

    def __init__(self, stream: io.BytesIO) -> None:
        self.storages: dict[str, _Storage] = {}
        self._opcodes = _opcodes(stream)
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []  # the stacks below each mark
        self._memo: dict[int, Any] = {}
        self._work = 0

    def run(self) -> object:
        """Returns what the pickle stands for."""
        for name, argument in self._opcodes:
            if name == "STOP":
                break
            if name in _PUSHES:
                self._stack.append(argument)
            elif name in _ACTIONS:
                _ACTIONS[name](self, argument)
            else:
                raise InputError(f"it uses the opcode {name}, which weights have no need of.")
        if len(self._stack) != 1 or self._outer:
            raise InputError("its pickle does not end with one object.")
        return self._stack[0]

    def _pop(self) -> Any:
        if not self._stack:
            raise InputError("its pickle takes more objects than it has.")
        return self._stack.pop()

    def _top(self) -> Any:
        if not self._stack:
            raise InputError("its pickle takes more objects than it has.")
        return self._stack[-1]

    def mark(self, _: object) -> None:
        self._outer.append(self._stack)
        self._stack = []

    def _to_mark(self) -> list[Any]:
        if not self._outer:
            raise InputError("its pickle takes more objects than it has.")
        items, self._stack = self._stack, self._outer.pop()
        return items

    def constant(self, make: Callable[[], object]) -> None:
        self._stack.append(make())

    def tuple_of(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self._stack.append(tuple(reversed(items)))

    def tuple_to_mark(self, _: object) -> None:
        items = self._to_mark()
        self._stack.append(tuple(items))

    def append(self, _: object) -> None:
        item = self._pop()
        self._extend([item])

    def appends(self, _: object) -> None:
        self._extend(self._to_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, list):
            raise InputError(f"its pickle appends to {_kind(target)}.")
        target.extend(items)

    def set_item(self, _: object) -> None:
        value, key = self._pop(), self._pop()
        _put(self._top(), key, value)

    def set_items(self, _: object) -> None:
        items = self._to_mark()
        if len(items) % 2:
            raise InputError("its pickle has a key without a value.")
        target = self._top()
        for key, value in zip(items[::2], items[1::2], strict=True):
            _put(target, key, value)

    def memoize(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._top()

    def get(self, index: int) -> None:
        if index not in self._memo:
            raise InputError("its pickle recalls what it has not stored.")
        self._stack.append(self._memo[index])

    def name(self, name: str) -> None:
        module, _, attribute = name.partition(" ")
        if module == "torch" and attribute in _DTYPES:
            self._stack.append(_StorageType(attribute))
        elif name in _NAMES:
            self._stack.append(_Name(_NAMES[name]))
        else:
            raise InputError(f"it names {_quoted(name)}, which is no part of weights; {ADVICE}.")

    def name_on_stack(self, _: object) -> None:
        attribute, module = self._pop(), self._pop()
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise InputError("its pickle names something without a text.")
        self.name(f"{module} {attribute}")

    def call(self, _: object) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise InputError(f"its pickle calls {_kind(function)}; {ADVICE}.")
        # Arguments that the memo repeats cost nothing in the file, but time here.
        sequences = [argument for argument in arguments if isinstance(argument, (list, tuple))]
        self._work += len(arguments) + sum(len(sequence) for sequence in sequences)
        if self._work > _MAX_OPCODES:
            raise InputError(f"its pickle takes more than {_MAX_OPCODES} steps.")
        self._stack.append(function.make(*arguments))

    def set_state(self, _: object) -> None:
        self._pop()
        target = self._top()
        if not isinstance(target, (_OrderedDict, _Other)):
            raise InputError(f"its pickle sets attributes of {_kind(target)}; {ADVICE}.")

    def storage(self, _: object) -> None:
        identity = self._pop()
        if not isinstance(identity, tuple) or len(identity) not in (5, 6):
            raise InputError("one of its storages is not described as PyTorch does.")
        word, kind, key, _device, count, *view = identity
        if word != "storage" or not isinstance(kind, _StorageType) or not isinstance(key, str):
            raise InputError("one of its storages is not described as PyTorch does.")
        if view not in ([], [None]):
            raise InputError(f"its storages are views, as before PyTorch 0.4; {ADVICE}.")
        made = _Storage(key, kind.kind, _natural(count))
        if self.storages.setdefault(key, made) != made:
            raise InputError("it describes one of its storages in two ways.")
        self._stack.append(made)


_PUSHES = {
    "BINFLOAT", "BININT", "BININT1", "BININT2", "LONG1", "LONG4",
    "BINSTRING", "SHORT_BINSTRING",  # written by Python 2
    "BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE",
}  # fmt: skip
_ACTIONS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "NONE": lambda machine, _: machine.constant(lambda: None),
    "NEWTRUE": lambda machine, _: machine.constant(lambda: True),
    "NEWFALSE": lambda machine, _: machine.constant(lambda: False),
    "EMPTY_DICT": lambda machine, _: machine.constant(dict),
    "EMPTY_LIST": lambda machine, _: machine.constant(list),
    "EMPTY_TUPLE": lambda machine, _: machine.constant(tuple),
    "MARK": _Machine.mark,
    "TUPLE": _Machine.tuple_to_mark,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "BINPUT": _Machine.memoize,
    "LONG_BINPUT": _Machine.memoize,
    "MEMOIZE": _Machine.memoize,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name_on_stack,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "BUILD": _Machine.set_state,
    "BINPERSID": _Machine.storage,
}


def _opcodes(stream: io.BytesIO) -> Iterator[tuple[str, Any]]:
    opcodes = enumerate(pickletools.genops(stream))
    while True:
        try:
            count, (opcode, argument, _) = next(opcodes)
        except ValueError as error:  # which quotes the file at any length
            raise ValueError("its pickle is damaged") from error
        if count > _MAX_OPCODES:
            raise InputError(f"its pickle takes more than {_MAX_OPCODES} steps.")
        yield opcode.name, argument


def _kind(value: object) -> str:
    kinds = {_Tensor: "tensor", _Storage: "storage", _Name: "function", _Other: "object"}
    return kinds.get(type(value), type(value).__name__)


def _quoted(value: object) -> str:
    """Shows a text of the file on one line; only the kind of anything else, which may be huge."""
    return ascii(value[:100]) if isinstance(value, str) else _kind(value)
