"""Lists the networks, shows one, or compares several: stages and costs beside published figures.

Multiply-adds are those of convolutions and fully connected layers for one image; parameters are
the trainable ones; activations are the values that those layers put out.

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
import math
from typing import Any

from absl import app, flags

from keras_models import registry, summary, tables
from shufflelite import cli

_LIST = flags.DEFINE_boolean("list", False, "List the networks and their published variants.")
_MODEL = flags.DEFINE_string("model", None, "The network to show; see --list.")
_COMPARE = flags.DEFINE_boolean(
    "compare",
    False,
    "Put networks side by side: the words that follow, NAME or NAME:OPTION=VALUE,... (resolution "
    "and num_classes are options too). Other flags hold for all of them.",
)
_WIDTH = flags.DEFINE_float("width", None, "Width multiplier; by default the paper's 1.0.")
_GROUPS = flags.DEFINE_integer("groups", None, "Groups of ShuffleNet V1's 1x1 convolutions.")
_STEM = flags.DEFINE_string("stem", None, "A ShuffleNet's first layers: imagenet or cifar.")
_VARIANT = flags.DEFINE_string(
    "variant", None, "Which of the implementations that differ, as ShuffleNet's megvii."
)
_OPTION = flags.DEFINE_multi_string(
    "option", [], "NAME=VALUE, any other option of the network; may be given several times."
)
_RESOLUTION = flags.DEFINE_integer(
    "resolution", None, "Height and width of the images; by default the paper's.", lower_bound=1
)
_RESOLUTION_MULTIPLIER = flags.DEFINE_float(
    "resolution_multiplier", 1.0, "Multiplies the resolution, and rounds it.", lower_bound=0
)
_NUM_CLASSES = flags.DEFINE_integer("num_classes", None, "Number of classes.", lower_bound=1)
_ALLOW_ANY_WIDTH = flags.DEFINE_boolean(
    "allow_any_width", False, "Accept widths that the paper does not have."
)
_LAYERS = flags.DEFINE_boolean("layers", False, "Show each layer, not each stage.")
_JSON = flags.DEFINE_boolean("json", False, "Print JSON, not tables.")


def main(argv: list[str]) -> int:
    """Checks the flags, then lists, shows or compares."""
    words = argv[1:]
    if [_LIST.value, _MODEL.value is not None, _COMPARE.value].count(True) != 1:
        raise app.UsageError("expected one of --list, --model with a name of that list, --compare")
    if _COMPARE.value and not words:
        raise app.UsageError("expected networks after --compare, as shufflenet_v2:width=0.5")
    if words and not _COMPARE.value:
        raise app.UsageError(f"expected flags only, got {' '.join(words)}")
    if not math.isfinite(_RESOLUTION_MULTIPLIER.value):
        raise app.UsageError("expected a finite --resolution_multiplier")
    if _LIST.value:
        _list()
    elif _COMPARE.value:
        _compare(words)
    else:
        _show(_MODEL.value)
    return cli.DONE


def _list() -> None:
    if _JSON.value:
        entries = {name: registry.find(name) for name in registry.names()}
        _print_json({name: dataclasses.asdict(entry) for name, entry in entries.items()})
    else:
        tables.print_list()


def _show(name: str) -> None:
    shown = summary.summarize(_scaled(summary.parse(name, _options())))
    if _JSON.value:
        _print_json(_as_json(shown))
    else:
        tables.print_model(shown, layers=_LAYERS.value)


def _compare(words: list[str]) -> None:
    variants = [_scaled(summary.parse(word, _options())) for word in words]
    summaries = [summary.summarize(variant) for variant in variants]
    if _JSON.value:
        _print_json([_as_json(one) for one in summaries])
    else:
        tables.print_comparison(summaries)


def _options() -> dict[str, Any]:
    """What the flags say of a network's options, resolution and classes."""
    given = {
        "width": _WIDTH.value,
        "groups": _GROUPS.value,
        "stem": _STEM.value,
        "variant": _VARIANT.value,
        "resolution": _RESOLUTION.value,
        "num_classes": _NUM_CLASSES.value,
        "allow_any_width": _ALLOW_ANY_WIDTH.value or None,
    }
    options = summary.read_options(_OPTION.value, flag="option")
    for name in options:
        if given.get(name) is not None:
            raise app.UsageError(f"--{name} and --option {name}: expected one of them")
    given |= options
    return {key: value for key, value in given.items() if value is not None}


def _scaled(variant: summary.Variant) -> summary.Variant:
    resolution = variant.resolution or registry.find(variant.model).resolution
    scaled = round(resolution * _RESOLUTION_MULTIPLIER.value)  # 0 is refused with the smallest
    return dataclasses.replace(variant, resolution=scaled)


def _as_json(shown: summary.Summary) -> dict[str, Any]:
    fields = dataclasses.asdict(shown)
    return fields if _LAYERS.value else {k: v for k, v in fields.items() if k != "layers"}


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


if __name__ == "__main__":
    cli.run(main, name="keras_models")
