"""What the builders cannot build is refused with what they can."""

import importlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from keras_models import registry
from shufflelite.errors import InputError

TAKES_OTHERS = ": allow_any_width takes others."
CASES: Mapping[str, list[tuple[dict[str, Any], str]]] = {  # builder: (options, message)
    "alexnet": [],
    "augshufflenet": [
        ({"width": 2.0}, f"a width multiplier of 0.25, 0.5, 1.0, 1.5, got 2.0{TAKES_OTHERS}"),
        ({"stem": "tiny"}, "stem to be imagenet or cifar, got 'tiny'."),
        ({"variant": "megvii"}, "variant to be plus or original, got 'megvii'."),
        ({"align": 0}, "align to be 1 to 256, got 0."),
        (
            {"width": 1.5, "split_ratio": 0.001, "align": 16},
            "a split ratio that gives an even number of channels, got 0.001 (0 of 352): "
            "try 0.00568182.",
        ),
        ({"align": 3}, "align to be 1 or even (a unit exchanges half of its channels), got 3."),
        ({"split_ratio": 0.6}, "a split ratio above 0 and at most 0.5, got 0.6."),
        ({"split_ratio": 0.0}, "a split ratio above 0 and at most 0.5, got 0.0."),
        (
            {"width": 1.5, "split_ratio": 0.3},
            "a split ratio that gives an even number of channels, got 0.3 (105 of 352): "
            "try 0.295455 or 0.301136.",
        ),
        (
            {"width": 1.5, "split_ratio": 0.4},
            "a split ratio that gives an even number of channels, got 0.4 (281 of 704): "
            "try 0.397727 or 0.403409.",
        ),
        (
            {"split_ratio": 0.005},
            "a split ratio that gives an even number of channels, got 0.005 (1 of 240): "
            "try 0.00833333.",
        ),
    ],
    "efficientnet_v2": [
        ({"variant": "b4"}, "variant to be s, m, l, xl, b0, b1, b2 or b3, got 'b4'."),
        (
            {"variant": "b2", "width": 1.0},
            f"a width multiplier of 1.1, got 1.0{TAKES_OTHERS}",
        ),
        ({"depth": 2.0}, f"a depth coefficient of 1.0, got 2.0{TAKES_OTHERS}"),
        ({"depth": 0.0, "allow_any_width": True}, "a depth coefficient of 1.0, got 0.0."),
        ({"dropout": 1.5}, "dropout to be at least 0 and below 1, got 1.5."),
        ({"stochastic_depth": -1}, "stochastic_depth to be at least 0 and below 1, got -1."),
    ],
    "mobilenet_v1": [
        ({"width": 0.35}, f"a width multiplier of 0.25, 0.5, 0.75, 1.0, got 0.35{TAKES_OTHERS}"),
        ({"width": 0.0, "allow_any_width": True}, "a width multiplier above 0, got 0.0."),
        ({"stem": "cifar10"}, "stem to be imagenet or cifar, got 'cifar10'."),
    ],
    "mobilenet_v2": [
        (
            {"width": 0.25},
            f"a width multiplier of 0.35, 0.5, 0.75, 1.0, 1.3, 1.4, got 0.25{TAKES_OTHERS}",
        ),
        ({"dropout": 1.0}, "dropout to be at least 0 and below 1, got 1.0."),
    ],
    "mobilenet_v3": [
        ({"variant": "medium"}, "variant to be large or small, got 'medium'."),
        (
            {"width": 0.6},
            f"a width multiplier of 0.35, 0.5, 0.75, 1.0, 1.25, got 0.6{TAKES_OTHERS}",
        ),
        ({"dropout": -0.1}, "dropout to be at least 0 and below 1, got -0.1."),
    ],
    "shufflenet_v1": [
        (
            {"width": 0.75},
            f"a width multiplier of 0.25, 0.5, 1.0, 1.5, 2.0, got 0.75{TAKES_OTHERS}",
        ),
        ({"align": 257}, "align to be 1 to 256, got 257."),
        ({"groups": 5}, "groups to be 1, 2, 3, 4 or 8, got 5."),
        ({"stem": "cifar10"}, "stem to be imagenet or cifar, got 'cifar10'."),
        ({"variant": "torchvision"}, "variant to be paper or megvii, got 'torchvision'."),
    ],
    "shufflenet_v2": [
        ({"width": 0.75}, f"a width multiplier of 0.5, 1.0, 1.5, 2.0, got 0.75{TAKES_OTHERS}"),
        ({"width": float("nan"), "allow_any_width": True}, "a width multiplier above 0, got nan."),
        ({"width": -1.0, "allow_any_width": True}, "a width multiplier above 0, got -1.0."),
        ({"stem": "cifar10"}, "stem to be imagenet or cifar, got 'cifar10'."),
        ({"align": -16}, "align to be 1 to 256, got -16."),
        ({"variant": "keras"}, "variant to be torchvision or megvii, got 'keras'."),
    ],
    "structure_units": [
        ({"unit": "densenet"}, "unit to be vgg, resnet, xception or resnext, got 'densenet'."),
        ({"unit": "vgg", "mflops": 100}, "mflops to be 13, 38, 140 or 524, got 100."),
    ],
}
TOTAL_STRIDES = {"shufflenet_v1": 4, "shufflenet_v2": 8, "augshufflenet": 8, "mobilenet_v1": 8}


def builder(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(importlib.import_module(f"keras_models.{name}"), name)
    return function


def test_the_cases_are_of_all_builders() -> None:
    assert CASES.keys() == {e.builder.rpartition(":")[2] for e in registry.MODELS.values()}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [(name, *case) for name, cases in CASES.items() for case in cases],
)
def test_an_option_is_refused_with_what_can_be_built(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=f"^Expected {re.escape(message)}$"):
        builder(name)(**options)


@pytest.mark.parametrize("name", [n for n in registry.names() if n != "alexnet"])
def test_an_unknown_padding_is_refused_with_the_known_ones(name: str) -> None:
    message = "Expected padding to be same, symmetric or bottom_right, got 'valid'."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        registry.create(name, padding="valid")


@pytest.mark.parametrize("name", registry.names())
@pytest.mark.parametrize("shape", [(31, 224, 3), (224, 31, 3)])
def test_a_resolution_below_the_total_stride_is_refused(
    name: str, shape: tuple[int, int, int]
) -> None:
    message = "Expected a resolution of at least 32 (the network's total stride), got 31."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        registry.create(name, input_shape=shape)


@pytest.mark.parametrize(("name", "stride"), TOTAL_STRIDES.items())
def test_the_cifar_stem_has_a_smaller_total_stride(name: str, stride: int) -> None:
    message = (
        f"Expected a resolution of at least {stride} (the network's total stride), "
        f"got {stride - 1}."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        registry.create(name, input_shape=(stride - 1, 32, 3), stem="cifar")
