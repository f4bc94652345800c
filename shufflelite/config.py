"""Experiments: TOML files read into frozen dataclasses, one nested dataclass per table."""

import contextlib
import dataclasses
import difflib
import enum
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from shufflelite.display import one_line
from shufflelite.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")
_UNIONS = (types.UnionType, typing.Union)
_KINDS = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}


def load(path: str | Path, schema: type[T], overrides: Sequence[str] = ()) -> T:
    """Reads a TOML file as a `schema`; each override is "section.key=value".

    Fields of `schema` are str, int, float, bool, Literal, Enum, tuples of these,
    `Mapping[str, X]`, or again a frozen dataclass: a TOML table; `X | None` of all of them; a
    `tuple` of dataclasses: an array of tables.
    """
    try:
        mapping = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: expected a TOML file ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:  # ValueError: also of numbers of any length
        raise InputError(f"{path}: not valid TOML: {one_line(error)}.") from error
    return build(mapping, schema, overrides, origin=str(path))


def build(
    mapping: Mapping[str, Any],
    schema: type[T],
    overrides: Sequence[str] = (),
    *,
    origin: str = "experiment",
) -> T:
    """Turns `mapping` into a `schema`; errors name `origin`, or the override that is wrong."""
    places: dict[tuple[str, ...], str] = {}
    for override in overrides:
        keys, value = parse_override(override)
        mapping = _replace(mapping, keys, value)
        places[keys] = f"--set {override}"
    return _build(mapping, schema, (), origin, places)


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


def parse_override(override: str, *, flag: str = "set") -> tuple[tuple[str, ...], Any]:
    """Reads "section.key=value" as its keys and its value: TOML's, or else a bare string."""
    name, equals, text = override.partition("=")
    keys = tuple(key.strip() for key in name.split("."))
    if not equals or not all(keys):
        syntax = "NAME=VALUE" if flag == "option" else "section.key=value"
        raise InputError(f"--{flag} {override}: expected {syntax}.")
    try:
        return keys, tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return keys, text.strip()


def _replace(mapping: Mapping[str, Any], keys: tuple[str, ...], value: Any) -> dict[str, Any]:
    first, *rest = keys
    if rest:
        table = mapping.get(first)
        value = _replace(table if isinstance(table, Mapping) else {}, tuple(rest), value)
    return {**mapping, first: value}


def _build(mapping: Any, schema: Any, path: tuple[str, ...], origin: str, places: Any) -> Any:
    table = f"{origin} [{'.'.join(path)}]" if path else origin
    fields = {field.name: field for field in dataclasses.fields(schema)}
    hints = typing.get_type_hints(schema)
    values = {}
    for key, value in mapping.items():
        here = (*path, key)
        place = next((text for keys, text in places.items() if keys[: len(here)] == here), table)
        if key not in fields:
            close = difflib.get_close_matches(key, fields, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Known keys: {', '.join(fields)}."
            raise InputError(f"{place}: unknown key {key!r:.100}. {hint}")
        if (inner := _table(hints[key])) is not None:
            optional = inner is not hints[key]
            if not isinstance(value, Mapping) and not (optional and value is None):
                raise InputError(f"{place}: expected {key!r} to be a table, got {value!r:.100}.")
            built = None if value is None else _build(value, inner, here, origin, places)
            values[key] = built
        elif (each := _table_of(hints[key])) is not None:
            tables = value if isinstance(value, (list, tuple)) else [None]
            if not all(isinstance(item, Mapping) for item in tables):
                raise InputError(f"{place}: expected {key!r} to be an array of tables: [[{key}]].")
            values[key] = tuple(
                _build(item, each, (*path, f"{key} {number}"), origin, places)
                for number, item in enumerate(tables, start=1)
            )
        else:
            values[key] = _convert(value, hints[key], f"{place}: expected {key!r} to be")
    for field in fields.values():
        required = field.default is field.default_factory is dataclasses.MISSING
        if field.name not in values and required:
            if not dataclasses.is_dataclass(hints[field.name]):
                raise InputError(f"{table}: missing key {field.name!r}.")
            values[field.name] = _build({}, hints[field.name], (*path, field.name), origin, places)
    try:
        return schema(**values)
    except ValueError as error:  # from the dataclass's own __post_init__
        blamed = [
            text
            for keys, text in places.items()
            if keys[:-1] == path and repr(keys[-1]) in str(error)
        ]
        raise InputError(f"{blamed[0] if blamed else table}: {error}") from error


def _table(kind: Any) -> Any:
    """The dataclass of a table, which may be left out; None for any other kind of field."""
    kinds = typing.get_args(kind) if typing.get_origin(kind) in _UNIONS else (kind,)
    return next(filter(dataclasses.is_dataclass, kinds), None)


def _table_of(kind: Any) -> Any:
    """The dataclass of an array of tables; None for any other kind of field."""
    each = next(iter(typing.get_args(kind)), None)
    return each if typing.get_origin(kind) is tuple and dataclasses.is_dataclass(each) else None


def _convert(value: Any, kind: Any, expected: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in _UNIONS:
        for arg in args:
            with contextlib.suppress(InputError):
                return _convert(value, arg, expected)
    elif origin is Mapping and isinstance(value, Mapping):
        return {key: _convert(item, args[1], expected) for key, item in value.items()}
    elif origin is tuple and isinstance(value, (list, tuple)):
        kinds = args[:1] * len(value) if args[-1] is ... else args
        if len(kinds) == len(value):
            return tuple(_convert(v, k, expected) for v, k in zip(value, kinds, strict=True))
    elif origin is Literal or isinstance(kind, enum.EnumMeta):
        for choice in args or kind:
            if type(value) is type(_plain(choice)) and value == _plain(choice):
                return choice
    elif type(value) is kind:  # not isinstance: a bool is an int to Python
        return value
    elif kind is float and type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)
    raise InputError(f"{expected} {_describe(kind)}, got {value!r:.100}.")


def _describe(kind: Any) -> str:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in _UNIONS:
        return " or ".join(_describe(arg) for arg in args if arg is not type(None))
    if origin is Mapping:
        return f"a table of {_describe(args[1])}"
    if origin is tuple:
        each = args[:1] if args[-1] is ... else args
        return f"a list of {', '.join(map(_describe, each))}" + (", ..." if each != args else "")
    if origin is Literal or isinstance(kind, enum.EnumMeta):
        return "one of " + ", ".join(repr(_plain(choice)) for choice in args or kind)
    return _KINDS.get(kind, str(kind))
