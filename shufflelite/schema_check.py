"""Holds what JSON told against the annotations of a dataclass."""

import dataclasses
import functools
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

SHOWN = 4  # of the fields that are missing


def problem(fields: Mapping[str, Any], schema: type, **kinds: Any) -> str | None:
    """What keeps the fields from being those of a dataclass, in a few words; None: nothing.

    Args:
      fields: As JSON had them: dicts, lists and scalars.
      schema: The dataclass.
      kinds: Annotations in place of its own; an annotation may again be a dataclass.
    """
    hints = {**_hints(schema), **kinds}
    missing = [
        field.name
        for field in dataclasses.fields(schema)
        if field.name not in fields and field.default is field.default_factory
    ]
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        return f"lacks {', '.join(missing[:SHOWN])}{more}"
    for name, value in fields.items():
        if name not in hints:
            return f"has an unknown field {name!r:.100}"
        if not fits(value, hints[name]):
            told = repr(value)
            told = told if len(told) <= 40 else f"{told[:40]}..."
            return f"has {told} as {name!r}, no {_describe(hints[name])}"
    return None


def fits(value: Any, kind: Any) -> bool:
    """Whether a value of JSON is what an annotation says; a number is a finite one."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return any(fits(value, arg) for arg in args)
    if origin is Mapping:
        return isinstance(value, dict) and all(fits(item, args[1]) for item in value.values())
    if origin is Sequence:
        return isinstance(value, list) and all(fits(item, args[0]) for item in value)
    if dataclasses.is_dataclass(kind):
        return isinstance(value, dict) and problem(value, typing.cast(type, kind)) is None
    if kind is float:  # not isinstance: a bool is an int to Python
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    return kind is Any or type(value) is kind


@functools.cache
def _hints(schema: type) -> Mapping[str, Any]:
    return typing.get_type_hints(schema)


def _describe(kind: Any) -> str:
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return " or ".join(map(_describe, typing.get_args(kind)))
    if typing.get_origin(kind) is not None:
        return f"{kind}".replace("collections.abc.", "").replace("typing.", "")
    return "null" if kind is type(None) else kind.__name__
