"""A network's counts beside what was published for it.  Loads TensorFlow when it builds one."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras_models import registry
from keras_models.registry import Published
from shufflelite import config
from shufflelite.config import Bounded, setting
from shufflelite.errors import InputError

if TYPE_CHECKING:
    from keras_models.counts import LayerCount, LayerTypeCount, StageCount

SIZES = {"resolution", "num_classes"}  # set beside a builder's own options


@dataclass(frozen=True)
class RequestedNetwork(Bounded):
    """A network of the registry with its options; None leaves the resolution to the registry."""

    model: str
    options: Mapping[str, Any]
    resolution: int | None = setting(None, least=1)
    num_classes: int = setting(1000, least=1)


@dataclass(frozen=True)
class StrideCount:
    """Multiply-adds of the layers whose output is 1 / stride of the image; 0: a single pixel."""

    stride: int
    multiply_adds: int


@dataclass(frozen=True)
class Summary:
    """The costs of a network.

    Attributes:
      model: name in the registry.
      paper: link.
      options: those given, and those that the published figures are for.
      resolution: height and width of the image.
      num_classes: length of the logits.
      params: trainable parameters.
      multiply_adds: those of convolutions and fully connected layers.
      activations: values that these layers put out, which latency follows more closely
        (arXiv:2003.13678, Section 3.3).
      published: what was published for the same options, resolution and number of classes.
      note: where published figures are from.
      stages: counts by rows of the paper's table.
      strides: counts by size of the output.
      operators: counts by kind.
      layers: counts by layer.
    """

    model: str
    paper: str
    options: Mapping[str, Any]
    resolution: int
    num_classes: int
    params: int
    multiply_adds: int
    activations: int
    published: Published | None
    note: str
    stages: "list[StageCount]"
    strides: list[StrideCount]
    operators: "list[LayerTypeCount]"
    layers: "list[LayerCount]"


def parse(text: str, defaults: Mapping[str, Any]) -> RequestedNetwork:
    """Reads "name" or "name:option=value,option=value"; its options replace `defaults`."""
    name, _, words = text.partition(":")
    registry.find(name)
    given = {**defaults, **read_options(filter(None, words.split(",")))}
    options = {key: value for key, value in given.items() if key not in SIZES}
    if "input_shape" in options:
        raise InputError("Expected resolution=NUMBER for the image's size, got input_shape.")
    sizes = {key: value for key, value in given.items() if key in SIZES}
    return config.build({"model": name, "options": options, **sizes}, RequestedNetwork, origin=name)


def read_options(words: Iterable[str]) -> dict[str, Any]:
    """Reads each "option=value", whose value is TOML's or else a bare string."""
    parsed = (config.parse_override(word, flag="compare") for word in words)
    return {".".join(keys): value for keys, value in parsed}


def summarize(network: RequestedNetwork) -> Summary:
    """Builds a network and counts it; raises InputError for what cannot be built."""
    entry = registry.find(network.model)
    resolution = entry.resolution if network.resolution is None else network.resolution
    options = registry.check(network.model, network.options)
    model = registry.create(
        network.model,
        input_shape=(resolution, resolution, 3),
        num_classes=network.num_classes,
        **options,
    )
    from keras_models import counts  # TensorFlow, for which a wrong name does not wait

    layers = counts.count(model)
    params, multiply_adds = counts.total(layers)
    published = registry.published(
        network.model, options, resolution=resolution, num_classes=network.num_classes
    )
    named = published.options if published else {}
    return Summary(
        model=network.model,
        paper=entry.paper,
        options={**{k: v for k, v in named.items() if k not in SIZES}, **options},
        resolution=resolution,
        num_classes=network.num_classes,
        params=params,
        multiply_adds=multiply_adds,
        activations=sum(math.prod(c.output_shape) for c in layers if c.multiply_adds),
        published=published,
        note=entry.note,
        stages=counts.by_stage(layers),
        strides=_by_stride(layers),
        operators=counts.by_operator(layers),
        layers=layers,
    )


def _by_stride(layers: "list[LayerCount]") -> list[StrideCount]:
    height = layers[0].output_shape[0]
    strides: dict[int, int] = {}
    for c in layers:
        is_map = len(c.output_shape) == 3 and math.prod(c.output_shape[:2]) > 1
        stride = 2 ** round(math.log2(height / c.output_shape[0])) if is_map else 0
        strides[stride] = strides.get(stride, 0) + c.multiply_adds
    return [StrideCount(*row) for row in sorted(strides.items(), key=lambda r: (r[0] == 0, r))]
