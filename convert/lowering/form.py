"""What can be computed in several ways; which of them is fast depends on the core."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Grouped(str, Enum):
    """How a grouped convolution is computed."""

    ALONG = "along"  # as one along the groups before it: no shuffle is left; see `along`
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
