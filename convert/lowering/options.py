"""Lowering options: alternatives that compute the same; the target decides which is fastest."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

import tf_keras as keras

from keras_models.layers import ChannelShuffle, ChannelSlice


class Grouped(str, Enum):
    """How a grouped convolution is computed."""

    ALONG = "along"  # as a strided convolution, without a shuffle; see `grouped_as_strided`
    SHUFFLED = "shuffled"  # unchanged, behind a transpose
    SLICED = "sliced"  # unchanged, behind slices and a concat of each group's channels
    SPLIT = "split"  # one convolution per group
    HALVES = "halves"  # two convolutions, each with half of the groups and zeros between them
    DENSE = "dense"  # one convolution with zeros between the groups


@dataclass(frozen=True)
class LoweringOptions:
    """The alternatives chosen, by the height of the convolution's output in pixels.

    Attributes:
      shuffles: Whether shuffles, splits and concats stay layers, or renumber channels; None:
        whichever copies less.
      grouped: How grouped convolutions are computed; default: ALONG.
      whole_outputs: Heights at which a convolution with several consumers stays one; at others it
        is split where that adds no arithmetic.
    """

    shuffles: bool | None = None
    grouped: Mapping[int, Grouped] = field(default_factory=dict)
    whole_outputs: frozenset[int] = frozenset()


GENERIC = LoweringOptions()  # the fastest on nearly every core measured: docs/lowering.md


@dataclass(frozen=True)
class Decision:
    """A choice among alternatives, for all layers whose outputs are `height` pixels high."""

    about: str  # "grouped" or "outputs"
    height: int

    @property
    def name(self) -> str:
        """The text in reports."""
        what = {"grouped": "grouped convolutions", "outputs": "outputs that go separate ways"}
        return f"{what[self.about]} at {self.height}x{self.height}"

    def alternatives(self, options: LoweringOptions) -> dict[str, LoweringOptions]:
        """`options` with each alternative in turn, by its name."""
        if self.about == "grouped":
            return {
                way.value: replace(options, grouped={**options.grouped, self.height: way})
                for way in Grouped
                if way is not Grouped.SPLIT  # never faster than SLICED, and slow to convert
            }
        whole = options.whole_outputs
        return {
            "split": replace(options, whole_outputs=whole - {self.height}),
            "whole": replace(options, whole_outputs=whole | {self.height}),
        }

    def current(self, options: LoweringOptions) -> str:
        """The name of the alternative that `options` chooses."""
        if self.about == "grouped":
            return options.grouped.get(self.height, Grouped.ALONG).value
        return "whole" if self.height in options.whole_outputs else "split"


def decisions(model: keras.Model) -> Iterator[Decision]:
    """The decisions that a training-form model leaves open."""
    grouped, outputs = set(), set()
    for layer in model.layers:
        if type(layer) is keras.layers.Conv2D and layer.groups > 1:
            grouped.add(layer.output.shape[1])
        if isinstance(layer, ChannelShuffle | ChannelSlice):
            outputs.add(layer.output.shape[1])
    yield from (Decision("grouped", height) for height in sorted(grouped, reverse=True))
    yield from (Decision("outputs", height) for height in sorted(outputs - grouped, reverse=True))
