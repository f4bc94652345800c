"""The flags of `convert` and `keras_models` for arguments of a network's builder."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from absl import app

from shufflelite import config
from shufflelite.config import Keys, setting


@dataclass(frozen=True)
class OptionFlags:
    """Arguments of builders that have a flag of their own, and --option for all others."""

    TOPIC = "network"

    width: float | None = setting(
        None, help="Width multiplier. Default: that of the weights, else the paper's."
    )
    groups: int | None = setting(None, help="Groups of ShuffleNet V1's 1x1 convolutions.")
    stem: str | None = setting(
        None, value_name="NAME", help="First layers: imagenet, or cifar for small images."
    )
    variant: str | None = setting(
        None,
        value_name="NAME",
        help="Implementation, where several differ: ShuffleNet's megvii, ...",
    )
    allow_any_width: bool | None = setting(None, help="Accept widths that the paper does not have.")
    option: tuple[str, ...] = setting(
        (),
        repeats=True,
        value_name="NAME=VALUE",
        help="Any other argument of the network's builder; may be repeated.",
    )


def expand(passed: Mapping[str, tuple[Keys, Any]]) -> dict[str, tuple[Keys, Any]]:
    """Replaces --option among the flags that were passed by the settings that its values name."""
    flags = dict(passed)
    (*table, _), options = flags.pop("option", (("",), ()))
    named = {}
    for option in options:
        keys, value = config.parse_override(option, flag="option")
        if keys[0] in passed:
            raise app.UsageError(f"--{keys[0]} and --option {option}: expected one of them")
        named[f"option {option}"] = (*table, ".".join(keys)), value
    return {**named, **flags}
