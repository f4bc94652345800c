"""The flags of a command, generated from the dataclasses of its settings, and --help by topic.

A field that `config.setting` gives a `help` is a flag on the command line. A flag that is not
passed is None, so that a dataclass's own default, or a TOML file's value, holds.
"""

import dataclasses
import enum
import inspect
import shutil
import sys
import textwrap
import typing
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeVar

from absl import app, flags

from shufflelite import config
from shufflelite.config import Keys, Setting

T = TypeVar("T")
TOPICS = (  # in this order in --help
    *("models", "network", "weights", "target", "measurement", "sweep", "lowering"),
    *("quantization", "calibration", "quantization-aware training", "verification", "data"),
    *("preprocessing", "comparison", "output", "general"),
)
NAME_WIDTH = 30  # of the column of flags in --help
MAX_WIDTH = 100
_PLACEHOLDERS = {int: "N", float: "X", str: "TEXT"}


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag and the setting it sets."""

    name: str
    keys: Keys
    kind: Any  # the setting's type, without None
    default: Any
    setting: Setting
    topic: str


def flags_of(schema: Any, keys: Keys = ()) -> Iterator[Flag]:
    """The flags of a dataclass and of the tables in it, in their order."""
    kinds = config.hints(schema)
    for field in dataclasses.fields(schema):
        setting, kind = config.setting_of(field), _without_none(kinds[field.name])
        default = None if field.default is dataclasses.MISSING else field.default
        if setting.help:
            topic = setting.topic or schema.TOPIC
            name = setting.flag or field.name
            yield Flag(name, (*keys, field.name), kind, default, setting, topic)
        elif setting.option_flags:
            yield from flags_of(setting.option_flags, (*keys, field.name))
        elif dataclasses.is_dataclass(kind):
            yield from flags_of(kind, (*keys, field.name))


def define(*schemas: type) -> None:
    """Defines the flags of dataclasses."""
    for schema in schemas:
        for flag in flags_of(schema):
            _define(flag)


def given(schema: type) -> dict[str, tuple[Keys, Any]]:
    """The flags of a dataclass that were passed: flag -> keys of its setting, and the value."""
    passed = {}
    for flag in flags_of(schema):
        value = flags.FLAGS[flag.name].value
        if flag.setting.short:
            short, meaning = flag.setting.short
            if flags.FLAGS[short].value:
                if value not in (None, meaning):
                    raise app.UsageError(f"--{short} contradicts --{flag.name} {_text(value)}")
                value = meaning
        if value is not None:
            passed[flag.name] = flag.keys, tuple(value) if isinstance(value, list) else value
    return passed


def read(schema: type[T]) -> T:
    """Builds a dataclass from its flags alone."""
    return config.build({}, schema, flags=given(schema))


def to_words(flag: Flag, value: Any) -> list[str]:
    """The flag with the value, as words of a command line."""
    if flag.setting.short and value == flag.setting.short[1]:
        return [f"--{flag.setting.short[0]}"]
    if isinstance(value, bool):
        return [f"--{'' if value else 'no'}{flag.name}"]
    if isinstance(value, (list, tuple)):
        return [f"--{flag.name}", ",".join(map(str, value))]
    return [f"--{flag.name}", _text(value)]


def _text(value: Any) -> str:
    return str(value.value if isinstance(value, enum.Enum) else value)


class _Number(flags.ArgumentParser):
    """Reads an int or a float."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind

    def parse(self, argument: str) -> float:
        """The number."""
        try:
            return self.kind(argument)
        except ValueError:
            expected = "a whole number" if self.kind is int else "a number"
            raise ValueError(f"expected {expected}") from None


class _Numbers(flags.ArgumentParser):
    """Reads floats separated by commas."""

    def parse(self, argument: str) -> tuple[float, ...]:
        """The numbers."""
        try:
            return tuple(map(float, argument.split(",")))
        except ValueError:
            raise ValueError("expected numbers, separated by commas") from None


def _define(flag: Flag) -> None:
    name, kind, text = flag.name, flag.kind, flag.setting.help
    if flag.setting.short:
        flags.DEFINE_boolean(flag.setting.short[0], None, f"Short for {_meaning(flag)}.")
    if kind is bool:
        flags.DEFINE_boolean(name, None, text)
    elif kind in (int, float):
        flags.DEFINE(_Number(kind), name, None, text)
    elif isinstance(kind, enum.EnumMeta):
        flags.DEFINE_enum_class(name, None, kind, text)
    elif typing.get_origin(kind) is Literal:
        flags.DEFINE_enum(name, None, list(typing.get_args(kind)), text)
    elif flag.setting.choices:
        flags.DEFINE_enum(name, None, list(flag.setting.choices), text)
    elif flag.setting.repeats:
        flags.DEFINE_multi_string(name, None, text)
    elif typing.get_origin(kind) is tuple and typing.get_args(kind)[0] is float:
        flags.DEFINE(_Numbers(), name, None, text)
    elif typing.get_origin(kind) is tuple:
        flags.DEFINE_list(name, None, text)
    else:
        flags.DEFINE_string(name, None, text)


class Help(app.HelpFlag):
    """--help and --helpshort of a command whose flags come from dataclasses."""

    def __init__(self, name: str, text: str) -> None:
        self.NAME, self.SHORT_NAME = name, "?" if name == "help" else None
        super().__init__()
        self.allow_override = True  # absl has defined it
        self.text = text

    def parse(self, arg: str) -> None:
        """Prints the help and exits."""
        if self._parse(arg):
            print(self.text, end="")
            sys.exit(0)


def define_help(docstring: str, schemas: Sequence[type]) -> None:
    """Replaces absl's --help, which sorts flags by name."""
    text = help_text(docstring, schemas)
    for name in ("help", "helpshort"):
        flags.DEFINE_flag(Help(name, text))


def help_text(docstring: str, schemas: Sequence[type]) -> str:
    """What --help prints: the docstring, then the flags of the dataclasses by topic."""
    topics: dict[str, list[str]] = {topic: [] for topic in TOPICS}
    for schema in schemas:
        for flag in flags_of(schema):
            lines = topics[flag.topic]
            lines.append(_entry(_usage(flag), _help(flag)))
            if flag.setting.short:
                lines.append(_entry(f"--{flag.setting.short[0]}", f"Short for {_meaning(flag)}."))
    blocks = [f"{topic}:\n" + "\n".join(lines) for topic, lines in topics.items() if lines]
    return "\n\n".join([inspect.cleandoc(docstring), *blocks]) + "\n"


def _usage(flag: Flag) -> str:
    setting, kind = flag.setting, flag.kind
    if kind is bool:
        return f"--[no]{flag.name}" if flag.default else f"--{flag.name}"
    if setting.value_name:
        return f"--{flag.name} {setting.value_name}"
    if isinstance(kind, enum.EnumMeta):
        return f"--{flag.name} {'|'.join(map(_text, kind))}"
    if choices := setting.choices or (typing.get_origin(kind) is Literal and typing.get_args(kind)):
        return f"--{flag.name} {'|'.join(choices)}"
    return f"--{flag.name} {_PLACEHOLDERS.get(kind, 'TEXT')}"


def _help(flag: Flag) -> str:
    default = flag.default
    if default is None or default is False or default == ():
        return flag.setting.help
    if isinstance(default, tuple):
        default = ",".join(default)
    return f"{flag.setting.help} Default: {'yes' if default is True else _text(default)}."


def _meaning(flag: Flag) -> str:
    assert flag.setting.short
    return " ".join(to_words(dataclasses.replace(flag, setting=Setting()), flag.setting.short[1]))


def _entry(usage: str, text: str) -> str:
    width = min(MAX_WIDTH, shutil.get_terminal_size().columns if sys.stdout.isatty() else MAX_WIDTH)
    indent = " " * NAME_WIDTH
    lines = textwrap.wrap(
        text,
        max(width, 60),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    usage = f"  {usage}"
    if len(usage) < NAME_WIDTH and lines:
        lines[0] = usage.ljust(NAME_WIDTH) + lines[0].lstrip()
        return "\n".join(lines)
    return "\n".join([usage, *lines])


def _without_none(kind: Any) -> Any:
    kinds = [arg for arg in typing.get_args(kind) if arg is not type(None)]
    is_optional = type(None) in typing.get_args(kind)
    return kinds[0] if is_optional and len(kinds) == 1 else kind
