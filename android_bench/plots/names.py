"""Names of networks and their options for people."""

import re

from android_bench.results import Row

NAMES = {"augshufflenet": "AugShuffleNet", "alexnet": "AlexNet"}


def family_name(name: str) -> str:
    """A family as its paper writes it."""
    name = NAMES.get(name, name)
    name = re.sub(r"^(\w+?)net_(v\d)", lambda m: f"{m[1].capitalize()}Net {m[2].upper()}", name)
    return name.replace("_", " ")


def option_name(name: str, value: object) -> str:
    """An option and its value; one that is merely on has none."""
    return name.replace("_", " ") if value is True else f"{name}={value}"


def width_name(width: float) -> str:
    """A width with a digit behind the point, as papers write it."""
    return f"{width:.1f}" if round(width, 1) == width else f"{width:g}"


def bar_name(row: Row) -> str:
    """A network with its options, in one line."""
    if row.network is None:
        return row.model
    options = row.network["options"]
    named = {key: v for key, v in options.items() if key not in ("width", "groups")}
    parts = [
        family_name(row.network["name"]),
        *([width_name(options["width"])] if "width" in options else []),
        *([f"g={options['groups']}"] if "groups" in options else []),
        *(option_name(key, v) for key, v in named.items()),
    ]
    return " ".join(parts) + f", {row.network['resolution']}"
