"""Forms: what can be computed in several ways, of which the core decides the fastest."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

import tf_keras as keras

from keras_models.layers import ChannelShuffle, ChannelSlice


class Grouped(str, Enum):
    """How a grouped convolution is computed."""

    ALONG = "along"  # as one along the groups before it: no shuffle is left; see `along`
    SHUFFLED = "shuffled"  # as it is, its channels transposed for it
    SLICED = "sliced"  # as it is, its groups' channels sliced and joined for it
    SPLIT = "split"  # one convolution a group
    HALVES = "halves"  # two convolutions of half of the groups each, zeros between groups
    DENSE = "dense"  # one convolution, zeros between groups


@dataclass(frozen=True)
class Form:
    """The ways taken, by the side in pixels of what a convolution gives.

    Attributes:
      shuffles: Whether channels are shuffled, split and joined as the network says, or only
        numbered anew; None: whatever copies less.
      grouped: How grouped convolutions are computed; where nothing is said, along the groups.
      whole_outputs: Where a convolution whose channels go separate ways stays one; elsewhere it is
        split where that costs no arithmetic.
    """

    shuffles: bool | None = None
    grouped: Mapping[int, Grouped] = field(default_factory=dict)
    whole_outputs: frozenset[int] = frozenset()


GENERIC = Form()  # the fastest, or as fast, on every core measured: see docs/lowering.md


@dataclass(frozen=True)
class Decision:
    """Something to decide where maps have `side` pixels: grouped convolutions, or outputs."""

    about: str  # "grouped" or "outputs"
    side: int

    @property
    def name(self) -> str:
        """What a person reads."""
        what = {"grouped": "grouped convolutions", "outputs": "outputs that go separate ways"}
        return f"{what[self.about]} at {self.side}x{self.side}"

    def options(self, form: Form) -> dict[str, Form]:
        """The ways, by name; the rest is that of `form`."""
        if self.about == "grouped":
            return {
                way.value: replace(form, grouped={**form.grouped, self.side: way})
                for way in Grouped
                if way is not Grouped.SPLIT  # never faster than SLICED, and slow to convert
            }
        whole = form.whole_outputs
        return {
            "split": replace(form, whole_outputs=whole - {self.side}),
            "whole": replace(form, whole_outputs=whole | {self.side}),
        }

    def current(self, form: Form) -> str:
        """The name of the way that `form` takes."""
        if self.about == "grouped":
            return form.grouped.get(self.side, Grouped.ALONG).value
        return "whole" if self.side in form.whole_outputs else "split"


def decisions(model: keras.Model) -> Iterator[Decision]:
    """What there is to decide about a training-form model."""
    grouped, outputs = set(), set()
    for layer in model.layers:
        if type(layer) is keras.layers.Conv2D and layer.groups > 1:
            grouped.add(layer.output.shape[1])
        if isinstance(layer, ChannelShuffle | ChannelSlice):
            outputs.add(layer.output.shape[1])
    yield from (Decision("grouped", side) for side in sorted(grouped, reverse=True))
    yield from (Decision("outputs", side) for side in sorted(outputs - grouped, reverse=True))
