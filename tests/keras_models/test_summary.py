"""Options of networks, their counts, and the figures published for just them."""

import re
from typing import Any

import pytest

from keras_models import registry, summary, tables
from keras_models.mobilenet_v1 import UNITS
from keras_models.summary import RequestedNetwork
from shufflelite.errors import InputError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mobilenet_v1", RequestedNetwork("mobilenet_v1", {"width": 0.75})),
        ("mobilenet_v1:", RequestedNetwork("mobilenet_v1", {"width": 0.75})),
        (
            "mobilenet_v1:resolution=192,width=0.5",
            RequestedNetwork("mobilenet_v1", {"width": 0.5}, resolution=192),
        ),
        (
            "shufflenet_v2:stem=cifar, num_classes=10,allow_any_width=true",
            RequestedNetwork(
                "shufflenet_v2",
                {"width": 0.75, "stem": "cifar", "allow_any_width": True},
                num_classes=10,
            ),
        ),
    ],
)
def test_a_variants_own_options_go_before_those_of_all(
    text: str, expected: RequestedNetwork
) -> None:
    assert summary.parse(text, {"width": 0.75}) == expected


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("shufflenet_v2", {"width": 1.0}),
        ("shufflenet_v2:width=1,allow_any_width=true,padding=symmetric", {"width": 1.0}),
        ("shufflenet_v2:stem=cifar", None),
        ("shufflenet_v2:variant=megvii", None),  # its classifier has no bias
        ("shufflenet_v2:num_classes=10", None),
        ("mobilenet_v1:resolution=96", None),
        ("xception_like:mflops=524", None),
        (
            "augshufflenet:stem=cifar,resolution=32,num_classes=100",
            {"width": 1.0, "stem": "cifar", "num_classes": 100},
        ),
    ],
)
def test_figures_are_those_published_for_just_this_network(text: str, published: Any) -> None:
    found = summary.summarize(summary.parse(text, {})).published
    assert (found and found.options) == published


def test_counts_are_those_of_all_layers_by_each_way_to_group_them() -> None:
    shown = summary.summarize(summary.parse("shufflenet_v2:width=0.5", {}))
    for rows in (shown.stages, shown.strides, shown.operators, shown.layers):
        assert sum(row.multiply_adds for row in rows) == shown.multiply_adds
    for counted in (shown.stages, shown.operators, shown.layers):
        assert sum(row.params for row in counted) == shown.params


def test_activations_are_what_convolutions_and_the_classifier_put_out() -> None:
    shown = summary.summarize(summary.parse("mobilenet_v1:width=0.25,resolution=64", {}))
    side, channels = 32, 8
    expected = side**2 * channels + 1000
    for unit in UNITS:  # the depthwise one keeps the channels
        side //= unit.strides
        expected += side**2 * (channels + unit.channels // 4)
        channels = unit.channels // 4
    assert shown.activations == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shuflenet_v2:width=1", "Unknown model 'shuflenet_v2'. Did you mean 'shufflenet_v2'?"),
        ("mobilenet_v1:width", "--compare width: expected NAME=VALUE."),
        ("mobilenet_v1:width=abc", "mobilenet_v1: expected 'width' to be a number, got 'abc'."),
        (
            "mobilenet_v1:resolution=x",
            "mobilenet_v1: expected 'resolution' to be an integer, got 'x'.",
        ),
        (
            "mobilenet_v1:num_classes=0",
            "mobilenet_v1: expected 'num_classes' to be at least 1, got 0.",
        ),
        (
            "mobilenet_v1:input_shape=3",
            "Expected resolution=NUMBER for the image's size, got input_shape.",
        ),
        ("vgg_like:unit=resnet", "vgg_like has no option 'unit'; it takes mflops, "),
    ],
)
def test_what_is_no_network_is_refused_by_its_reason(text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        summary.summarize(summary.parse(text, {}))


@pytest.mark.parametrize(
    ("share", "unicode", "ascii_only"),
    [
        (0.0, "", ""),
        (0.001, "", ""),
        (1 / 32, "▎", ""),
        (0.25, "██", "##"),
        (0.33, "██▋", "###"),
        (1.0, "████████", "########"),
    ],
)
def test_a_bar_is_as_long_as_the_share(share: float, unicode: str, ascii_only: str) -> None:
    assert tables.bar(share, length=8, encoding="utf-8") == unicode
    assert tables.bar(share, length=8, encoding="ascii") == ascii_only


def test_options_are_described_as_they_are_typed() -> None:
    described = tables.describe({"width": 0.5, "groups": 8, "shuffle": False, "stem": "cifar"})
    assert described == "width=0.5 groups=8 shuffle=false stem=cifar"
    read = summary.read_options(described.split())
    assert read == {"width": 0.5, "groups": 8, "shuffle": False, "stem": "cifar"}


@pytest.mark.parametrize("name", registry.names())
def test_published_variants_differ_in_what_is_compared(name: str) -> None:
    entry = registry.find(name)
    keys = [(tables.describe(p.options), p.resolution) for p in entry.published]
    assert len(set(keys)) == len(keys)
