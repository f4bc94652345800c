"""The command line that makes a conversion again."""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from convert.settings import ConversionSettings, Model
from shufflelite import config, flags

OPTIONS = "model.options."


def words(settings: ConversionSettings) -> list[str]:
    """The command that has these settings, except --out."""
    names = {".".join(flag.keys): flag for flag in flags.flags_of(ConversionSettings)}
    defaults = dict(_leaves(config.to_dict(ConversionSettings(Model(settings.model.name)))))
    command = ["python", "-m", "convert", "--model", settings.model.name]
    for name, value in _leaves(config.to_dict(settings)):
        if name in ("model.name", "out") or value == defaults.get(name):
            continue
        if name in names:
            command += flags.to_words(names[name], value)
        elif name.startswith(OPTIONS):
            command += ["--option", f"{name.removeprefix(OPTIONS)}={_toml(value)}"]
        else:
            command += ["--set", f"{name}={_toml(value)}"]
    return command


def line(settings: ConversionSettings) -> str:
    """`words` for a shell."""
    return shlex.join(words(settings))


def _toml(value: bool | float | str | list[str]) -> str:
    # JSON's NaN, and its two escapes for an emoji, are not TOML's
    return str(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _leaves(table: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value
