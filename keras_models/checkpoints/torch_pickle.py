"""The pickle of a PyTorch state dict, loaded without calling anything that it names.

A pickle is a program: whoever loads it lets it call any function.  Even an allow-list of real
functions lets the file call them and set attributes of the results.  Here each name stands for one
of the functions of this module, which make numbers, texts, lists, tuples, dicts and `Tensor`s, or,
as of hyperparameters beside the weights, objects that do nothing.
"""

import io
import math
import pickle
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from shufflelite.errors import InputError

ADVICE = "save the network's weights alone, with torch.save(model.state_dict(), path)"
_MAX_OPCODES = 2_000_000  # a state dict has about 40 a tensor
_MAX_RANK = 8
_OPCODES = {
    "PROTO", "FRAME", "STOP", "MARK",
    "NONE", "NEWTRUE", "NEWFALSE", "BINFLOAT", "BININT", "BININT1", "BININT2", "LONG1", "LONG4",
    "BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE",
    "BINSTRING", "SHORT_BINSTRING",  # written by Python 2
    "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET",
    "GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID",
}  # fmt: skip

DTYPES = {
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
class Storage:
    """The values of one or more tensors; `kind` is one of DTYPES."""

    key: str
    kind: str
    count: int


@dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides count values."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Dict(dict):
    """A dict that hashes texts and small integers alone.

    The hash of tuples of tuples that the memo repeats takes exponential time.
    """

    def __setitem__(self, key: object, value: object) -> None:
        if not (isinstance(key, str) or (isinstance(key, int) and abs(key) < 1 << 63)):
            raise InputError(f"expected a dict with texts as keys, found {kind_of(key)}.")
        super().__setitem__(key, value)


class _OrderedDict(_Dict):
    """Only this kind of dict may be followed by a state (PyTorch's _metadata)."""


@dataclass(frozen=True)
class _Other:
    """An object beside the weights that is not read, such as hyperparameters of any class."""

    name: str

    def append(self, item: object) -> None:
        """Ignores an item of a kind of list."""

    def __setitem__(self, key: object, value: object) -> None:
        """Ignores an item of a kind of dict."""


@dataclass(frozen=True)
class _Function:
    """What the name of a function or class stands for; a call of it is a call of `make`."""

    make: Callable[..., object]


@dataclass(frozen=True)
class _StorageType:
    kind: str


def read(stream: io.BytesIO) -> tuple[object, Mapping[str, Storage]]:
    """Reads one pickle.

    Returns:
      The object, and all storages that it mentions, by their keys.

    Raises:
      Exception: of any kind; the pickle is damaged, or holds what weights do not need.
    """
    start = stream.tell()
    _check_opcodes(stream)
    stream.seek(start)
    unpickler = _Unpickler(stream)
    return unpickler.load(), unpickler.storages


def _check_opcodes(stream: io.BytesIO) -> None:
    """Refuses opcodes that weights do not need, too many of them, and sizes beyond the file."""
    opcodes = enumerate(pickletools.genops(stream))
    while True:
        try:
            count, (opcode, _, _) = next(opcodes)
        except StopIteration:
            return
        except ValueError as error:  # which quotes the file at any length
            raise ValueError("its pickle is damaged") from error
        if count > _MAX_OPCODES:
            raise _too_long()
        if opcode.name not in _OPCODES:
            raise InputError(f"it uses the opcode {opcode.name}, which weights have no need of.")


def _too_long() -> InputError:
    return InputError(f"its pickle takes more than {_MAX_OPCODES} steps.")


class _Unpickler(pickle._Unpickler):
    """Makes stand-ins alone; `storages` are those that the pickle mentions.

    The base class is the undocumented one in Python, whose opcodes can be replaced: the one in C
    hashes any key and sets attributes of any object, and no method can prevent it.
    """

    stack: list[Any]
    append: Callable[[object], None]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, encoding="latin-1")
        self.storages: dict[str, Storage] = {}
        self._work = 0

    def find_class(self, module: str, name: str) -> object:
        """Returns what the name stands for."""
        if module == "torch" and name in DTYPES:
            return _StorageType(name)
        if module == "torch" and name.endswith("Storage"):
            raise InputError(f"it names {quoted(name)}, whose numbers cannot be read; {ADVICE}.")
        other = _Other(f"{module} {name}")
        return _Function(_FUNCTIONS.get((module, name), lambda *ignored: other))

    def persistent_load(self, pid: object) -> Storage:
        """Returns the storage that PyTorch identifies by a tuple."""
        if not isinstance(pid, tuple) or len(pid) not in (5, 6):
            raise InputError("one of its storages is not described as PyTorch does.")
        word, kind, key, _device, count, *view = pid
        if word != "storage" or not isinstance(kind, _StorageType) or not isinstance(key, str):
            raise InputError("one of its storages is not described as PyTorch does.")
        if view not in ([], [None]):
            raise InputError(f"its storages are views, as before PyTorch 0.4; {ADVICE}.")
        storage = Storage(key, kind.kind, _natural(count))
        if self.storages.setdefault(key, storage) != storage:
            raise InputError("it describes one of its storages in two ways.")
        return storage

    def _empty_dict(self) -> None:
        self.append(_Dict())

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Function) or not isinstance(arguments, tuple):
            raise InputError(f"its pickle calls {kind_of(function)}; {ADVICE}.")
        # Arguments that the memo repeats cost nothing in the file, but time here.
        sequences = [argument for argument in arguments if isinstance(argument, (list, tuple))]
        self._work += len(arguments) + sum(len(sequence) for sequence in sequences)
        if self._work > _MAX_OPCODES:
            raise _too_long()
        self.append(function.make(*arguments))

    def _set_state(self) -> None:
        self.stack.pop()
        if not isinstance(self.stack[-1], (_OrderedDict, _Other)):
            raise InputError(f"its pickle sets attributes of {kind_of(self.stack[-1])}; {ADVICE}.")

    dispatch[pickle.EMPTY_DICT[0]] = _empty_dict
    dispatch[pickle.REDUCE[0]] = _call
    dispatch[pickle.NEWOBJ[0]] = _call
    dispatch[pickle.BUILD[0]] = _set_state


def _ordered_dict(pairs: object = ()) -> _OrderedDict:
    ordered = _OrderedDict()
    for pair in sequence(pairs):
        key, value = sequence(pair)
        ordered[key] = value
    return ordered


def _tensor(
    storage: object, offset: object, size: object, stride: object, *ignored: object
) -> Tensor:
    if any(isinstance(value, _Other) for value in ignored):
        raise InputError(f"one of its tensors has hooks; {ADVICE}.")
    if not isinstance(storage, Storage):
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
    return Tensor(storage, start, sizes, steps)


def _parameter(data: object, *ignored: object) -> Tensor:
    if not isinstance(data, Tensor):
        raise InputError("one of its parameters has no tensor.")
    return data


_FUNCTIONS: Mapping[tuple[str, str], Callable[..., object]] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}


def _natural(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise InputError(f"expected a size, offset or stride, found {kind_of(value)} out of range.")
    return value


def _naturals(value: object) -> tuple[int, ...]:
    return tuple(_natural(item) for item in sequence(value))


def sequence(value: object) -> list[Any] | tuple[Any, ...]:
    """Returns the value; raises InputError if it is not a list or tuple."""
    if not isinstance(value, (list, tuple)):
        raise InputError(f"expected a list or tuple, found {kind_of(value)}.")
    return value


def kind_of(value: object) -> str:
    """The kind of a value, for messages."""
    kinds = {
        Tensor: "tensor",
        Storage: "storage",
        _Dict: "dict",
        _OrderedDict: "dict",
        _Function: "function",
    }
    if isinstance(value, _Other):
        return f"object of {quoted(value.name)}"
    return kinds.get(type(value), type(value).__name__)


def quoted(value: object) -> str:
    """Shows a text of the file on one line; only the kind of anything else, which may be huge."""
    return ascii(value[:100]) if isinstance(value, str) else kind_of(value)
