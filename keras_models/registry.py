"""Names of networks, the figures published for them, and their builders.  Imports no TensorFlow."""

import ast
import contextlib
import difflib
import fnmatch
import functools
import gc
import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from shufflelite import config
from shufflelite.errors import InputError

NAMED_WEIGHTS = ("bundled", "random", "imagenet")  # all others are files
NEUTRAL = ("allow_any_width", "padding")  # options that do not change published figures


@dataclass(frozen=True)
class Published:
    """A variant with 1000 classes as published.

    Attributes:
      options: arguments of the builder.
      resolution: height and width of the images.
      params: trainable parameters; exact, where the publications round them.
      mmadds: multiply-adds in millions.
      top1: accuracy on ImageNet's validation set in percent, where it was published.
    """

    options: Mapping[str, Any]
    resolution: int
    params: int
    mmadds: int
    top1: float | None = None


@dataclass(frozen=True)
class Entry:
    """A family of networks: its builder, where it comes from, and its published variants."""

    builder: str  # "module:function", imported on first use
    paper: str
    published: tuple[Published, ...]
    note: str  # where the published figures are from, and which are known to be off
    options: Mapping[str, Any] = field(default_factory=dict)  # arguments that make this network
    resolution: int = 224  # height and width that the paper evaluates at


_EFFICIENTNET_V2_NOTE = (
    "Figures of the authors' code, the README of EfficientNetV2, at the size of evaluation."
)
MODELS = {
    "alexnet": Entry(
        "keras_models.alexnet:alexnet",
        paper="https://papers.nips.cc/paper/4824",
        published=(Published({}, 224, 60_965_224, 720, 57.2),),
        note="Figures of ShuffleNet's Table 8 (arXiv:1707.01083).",
    ),
    "augshufflenet": Entry(
        "keras_models.augshufflenet:augshufflenet",
        paper="https://arxiv.org/abs/2203.06589",
        published=(
            Published({"width": 0.5, "stem": "cifar", "num_classes": 10}, 32, 330_862, 10),
            Published({"width": 1.0, "stem": "cifar", "num_classes": 10}, 32, 1_208_488, 44),
            Published({"width": 1.5, "stem": "cifar", "num_classes": 10}, 32, 2_223_950, 85),
            Published({"width": 0.5, "stem": "cifar", "num_classes": 100}, 32, 423_112, 10),
            Published({"width": 1.0, "stem": "cifar", "num_classes": 100}, 32, 1_300_738, 44),
            Published({"width": 1.5, "stem": "cifar", "num_classes": 100}, 32, 2_316_200, 86),
        ),
        note="Figures of the author's code for CIFAR-10 and CIFAR-100, the README of "
        "AugShuffleNet-Plus; it has none for ImageNet.",
    ),
    "efficientnet_v2_b0": Entry(
        "keras_models.efficientnet_v2:efficientnet_v2",
        paper="https://arxiv.org/abs/2104.00298",
        published=(Published({}, 224, 7_139_704, 720, 78.7),),
        note=_EFFICIENTNET_V2_NOTE,
        options={"variant": "b0"},
        resolution=224,
    ),
    "efficientnet_v2_b1": Entry(
        "keras_models.efficientnet_v2:efficientnet_v2",
        paper="https://arxiv.org/abs/2104.00298",
        published=(Published({}, 240, 8_141_052, 1_200, 79.8),),
        note=_EFFICIENTNET_V2_NOTE,
        options={"variant": "b1"},
        resolution=240,
    ),
    "efficientnet_v2_b2": Entry(
        "keras_models.efficientnet_v2:efficientnet_v2",
        paper="https://arxiv.org/abs/2104.00298",
        published=(Published({}, 260, 10_096_086, 1_700, 80.5),),
        note=_EFFICIENTNET_V2_NOTE,
        options={"variant": "b2"},
        resolution=260,
    ),
    "efficientnet_v2_b3": Entry(
        "keras_models.efficientnet_v2:efficientnet_v2",
        paper="https://arxiv.org/abs/2104.00298",
        published=(Published({}, 300, 14_358_406, 3_000, 82.1),),
        note=_EFFICIENTNET_V2_NOTE,
        options={"variant": "b3"},
        resolution=300,
    ),
    "efficientnet_v2_l": Entry(
        "keras_models.efficientnet_v2:efficientnet_v2",
        paper="https://arxiv.org/abs/2104.00298",
        published=(Published({}, 480, 118_515_272, 56_300, 85.7),),
        note=_EFFICIENTNET_V2_NOTE,
        options={"variant": "l"},
        resolution=480,
    ),
    "efficientnet_v2_m": Entry(
        "keras_models.efficientnet_v2:efficientnet_v2",
        paper="https://arxiv.org/abs/2104.00298",
        published=(Published({}, 480, 54_139_356, 24_700, 85.2),),
        note=_EFFICIENTNET_V2_NOTE,
        options={"variant": "m"},
        resolution=480,
    ),
    "efficientnet_v2_s": Entry(
        "keras_models.efficientnet_v2:efficientnet_v2",
        paper="https://arxiv.org/abs/2104.00298",
        published=(Published({}, 384, 21_458_488, 8_400, 83.9),),
        note=_EFFICIENTNET_V2_NOTE,
        options={"variant": "s"},
        resolution=384,
    ),
    "efficientnet_v2_xl": Entry(
        "keras_models.efficientnet_v2:efficientnet_v2",
        paper="https://arxiv.org/abs/2104.00298",
        published=(Published({}, 512, 208_119_808, 94_000, 87.3),),
        note="Figures of the paper's Table 7, where it is pretrained on ImageNet21k.",
        options={"variant": "xl"},
        resolution=512,
    ),
    "mobilenet_v1": Entry(
        "keras_models.mobilenet_v1:mobilenet_v1",
        paper="https://arxiv.org/abs/1704.04861",
        published=(
            Published({"width": 1.0}, 224, 4_231_976, 569, 70.9),
            Published({"width": 1.0}, 192, 4_231_976, 418, 70.0),
            Published({"width": 1.0}, 160, 4_231_976, 291, 68.0),
            Published({"width": 1.0}, 128, 4_231_976, 186, 65.2),
            Published({"width": 0.75}, 224, 2_585_560, 317, 68.4),
            Published({"width": 0.75}, 192, 2_585_560, 233, 67.2),
            Published({"width": 0.75}, 160, 2_585_560, 162, 65.3),
            Published({"width": 0.75}, 128, 2_585_560, 104, 62.1),
            Published({"width": 0.5}, 224, 1_331_592, 150, 63.3),
            Published({"width": 0.5}, 192, 1_331_592, 110, 61.7),
            Published({"width": 0.5}, 160, 1_331_592, 77, 59.1),
            Published({"width": 0.5}, 128, 1_331_592, 49, 56.3),
            Published({"width": 0.25}, 224, 470_072, 41, 49.8),
            Published({"width": 0.25}, 192, 470_072, 34, 47.7),
            Published({"width": 0.25}, 160, 470_072, 21, 45.5),
            Published({"width": 0.25}, 128, 470_072, 14, 41.5),
        ),
        note="Figures of the authors' code, the README of TensorFlow-Slim. Its multiply-adds are "
        "2.6 % too low at width 0.75 (the paper has 325 M at 224), and its 34 M for 0.25 at 192 "
        "should be 30 M.",
    ),
    "mobilenet_v2": Entry(
        "keras_models.mobilenet_v2:mobilenet_v2",
        paper="https://arxiv.org/abs/1801.04381",
        published=(
            Published({"width": 1.4}, 224, 6_108_776, 582, 75.0),
            Published({"width": 1.3}, 224, 5_386_792, 509, 74.4),
            Published({"width": 1.0}, 224, 3_504_872, 300, 71.8),
            Published({"width": 1.0}, 192, 3_504_872, 221, 70.7),
            Published({"width": 1.0}, 160, 3_504_872, 154, 68.8),
            Published({"width": 1.0}, 128, 3_504_872, 99, 65.3),
            Published({"width": 1.0}, 96, 3_504_872, 56, 60.3),
            Published({"width": 0.75}, 224, 2_636_424, 209, 69.8),
            Published({"width": 0.75}, 192, 2_636_424, 153, 68.7),
            Published({"width": 0.75}, 160, 2_636_424, 107, 66.4),
            Published({"width": 0.75}, 128, 2_636_424, 69, 63.2),
            Published({"width": 0.75}, 96, 2_636_424, 39, 58.8),
            Published({"width": 0.5}, 224, 1_968_680, 97, 65.4),
            Published({"width": 0.5}, 192, 1_968_680, 71, 63.9),
            Published({"width": 0.5}, 160, 1_968_680, 50, 61.0),
            Published({"width": 0.5}, 128, 1_968_680, 32, 57.7),
            Published({"width": 0.5}, 96, 1_968_680, 18, 51.2),
            Published({"width": 0.35}, 224, 1_677_128, 59, 60.3),
            Published({"width": 0.35}, 192, 1_677_128, 43, 58.2),
            Published({"width": 0.35}, 160, 1_677_128, 30, 55.7),
            Published({"width": 0.35}, 128, 1_677_128, 20, 50.8),
            Published({"width": 0.35}, 96, 1_677_128, 11, 45.5),
        ),
        note="Figures of the authors' code, the README of TensorFlow-Slim. Its multiply-adds are "
        "cut off, not rounded.",
    ),
    "mobilenet_v3_large": Entry(
        "keras_models.mobilenet_v3:mobilenet_v3",
        paper="https://arxiv.org/abs/1905.02244",
        published=(
            Published({"width": 1.25}, 224, 7_551_976, 356, 76.6),
            Published({"width": 1.0}, 224, 5_483_032, 217, 75.2),
            Published({"width": 0.75}, 224, 3_993_528, 155, 73.3),
            Published({"minimalistic": True}, 224, 3_924_288, 209, 72.3),
        ),
        note="Figures of the authors' code, the README of TensorFlow-Slim; those of width 1.25 are "
        "of the paper.",
        options={"variant": "large"},
    ),
    "mobilenet_v3_small": Entry(
        "keras_models.mobilenet_v3:mobilenet_v3",
        paper="https://arxiv.org/abs/1905.02244",
        published=(
            Published({"width": 1.0}, 224, 2_542_856, 66, 67.5),
            Published({"width": 0.75}, 224, 2_041_872, 44, 65.4),
            Published({"minimalistic": True}, 224, 2_044_736, 65, 61.9),
        ),
        note="Figures of the authors' code, the README of TensorFlow-Slim. Its multiply-adds are "
        "too high at width 1.0: they are 56 M (as in the paper), and 52 M for minimalistic.",
        options={"variant": "small"},
    ),
    "resnet_like": Entry(
        "keras_models.structure_units:structure_units",
        paper="https://arxiv.org/abs/1707.01083",
        published=(
            Published({"mflops": 140}, 224, 1_396_948, 140, 62.7),
            Published({"mflops": 38}, 224, 461_428, 38, 51.2),
            Published({"mflops": 13}, 224, 166_012, 13, 36.3),
        ),
        note="Figures of the paper's Table 4; parameters of ours, as it has few of the channels.",
        options={"unit": "resnet"},
    ),
    "resnext_like": Entry(
        "keras_models.structure_units:structure_units",
        paper="https://arxiv.org/abs/1707.01083",
        published=(
            Published({"mflops": 140}, 224, 1_405_952, 140, 66.7),
            Published({"mflops": 38}, 224, 471_332, 38, 54.0),
            Published({"mflops": 13}, 224, 163_252, 13, 34.8),
        ),
        note="Figures of the paper's Table 4; parameters of ours, as it has few of the channels.",
        options={"unit": "resnext"},
    ),
    "shufflenet_v1": Entry(
        "keras_models.shufflenet_v1:shufflenet_v1",
        paper="https://arxiv.org/abs/1707.01083",
        published=(
            Published({"width": 1.0, "groups": 1}, 224, 1_531_936, 140, 66.4),
            Published({"width": 1.0, "groups": 2}, 224, 1_733_848, 140, 67.3),
            Published({"width": 1.0, "groups": 3}, 224, 1_865_728, 140, 67.4),
            Published({"width": 1.0, "groups": 4}, 224, 1_968_344, 140, 67.2),
            Published({"width": 1.0, "groups": 8}, 224, 2_434_768, 140, 67.6),
            Published({"width": 0.5, "groups": 1}, 224, 534_484, 38, 54.9),
            Published({"width": 0.5, "groups": 2}, 224, 643_932, 38, 55.6),
            Published({"width": 0.5, "groups": 3}, 224, 718_324, 38, 56.8),
            Published({"width": 0.5, "groups": 4}, 224, 778_040, 38, 58.4),
            Published({"width": 0.5, "groups": 8}, 224, 1_010_896, 38, 57.7),
            Published({"width": 0.25, "groups": 1}, 224, 209_908, 13, 42.9),
            Published({"width": 0.25, "groups": 2}, 224, 267_224, 13, 43.2),
            Published({"width": 0.25, "groups": 3}, 224, 306_124, 13, 45.0),
            Published({"width": 0.25, "groups": 4}, 224, 338_700, 13, 45.8),
            Published({"width": 0.25, "groups": 8}, 224, 454_504, 13, 47.3),
            Published({"width": 2.0, "groups": 3}, 224, 5_450_776, 524, 73.7),
            Published(
                {"width": 2.0, "groups": 3, "squeeze_excite": True}, 224, 7_910_083, 527, 75.3
            ),
            Published({"width": 1.5, "groups": 3}, 224, 3_442_168, 292, 71.5),
            Published({"width": 2.0, "groups": 3, "variant": "megvii"}, 224, 5_449_776, 524, 74.1),
            Published({"width": 2.0, "groups": 8, "variant": "megvii"}, 224, 6_521_232, 522, 72.9),
            Published({"width": 1.5, "groups": 3, "variant": "megvii"}, 224, 3_441_168, 292, 71.6),
            Published({"width": 1.5, "groups": 8, "variant": "megvii"}, 224, 4_268_952, 290, 71.0),
            Published({"width": 1.0, "groups": 3, "variant": "megvii"}, 224, 1_864_728, 138, 67.8),
            Published({"width": 1.0, "groups": 8, "variant": "megvii"}, 224, 2_433_768, 138, 68.0),
            Published({"width": 0.5, "groups": 3, "variant": "megvii"}, 224, 717_324, 38, 57.3),
            Published({"width": 0.5, "groups": 8, "variant": "megvii"}, 224, 1_010_448, 40, 58.8),
        ),
        note="Figures of the paper's Tables 2 and 5, and for variant=megvii of the authors' code, "
        "the README of ShuffleNet-Series. Table 2 rounds each scale's multiply-adds to one figure; "
        "at 0.25x and 0.5x with 2, 4 or 8 groups some channels do not divide into the groups, and "
        "how the paper rounds them is not known.",
    ),
    "shufflenet_v2": Entry(
        "keras_models.shufflenet_v2:shufflenet_v2",
        paper="https://arxiv.org/abs/1807.11164",
        published=(
            Published({"width": 0.5}, 224, 1_366_792, 41, 60.3),
            Published({"width": 1.0}, 224, 2_278_604, 146, 69.4),
            Published({"width": 1.5}, 224, 3_503_624, 299, 72.6),
            Published({"width": 2.0}, 224, 7_393_996, 591, 74.9),
        ),
        note="Figures of the paper's Table 8. Its multiply-adds are about 1 % above those of the "
        "convolutions and the classifier.",
    ),
    "vgg_like": Entry(
        "keras_models.structure_units:structure_units",
        paper="https://arxiv.org/abs/1707.01083",
        published=(
            Published({"mflops": 140}, 224, 1_141_545, 140, 49.3),
            Published({"mflops": 38}, 224, 319_333, 38),
            Published({"mflops": 13}, 224, 95_993, 13),
        ),
        note="Figures of the paper's Table 4, which leaves out the accuracy of the two small ones; "
        "parameters of ours, as it has few of the channels.",
        options={"unit": "vgg"},
    ),
    "xception_like": Entry(
        "keras_models.structure_units:structure_units",
        paper="https://arxiv.org/abs/1707.01083",
        published=(
            Published({"mflops": 140}, 224, 1_531_936, 140, 66.4),
            Published({"mflops": 38}, 224, 534_484, 38, 54.9),
            Published({"mflops": 13}, 224, 209_908, 13, 42.9),
        ),
        note="Figures of the paper's Table 4; its Table 1 says 143 M for the channels of 140 M.",
        options={"unit": "xception"},
    ),
}


def names(pattern: str = "*") -> list[str]:
    """Returns the sorted names that match a shell pattern."""
    return sorted(fnmatch.filter(MODELS, pattern))


def find(name: str) -> Entry:
    """Returns the entry of a name; an InputError suggests the nearest name."""
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(names())}."
        raise InputError(f"Unknown model {name!r}. {hint}")
    return MODELS[name]


def published(
    name: str, options: Mapping[str, Any], *, resolution: int, num_classes: int
) -> Published | None:
    """Returns what was published for exactly this network; unset options have their defaults.

    Raises:
      InputError: unknown name.
    """

    def relevant(options: Mapping[str, Any]) -> dict[str, Any]:
        return {k: value for k, value in {**defaults(name), **options}.items() if k not in NEUTRAL}

    expected = relevant({**options, "num_classes": num_classes})
    same = (p for p in find(name).published if relevant(p.options) == expected)
    return next((p for p in same if p.resolution == resolution), None)


def defaults(name: str) -> Mapping[str, Any]:
    """Returns the default arguments of the network."""
    own = {key: argument.default for key, argument in arguments(name).items()}
    return {**own, **find(name).options}


@dataclass(frozen=True)
class Argument:
    """An argument of a builder."""

    kind: Any  # its annotation
    default: Any


@functools.cache
def arguments(name: str) -> Mapping[str, Argument]:
    """Returns the builder's arguments, read from its source because importing it is slow."""
    module, function = find(name).builder.split(":")
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_bytes())
    (builder,) = (x for x in tree.body if isinstance(x, ast.FunctionDef) and x.name == function)
    keywords = zip(builder.args.kwonlyargs, builder.args.kw_defaults, strict=True)
    return {
        key.arg: Argument(_annotation(key.annotation), default and ast.literal_eval(default))
        for key, default in keywords
    }


def _annotation(node: ast.expr | None) -> Any:
    assert node is not None
    return eval(ast.unparse(node), {"Literal": Literal})  # of our own source, as inspect does


def check(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options with the types that the builder declares, without those that are None.

    Imports no TensorFlow. Builders check ranges, not types.

    Raises:
      InputError: unknown name, an argument the builder does not take, or one of another type.
    """
    fixed = find(name).options
    known = {key: argument for key, argument in arguments(name).items() if key not in fixed}
    options = {key: value for key, value in options.items() if value is not None}
    for key in options:
        if key not in known:
            names = [option for option in known if option not in ("input_shape", "num_classes")]
            raise InputError(f"{name} has no option {key!r}; it takes {', '.join(names)}.")
    return {
        key: config.convert(value, known[key].kind, key, origin=name)
        for key, value in options.items()
    }


def create(name: str, **options: Any) -> Any:
    """Builds the network: a Keras model from (b, h, w, 3) to logits (b, classes), float32.

    An argument that is None is left to the builder.

    Raises:
      InputError: see `check`; or a value that the builder refuses.
    """
    arguments = check(name, options)
    module, function = find(name).builder.split(":")
    builder = getattr(importlib.import_module(module), function)
    with _without_collecting():
        return builder(**find(name).options, **arguments)


@contextlib.contextmanager
def _without_collecting() -> Iterator[None]:
    """Building a deep network makes a million objects; searching them for garbage is slow."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
