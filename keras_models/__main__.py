"""Lists the networks, or shows one: its stages and what they cost, beside the published figures.

Multiply-adds are those of convolutions and fully connected layers for one image; parameters are
the trainable ones.

Examples:
  python -m keras_models --list
  python -m keras_models --model shufflenet_v2 --width 0.5
  python -m keras_models --model shufflenet_v2 --stem cifar --resolution 32 --num_classes 10
  python -m keras_models --model mobilenet_v1 --resolution_multiplier 0.571 --layers
"""

import dataclasses
import json
import math
import sys
from typing import TYPE_CHECKING

from absl import app, flags

from keras_models import cli, registry
from keras_models.registry import Published

if TYPE_CHECKING:
    from keras_models.counts import LayerCount, StageCount

_LIST = flags.DEFINE_boolean("list", False, "List the networks and their published variants.")
_MODEL = flags.DEFINE_string("model", None, "The network to show; see --list.")
_WIDTH = flags.DEFINE_float("width", None, "Width multiplier; by default the paper's 1.0.")
_RESOLUTION = flags.DEFINE_integer(
    "resolution", 224, "Height and width of the images.", lower_bound=1
)
_RESOLUTION_MULTIPLIER = flags.DEFINE_float(
    "resolution_multiplier", 1.0, "Multiplies --resolution; the product is rounded.", lower_bound=0
)
_NUM_CLASSES = flags.DEFINE_integer("num_classes", 1000, "Number of classes.", lower_bound=1)
_STEM = flags.DEFINE_string("stem", None, "ShuffleNet V2's first layers: imagenet or cifar.")
_VARIANT = flags.DEFINE_string(
    "variant", None, "Whose order of ShuffleNet V2's channels: torchvision or megvii."
)
_ALLOW_ANY_WIDTH = flags.DEFINE_boolean(
    "allow_any_width", False, "Accept widths that the paper does not have."
)
_LAYERS = flags.DEFINE_boolean("layers", False, "Show each layer, not each stage.")
_JSON = flags.DEFINE_boolean("json", False, "Print JSON, not tables.")


def main(argv: list[str]) -> int:
    """Checks the flags, then lists or shows."""
    if argv[1:]:
        raise app.UsageError(f"expected flags only, got {' '.join(argv[1:])}")
    if _LIST.value == (_MODEL.value is not None):
        raise app.UsageError("expected either --list or --model with a name of that list")
    if _LIST.value:
        _show_list()
    else:
        _show_model(_MODEL.value)
    return cli.DONE


def _show_list() -> None:
    entries = {name: registry.find(name) for name in registry.names()}
    if _JSON.value:
        print(json.dumps({n: dataclasses.asdict(entry) for n, entry in entries.items()}, indent=2))
        return
    headings = "model", "paper", "width", "resolution", "parameters", "multiply-adds", "top-1"
    rows = [
        [name, entry.paper, f"{p.width}", f"{p.resolution}", *_figures(p), f"{p.top1} %"]
        for name, entry in entries.items()
        for p in entry.published
    ]
    cli.print_table(headings, rows, left=2, file=sys.stdout)
    for name, entry in entries.items():
        print(f"{name}: {entry.note}")


def _show_model(name: str) -> None:
    entry = registry.find(name)
    if not math.isfinite(_RESOLUTION_MULTIPLIER.value):
        raise app.UsageError("expected a finite --resolution_multiplier")
    resolution = round(_RESOLUTION.value * _RESOLUTION_MULTIPLIER.value)
    given = {
        "width": _WIDTH.value,
        "stem": _STEM.value,
        "variant": _VARIANT.value,
        "allow_any_width": _ALLOW_ANY_WIDTH.value or None,
    }
    options = {key: value for key, value in given.items() if value is not None}
    model = registry.create(
        name, input_shape=(resolution, resolution, 3), num_classes=_NUM_CLASSES.value, **options
    )
    from keras_models import counts  # TensorFlow, for which a wrong name does not wait

    layers = counts.count(model)
    stages = counts.by_stage(layers)
    params, multiply_adds = counts.total(layers)
    published = None
    if _NUM_CLASSES.value == 1000 and options.get("stem", "imagenet") == "imagenet":
        variant = options.get("width", 1.0), resolution
        published = next((p for p in entry.published if (p.width, p.resolution) == variant), None)

    if _JSON.value:
        shown = {
            "model": name,
            "paper": entry.paper,
            **options,
            "resolution": resolution,
            "num_classes": _NUM_CLASSES.value,
            "params": params,
            "multiply_adds": multiply_adds,
            "published": published and dataclasses.asdict(published),
            "stages": [dataclasses.asdict(stage) for stage in stages],
        }
        if _LAYERS.value:
            shown["layers"] = [dataclasses.asdict(layer) for layer in layers]
        print(json.dumps(shown, indent=2))
        return
    if _LAYERS.value:
        headings = ["layer", "kind", "output"]
        rows = [[c.name, c.kind, *_cost(c, multiply_adds)] for c in layers]
    else:
        headings = ["stage", "units", "layers", "output"]
        rows = [[c.name, f"{c.units}", f"{c.layers}", *_cost(c, multiply_adds)] for c in stages]
    blank = [""] * (len(headings) - 1)
    rows.append(["total", *blank, f"{params:,}", f"{multiply_adds:,}", "100.0 %"])
    if published:
        rows.append(["published", *blank, *_figures(published), ""])
        rows.append(["deviation", *blank, *_deviations(params, multiply_adds, published), ""])
    headings += ["parameters", "multiply-adds", "share"]
    cli.print_table(headings, rows, left=2 if _LAYERS.value else 1, file=sys.stdout)
    if published:
        print(f"Published top-1: {published.top1} %. {entry.note}")
    else:
        print("Not published with this width, resolution, stem and number of classes.")
    print(entry.paper)


def _cost(counted: "LayerCount | StageCount", all_multiply_adds: int) -> list[str]:
    return [
        "x".join(map(str, counted.output_shape)),
        f"{counted.params:,}",
        f"{counted.multiply_adds:,}",
        f"{100 * counted.multiply_adds / all_multiply_adds:.1f} %",
    ]


def _figures(published: Published) -> list[str]:
    return [f"{published.params:,}", f"{published.mmadds} M"]


def _deviations(params: int, multiply_adds: int, published: Published) -> list[str]:
    mmadds = multiply_adds / 1e6
    return [
        f"{100 * (params / published.params - 1):+.2f} %",
        "rounding"
        if round(mmadds) == published.mmadds
        else f"{100 * (mmadds / published.mmadds - 1):+.2f} %",
    ]


if __name__ == "__main__":
    cli.run(main, name="keras_models")
