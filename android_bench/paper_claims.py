"""The costs that papers claim for their networks, and the same figures from our measurements."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from android_bench import build_cache
from android_bench.results import Row
from shufflelite.errors import InputError

Quantity = Literal["cost", "multiply_adds", "params"]


@dataclass(frozen=True)
class Operand:
    """A network of a claim; without a resolution, that of its paper."""

    model: str
    options: Mapping[str, build_cache.Option] = field(default_factory=dict)
    resolution: int | None = None

    @property
    def network(self) -> build_cache.NetworkSpec:
        """The network to convert."""
        return build_cache.network_spec(self.model, self.options, self.resolution)


@dataclass(frozen=True)
class Claim:
    """A quantity of one network over the same quantity of another.

    Attributes:
      text: the claim in a few words.
      place: the paper's number, section and table.
      quantity: "cost" is measured, as time or instructions; the others are counted.
      figure: the paper's: one, the two ends of a range, or none if it has only words.
      per_fold: the figure is the quotient for each so-many-fold of multiply-adds.
      power_of: the figure is the exponent of this base that yields the quotient.
      note: a footnote to our figure.
    """

    text: str
    place: str
    quantity: Quantity
    numerator: Operand
    denominator: Operand
    figure: tuple[float, ...] = ()
    per_fold: float | None = None
    power_of: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if len(self.figure) > 2:
            raise InputError(f"expected 'figure' to be a number or a range, got {self.figure}.")
        for name in ("per_fold", "power_of"):
            base = getattr(self, name)
            if base is not None and (base <= 0 or base == 1):
                raise InputError(f"expected {name!r} to be above 0 and not 1, got {base}.")
        if self.per_fold and self.power_of:
            raise InputError("expected 'per_fold' or 'power_of', got both.")

    @property
    def is_exponent(self) -> bool:
        """Whether the figure is an exponent, printed as 1.9, or a quotient, printed as 1.9x."""
        return self.power_of is not None


def measured_figure(claim: Claim, numerator: Row, denominator: Row) -> float:
    """The claim's figure from two rows of the same target and to the same reference.

    NaN for a figure `per_fold` of networks that have the same multiply-adds.
    """
    quotient = _amount(numerator, claim.quantity) / _amount(denominator, claim.quantity)
    if claim.power_of:
        return math.log(quotient) / math.log(claim.power_of)
    if claim.per_fold:
        folds = _amount(numerator, "multiply_adds") / _amount(denominator, "multiply_adds")
        if folds == 1:
            return math.nan
        return claim.per_fold ** (math.log(quotient) / math.log(folds))
    return quotient


def _amount(row: Row, quantity: Quantity) -> float:
    if quantity == "cost":
        return row.ratio  # to the same reference within the same rounds: noise cancels out
    assert row.network is not None
    return row.network.params if quantity == "params" else row.network.multiply_adds
