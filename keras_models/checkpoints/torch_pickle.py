"""The pickle of a PyTorch state dict, read opcode by opcode: nothing in it can be called.

A pickle is a program: whoever loads it lets it call any function.  Even an Unpickler with an
allow-list calls what the list allows, and lets the file set attributes of the results.  Here the
opcodes are read one by one into numbers, texts, lists, tuples and dicts; a function is only a name
that stands for "a tensor" or the like.
"""

import io
import math
import pickletools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shufflelite.errors import InputError

ADVICE = "save the network's weights alone, with torch.save(model.state_dict(), path)"
_MAX_OPCODES = 2_000_000  # a state dict has about 40 a tensor
_MAX_RANK = 8

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


class _OrderedDict(dict):
    """Apart from dict, as only this one may be followed by a state (PyTorch's _metadata)."""


class _Other:
    """An object around the weights that nobody asks for, as a Namespace of arguments."""


def read(stream: io.BytesIO) -> tuple[object, Mapping[str, Storage]]:
    """Reads one pickle.

    Returns:
      What it stands for, and all storages that it mentions, by their keys.

    Raises:
      InputError, ValueError: it is damaged, or holds what weights have no need of.
    """
    machine = _Machine(stream)
    return machine.run(), machine.storages


# What a pickle may name, and what we make of the arguments that it would be called with.


def _ordered_dict(pairs: object = ()) -> _OrderedDict:
    made = _OrderedDict()
    for pair in sequence(pairs):
        key, value = sequence(pair)
        _put(made, key, value)
    return made


def _tensor(
    storage: object, offset: object, size: object, stride: object, *ignored: object
) -> Tensor:
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
        raise InputError(f"expected a size, offset or stride, found {kind_of(value)} out of range.")
    return value


def _naturals(value: object) -> tuple[int, ...]:
    return tuple(_natural(item) for item in sequence(value))


def sequence(value: object) -> list[Any] | tuple[Any, ...]:
    """The value; raises InputError where it is no list or tuple."""
    if not isinstance(value, (list, tuple)):
        raise InputError(f"expected a list or tuple, found {kind_of(value)}.")
    return value


def _put(target: object, key: object, value: object) -> None:
    # A key is hashed: tuples of tuples that the memo repeats would take exponential time.
    if not isinstance(target, dict) or not (
        isinstance(key, str) or (isinstance(key, int) and abs(key) < 1 << 63)
    ):
        raise InputError(f"expected a dict with texts as keys, found {kind_of(key)}.")
    target[key] = value


class _Machine:
    """Reads one pickle of `stream`; `storages` are those that it mentions."""

    def __init__(self, stream: io.BytesIO) -> None:
        self.storages: dict[str, Storage] = {}
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
            raise InputError(f"its pickle appends to {kind_of(target)}.")
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
        if module == "torch" and attribute in DTYPES:
            self._stack.append(_StorageType(attribute))
        elif name in _NAMES:
            self._stack.append(_Name(_NAMES[name]))
        else:
            raise InputError(f"it names {quoted(name)}, which is no part of weights; {ADVICE}.")

    def name_on_stack(self, _: object) -> None:
        attribute, module = self._pop(), self._pop()
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise InputError("its pickle names something without a text.")
        self.name(f"{module} {attribute}")

    def call(self, _: object) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise InputError(f"its pickle calls {kind_of(function)}; {ADVICE}.")
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
            raise InputError(f"its pickle sets attributes of {kind_of(target)}; {ADVICE}.")

    def storage(self, _: object) -> None:
        identity = self._pop()
        if not isinstance(identity, tuple) or len(identity) not in (5, 6):
            raise InputError("one of its storages is not described as PyTorch does.")
        word, kind, key, _device, count, *view = identity
        if word != "storage" or not isinstance(kind, _StorageType) or not isinstance(key, str):
            raise InputError("one of its storages is not described as PyTorch does.")
        if view not in ([], [None]):
            raise InputError(f"its storages are views, as before PyTorch 0.4; {ADVICE}.")
        made = Storage(key, kind.kind, _natural(count))
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


def kind_of(value: object) -> str:
    """What a value is, for messages."""
    kinds = {Tensor: "tensor", Storage: "storage", _Name: "function", _Other: "object"}
    return kinds.get(type(value), type(value).__name__)


def quoted(value: object) -> str:
    """Shows a text of the file on one line; only the kind of anything else, which may be huge."""
    return ascii(value[:100]) if isinstance(value, str) else kind_of(value)
