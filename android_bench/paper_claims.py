"""What papers claim of their networks' costs, as data, and the same figure of our measurements."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from android_bench import build_cache
from android_bench.results import Row
from shufflelite.errors import InputError


@dataclass(frozen=True)
class Operand:
    """A network of a claim; resolution None: that of its paper."""

    model: str
    options: Mapping[str, build_cache.Option] = field(default_factory=dict)
    resolution: int | None = None

    @property
    def wanted(self) -> build_cache.Wanted:
        """The network to convert."""
        return build_cache.wanted(self.model, self.options, self.resolution)


@dataclass(frozen=True)
class Claim:
    """A quantity of one network over the same of another.

    Attributes:
      text: what is claimed, in a few words.
      place: where: the paper's number, section and table.
      quantity: "cost" is what is measured, time or instructions; the others are counted.
      figure: the paper's: one, the two ends of a range, or none where it has words only.
      per_fold: the figure is the quotient for each so-many-fold of multiply-adds.
      power_of: the figure is the exponent of this number, which gives the quotient.
      note: what a reader of our figure must know.
    """

    text: str
    place: str
    quantity: Literal["cost", "multiply_adds", "params"]
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
        """Whether the figure is no quotient, to be printed as 1.9 rather than 1.9x."""
        return self.power_of is not None


def ours(claim: Claim, numerator: Row, denominator: Row) -> float:
    """The claim's figure, as two rows of one place and to one reference have it."""
    quotient = _quotient(_AMOUNTS[claim.quantity], numerator, denominator)
    if claim.power_of:
        return math.log(quotient) / math.log(claim.power_of)
    if claim.per_fold:
        folds = _quotient(_multiply_adds, numerator, denominator)
        return claim.per_fold ** (math.log(quotient) / math.log(folds))
    return quotient


def _quotient(amount: Callable[[Row], float], numerator: Row, denominator: Row) -> float:
    return amount(numerator) / amount(denominator)


def _multiply_adds(row: Row) -> float:
    assert row.network is not None
    return row.network["multiply_adds"]


def _params(row: Row) -> float:
    assert row.network is not None
    return row.network["params"]


def _cost(row: Row) -> float:
    return row.ratio  # to the same reference, within the same rounds: noise is out of it


_AMOUNTS: Mapping[str, Callable[[Row], float]] = {
    "cost": _cost,
    "multiply_adds": _multiply_adds,
    "params": _params,
}
