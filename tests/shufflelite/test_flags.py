"""--help, and what the words of a command line say again."""

import enum
from dataclasses import dataclass, field
from typing import Literal

import pytest

from shufflelite import flags
from shufflelite.config import setting
from tests.test_settings_property import COMMANDS


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


@dataclass(frozen=True)
class Inner:
    TOPIC = "network"

    size: Size = setting(Size.SMALL, short=("large", Size.LARGE), help="How large.")
    depth: int | None = setting(None, least=1, help="How deep. Default: the paper's.")


@dataclass(frozen=True)
class Command:
    """Its tables come after its own flags, and topics in the order of all commands."""

    TOPIC = "output"

    out: str = setting("build", value_name="FOLDER", help="Where." + " More." * 20)
    kind: Literal["a", "b"] | None = setting(None, topic="general", help="Which.")
    fold: bool = setting(True, topic="general", help="Fold batch norms.")
    json: bool = setting(False, topic="general", help="Print JSON.")
    inner: Inner = field(default_factory=Inner)
    hidden: int = 3


HELP = """\
What it does.

network:
  --size small|large          How large. Default: small.
  --large                     Short for --size large.
  --depth N                   How deep. Default: the paper's.

output:
  --out FOLDER                Where. More. More. More. More. More. More. More. More. More. More.
                              More. More. More. More. More. More. More. More. More. More. Default:
                              build.

general:
  --kind a|b                  Which.
  --[no]fold                  Fold batch norms. Default: yes.
  --json                      Print JSON.
"""


def test_help_is_the_docstring_and_the_flags_by_topic_with_defaults() -> None:
    assert flags.help_text("What it does.\n", [Command]) == HELP


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command_has_each_flag_once_in_short_lines(name: str) -> None:
    module = COMMANDS[name]
    text = flags.help_text(module.__doc__, module.SETTINGS)
    assert max(map(len, text.splitlines())) <= 100
    names = [line.split()[0].removeprefix("--[no]") for line in text.splitlines() if "  --" in line]
    shown = [name.removeprefix("--") for name in names if not name.startswith("python")]
    declared = [flag for schema in module.SETTINGS for flag in flags.flags_of(schema)]
    for flag in declared:
        assert shown.count(flag.name) == 1
        assert flag.setting.help.rstrip().endswith((".", "...")), flag.name


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("size", Size.LARGE, ["--large"]),
        ("size", Size.SMALL, ["--size", "small"]),
        ("depth", 3, ["--depth", "3"]),
        ("fold", False, ["--nofold"]),
        ("json", True, ["--json"]),
        ("out", "a b", ["--out", "a b"]),
    ],
)
def test_a_value_is_written_as_the_words_that_set_it(
    name: str, value: object, words: list[str]
) -> None:
    flag = next(flag for flag in flags.flags_of(Command) if flag.name == name)
    assert flags.to_words(flag, value) == words
