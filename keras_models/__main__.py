"""Lists the networks, shows one, or compares several: stages and costs beside published figures.

Multiply-adds are those of convolutions and fully connected layers for one image, parameters the
trainable ones, activations the output values of those layers.

Examples:
  python -m keras_models --list
  python -m keras_models --model shufflenet_v2 --width 0.5
  python -m keras_models --model shufflenet_v1 --groups 8 --option shuffle=false
  python -m keras_models --model shufflenet_v2 --stem cifar --resolution 32 --num_classes 10
  python -m keras_models --model mobilenet_v1 --resolution_multiplier 0.571 --layers
  python -m keras_models --compare shufflenet_v2 shufflenet_v1:groups=8 mobilenet_v1:width=0.5
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from absl import app

from keras_models import option_flags, registry, summary, tables
from keras_models.option_flags import OptionFlags
from shufflelite import cli, config, flags
from shufflelite.config import Bounded, setting


@dataclass(frozen=True)
class ModelsFlags(Bounded):
    """The flags."""

    TOPIC = "models"

    list: bool = setting(False, help="List the networks and their published variants.")
    model: str | None = setting(None, value_name="NAME", help="Show this network.")
    compare: bool = setting(
        False,
        help="Compare the networks that follow: NAME or NAME:OPTION=VALUE,... (resolution and "
        "num_classes are options too). Other flags apply to all of them.",
    )
    options: Mapping[str, bool | int | float | str] = setting(
        default_factory=dict, option_flags=OptionFlags
    )
    resolution: int | None = setting(
        None, topic="network", least=1, help="Height and width of the images. Default: the paper's."
    )
    resolution_multiplier: float = setting(
        1.0, topic="network", least=0, help="Scales the resolution."
    )
    num_classes: int | None = setting(
        None, topic="network", least=1, help="Number of classes. Default: 1000."
    )
    layers: bool = setting(False, topic="output", help="Show each layer, not each stage.")
    json: bool = setting(False, topic="output", help="Print JSON, not tables.")


SETTINGS = (ModelsFlags,)


def main(argv: list[str]) -> int:
    """Checks the flags, then lists, shows or compares."""
    words, command = argv[1:], read_flags()
    if [command.list, command.model is not None, command.compare].count(True) != 1:
        raise app.UsageError("expected one of --list, --model with a name of that list, --compare")
    if command.compare and not words:
        raise app.UsageError("expected networks after --compare, as shufflenet_v2:width=0.5")
    if words and not command.compare:
        raise app.UsageError(f"expected flags only, got {' '.join(words)}")
    if command.list:
        _list(command)
    elif command.compare:
        _compare(command, words)
    else:
        _show(command)
    return cli.DONE


def read_flags() -> ModelsFlags:
    """The flags that were passed."""
    return config.build({}, ModelsFlags, flags=option_flags.expand(flags.given(ModelsFlags)))


def requested(text: str, command: ModelsFlags) -> summary.RequestedNetwork:
    """The network that an argument of --compare, or --model, names, at the scaled resolution."""
    sizes = {"resolution": command.resolution, "num_classes": command.num_classes}
    given = {name: size for name, size in sizes.items() if size is not None}
    network = summary.parse(text, {**given, **command.options})
    resolution = network.resolution or registry.find(network.model).resolution
    scaled = round(resolution * command.resolution_multiplier)  # the network refuses 0
    return dataclasses.replace(network, resolution=scaled)


def _list(command: ModelsFlags) -> None:
    if command.json:
        entries = {name: registry.find(name) for name in registry.names()}
        _print_json({name: dataclasses.asdict(entry) for name, entry in entries.items()})
    else:
        tables.print_list()


def _show(command: ModelsFlags) -> None:
    assert command.model is not None
    shown = summary.summarize(requested(command.model, command))
    if command.json:
        _print_json(_as_json(shown, command))
    else:
        tables.print_model(shown, layers=command.layers)


def _compare(command: ModelsFlags, words: list[str]) -> None:
    networks = [requested(word, command) for word in words]
    summaries = [summary.summarize(network) for network in networks]
    if command.json:
        _print_json([_as_json(one, command) for one in summaries])
    else:
        tables.print_comparison(summaries)


def _as_json(shown: summary.Summary, command: ModelsFlags) -> dict[str, Any]:
    fields = dataclasses.asdict(shown)
    return fields if command.layers else {k: v for k, v in fields.items() if k != "layers"}


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


if __name__ == "__main__":
    cli.run(main, name="keras_models", settings=SETTINGS)
