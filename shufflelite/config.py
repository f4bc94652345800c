"""Settings: TOML, flags, JSON and Python values become frozen dataclasses through ONE type checker.

A table is a frozen dataclass. Its fields are str, int, float, bool, Literal, Enum, a tuple or
Sequence of these, `Mapping[str, X]`, another dataclass (a table) or a tuple of dataclasses (an
array of tables); `X | None` and other unions of all of them. A field made by `setting` also has a
range, and a flag with its help.
"""

import contextlib
import dataclasses
import difflib
import enum
import functools
import json
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from shufflelite import limited
from shufflelite.display import one_line
from shufflelite.errors import FlagError, InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_JSON = 8 << 20  # bytes of a text: objects in memory take thirty times as many
T = TypeVar("T")
Keys = tuple[str, ...]
_UNIONS = (types.UnionType, typing.Union)
_KINDS = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}
_TABLES = "an array of tables"


@dataclass(frozen=True)
class Setting:
    """What `setting` keeps beside a field: its range, its flag, and the flag's help."""

    help: str = ""  # of its flag; "": it has none
    flag: str | None = None  # name of the flag; None: the field's
    topic: str | None = None  # heading in --help; None: `TOPIC` of the dataclass
    value_name: str | None = None  # in --help; None: from the type
    short: tuple[str, Any] | None = None  # a flag without value, and the value it stands for
    choices: tuple[str, ...] = ()  # values that the flag takes, where the type has no list of them
    repeats: bool = False  # the flag may be given several times, with one value each
    option_flags: type | None = None  # of a mapping: a dataclass whose flags set keys of it
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def allows(self, number: float) -> bool:
        """Whether the number is in the range."""
        return (
            (self.least is None or number >= self.least)
            and (self.most is None or number <= self.most)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )

    @property
    def range(self) -> str:
        """The range in words."""
        if self.least is not None and self.most is not None:
            return f"{self.least} to {self.most}"
        bounds = {
            "at least": self.least,
            "above": self.above,
            "at most": self.most,
            "below": self.below,
        }
        return " and ".join(
            f"{words} {bound}" for words, bound in bounds.items() if bound is not None
        )


def setting(
    default: Any = dataclasses.MISSING,
    *,
    default_factory: Any = dataclasses.MISSING,
    **options: Any,
) -> Any:
    """A dataclass field with a range or a flag; `options` are the fields of `Setting`."""
    return dataclasses.field(
        default=default,
        default_factory=default_factory,
        metadata={"setting": Setting(**options)},
    )


def setting_of(field: "dataclasses.Field[Any]") -> Setting:
    """The field's range and flag; neither where `setting` did not make it."""
    return field.metadata.get("setting", Setting())


class Bounded:
    """Base of dataclasses whose numbers are checked against the ranges of their fields."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if type(value) in (int, float) and not setting_of(field).allows(value):
                raise ValueError(
                    f"expected {field.name!r} to be {setting_of(field).range}, got {value}."
                )


def load(path: str | Path, schema: type[T], overrides: Sequence[str] = (), **given: Any) -> T:
    """Reads a TOML file as a `schema`; see `build`."""
    try:
        mapping = tomllib.loads(limited.read_text(Path(path)))
    except OSError as error:
        raise InputError(f"{path}: expected a TOML file ({error.strerror}).") from error
    except InputError:
        raise
    except (ValueError, RecursionError) as error:  # ValueError: also of numbers of any length
        raise InputError(f"{path}: not valid TOML: {one_line(error)}.") from error
    return build(mapping, schema, overrides, origin=str(path), **given)


def build(
    mapping: Mapping[str, Any],
    schema: type[T],
    overrides: Sequence[str] = (),
    *,
    origin: str = "experiment",
    flags: Mapping[str, tuple[Keys, Any]] = types.MappingProxyType({}),
) -> T:
    """Turns `mapping` into a `schema`.

    Args:
      mapping: Tables as nested mappings.
      schema: A dataclass.
      overrides: "section.key=value" each, which replace values of `mapping`.
      origin: What errors name; "" where there are flags only.
      flags: Flag -> keys of the setting, and its value: these replace values of both.

    Raises:
      InputError: an unknown key, a wrong type or a number out of its range. The message names
        `origin`, or the override that is wrong.
      FlagError: the same, of a value in `flags`.
    """
    setters: dict[Keys, str] = {}
    for override in overrides:
        keys, value = parse_override(override)
        mapping = _replace(mapping, keys, value)
        setters[keys] = f"--set {override}"
    for flag, (keys, value) in flags.items():
        mapping = _replace(mapping, keys, value)
        setters[keys] = f"--{flag}"
    return _build(mapping, schema, _Place(origin, setters))


def parse_json(text: str | bytes) -> dict[str, Any]:
    """Reads a JSON object of a foreign file; its values are of any type until `build` checks them.

    Raises:
      InputError: not JSON, too long, nested too deeply, or no object.
    """
    if len(text) > MAX_JSON:
        raise InputError(f"expected at most {MAX_JSON} bytes of JSON, got {len(text)}.")
    try:
        value = json.loads(text, parse_int=_integer)
    except (ValueError, RecursionError) as error:  # ValueError: also of numbers of any length
        raise InputError(f"not valid JSON: {one_line(error)}.") from error
    if not isinstance(value, dict):
        raise InputError(f"expected a JSON object, got {value!r:.100}.")
    return value


def _integer(digits: str) -> int:
    value = int(digits)
    if abs(value) >= 1 << 63:
        raise ValueError(f"an integer of {len(digits)} digits")
    return value


def read_json(path: Path) -> dict[str, Any]:
    """Reads a file as `parse_json` does; also raises OSError."""
    with path.open("rb") as stream:
        return parse_json(stream.read(MAX_JSON + 1))


def convert(value: Any, kind: Any, key: str, *, origin: str) -> Any:
    """Returns `value` as the annotation `kind`; integers become floats where `kind` is float.

    Raises:
      InputError: the value is of another type; the message names `origin` and `key`.
    """
    return _convert(value, kind, _Place(origin, {}, (key,)))


def to_dict(config: Any) -> dict[str, Any]:
    """Returns `config` as plain dicts, lists and scalars, which `build` reads back."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value.value if isinstance(value, enum.Enum) else value


def parse_override(override: str, *, flag: str = "set") -> tuple[Keys, Any]:
    """Reads "section.key=value" as its keys and its value: TOML's, or else a bare string."""
    name, equals, text = override.partition("=")
    keys = tuple(key.strip() for key in name.split("."))
    if not equals or not all(keys):
        syntax = "section.key=value" if flag == "set" else "NAME=VALUE"
        raise InputError(f"--{flag} {override}: expected {syntax}.")
    try:
        return keys, tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return keys, text.strip()


def _replace(mapping: Mapping[str, Any], keys: Keys, value: Any) -> dict[str, Any]:
    first, *rest = keys
    if rest:
        table = mapping.get(first)
        value = _replace(table if isinstance(table, Mapping) else {}, tuple(rest), value)
    return {**mapping, first: value}


@dataclass(frozen=True)
class _Place:
    """Where a value stands: its keys in `origin`, some of which flags and overrides set."""

    origin: str
    setters: Mapping[Keys, str]
    path: Keys = ()

    def at(self, key: str) -> "_Place":
        return dataclasses.replace(self, path=(*self.path, key))

    def expected(self, kind: str, value: Any) -> InputError:
        kind = f"{kind}: [[{self.path[-1]}]]" if kind == _TABLES else kind
        return self.error(f"expected {self.path[-1]!r} to be {kind}, got {value!r:.100}.")

    def error(self, message: str) -> InputError:
        """An error about this key; it names who set the key, else the table."""
        for keys, setter in self.setters.items():
            length = min(len(keys), len(self.path))
            if keys[:length] == self.path[:length]:
                return _set_by(setter, repr(self.path[-1]), message)
        return InputError(self._table(self.path[:-1]) + message)

    def error_of_table(self, message: str) -> InputError:
        """An error about this table; it names the setter of the key that `message` quotes."""
        for keys, setter in self.setters.items():
            name = repr(".".join(keys[len(self.path) :]))
            if keys[: len(self.path)] == self.path and name in message:
                return _set_by(setter, name, message)
        return InputError(self._table(self.path) + message)

    def _table(self, path: Keys) -> str:
        table = f"{self.origin} [{'.'.join(path)}]" if path else self.origin
        return f"{table.strip()}: " if table else ""


def _set_by(setter: str, name: str, message: str) -> InputError:
    if setter.startswith("--set "):
        return InputError(f"{setter}: {message}")
    message = message.replace(name, setter, 1)
    return FlagError(message[0].upper() + message[1:])


@functools.cache
def hints(schema: type) -> Mapping[str, Any]:
    """The annotations of a dataclass's fields."""
    return typing.get_type_hints(schema)


def _build(mapping: Mapping[str, Any], schema: Any, place: _Place) -> Any:
    fields = {field.name: field for field in dataclasses.fields(schema)}
    kinds = hints(schema)
    values = {}
    for key, value in mapping.items():
        if key not in fields:
            close = difflib.get_close_matches(key, fields, n=1)
            known = one_line(", ".join(fields))
            hint = f"Did you mean {close[0]!r}?" if close else f"Known keys: {known}."
            raise place.at(key).error(f"unknown key {key!r:.100}. {hint}")
        values[key] = _convert(value, kinds[key], place.at(key))
    for field in fields.values():
        if field.name not in values and field.default is field.default_factory:
            if not dataclasses.is_dataclass(kinds[field.name]):
                raise place.error_of_table(f"missing key {field.name!r}.")
            values[field.name] = _build({}, kinds[field.name], place.at(field.name))
    try:
        return schema(**values)
    except ValueError as error:  # from the dataclass's own __post_init__
        raise place.error_of_table(str(error)) from error


def _convert(value: Any, kind: Any, place: _Place) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in _UNIONS:
        others = [arg for arg in args if arg is not type(None)]
        for arg in others:
            if arg is type(value) or (len(others) == 1 and value is not None):
                return _convert(value, arg, place)
        for arg in args:
            with contextlib.suppress(InputError):
                return _convert(value, arg, place)
    elif dataclasses.is_dataclass(kind):
        if isinstance(value, Mapping):
            return _build(value, kind, place)
    elif origin is Mapping and isinstance(value, Mapping):
        return {key: _convert(item, args[1], place.at(key)) for key, item in value.items()}
    elif origin in (tuple, Sequence) and isinstance(value, (list, tuple)):
        repeated = origin is Sequence or args[-1] is ...
        each = args[:1] * len(value) if repeated else args
        if dataclasses.is_dataclass(args[0]):
            if all(isinstance(item, Mapping) for item in value):
                table = dataclasses.replace(place, path=place.path[:-1])
                return tuple(
                    _build(item, args[0], table.at(f"{place.path[-1]} {number}"))
                    for number, item in enumerate(value, start=1)
                )
        elif len(each) == len(value):
            return tuple(_convert(v, k, place) for v, k in zip(value, each, strict=True))
    elif origin is Literal or isinstance(kind, enum.EnumMeta):
        for choice in args or kind:
            plain = _plain(choice)
            if value is choice or (type(value) is type(plain) and value == plain):
                return choice
    elif kind is float:
        if type(value) in (int, float) and abs(value) <= sys.float_info.max:
            return float(value)
        if value in (float("inf"), float("-inf")):
            raise place.expected("a finite number", value)
    elif kind is Any or type(value) is kind:  # not isinstance: a bool is an int to Python
        return value
    raise place.expected(_describe(kind), value)


def _describe(kind: Any) -> str:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in _UNIONS:
        described = (_describe(arg) for arg in args if arg is not type(None))
        return " or ".join(dict.fromkeys(described))
    if origin is Mapping:
        return "a table" if args[1] is Any else f"a table of {_describe(args[1])}"
    if dataclasses.is_dataclass(kind):
        return "a table"
    if origin in (tuple, Sequence):
        if dataclasses.is_dataclass(args[0]):
            return _TABLES
        each = args[:1] if origin is Sequence or args[-1] is ... else args
        return f"a list of {', '.join(map(_describe, each))}" + (", ..." if each != args else "")
    if origin is Literal or isinstance(kind, enum.EnumMeta):
        return "one of " + ", ".join(repr(_plain(choice)) for choice in args or kind)
    return _KINDS.get(kind, str(kind))
