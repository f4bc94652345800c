"""Gates: what every int8 file must satisfy, and the limits that the user sets."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from convert.settings import Precision, Quantization, Verification
from convert.verification.verify import Audit, Fidelity
from keras_models.accuracy import Interval, interval

FLOAT_ONLY = frozenset({"LOCAL_RESPONSE_NORMALIZATION"})  # TFLite has no integer kernel


@dataclass(frozen=True)
class Gate:
    """A limit that the user set, and the measured value."""

    flag: str
    limit: float
    value: float
    passed: bool
    interval: Interval | None = None  # of the value, at 95 % confidence; None: unknown

    @property
    def is_undecided(self) -> bool:
        """Whether more inputs may decide otherwise: the interval is wider than the limit."""
        if self.interval is None:
            return False
        (low, high), limit = self.interval, self.limit
        allowed_loss = 100 - limit if self.flag == "min_agreement" else abs(limit)
        return low <= limit <= high and high - low > allowed_loss


def require(audit: Audit, quantization: Quantization, kept_float: Iterable[str] = ()) -> None:
    """Raises RuntimeError unless an int8 file is full int8, with the requested I/O dtypes.

    FLOAT_ONLY operators are allowed: the report names them. Other operators must compute in float32
    exactly as often as their type is in `kept_float`.
    """
    if quantization.precision is not Precision.INT8:
        return
    kept = Counter(kept_float)
    faults = [
        *(
            f"{name} computes in float32"
            + (f" {count} times, not {kept[name]}" if kept[name] else "")
            for name in sorted({*audit.float_operators, *kept} - FLOAT_ONLY)
            if (count := audit.float_operators.get(name, 0)) != kept[name]
        ),
        *(
            f"its {name} is {tensor.dtype}, not {dtype}"
            for name, tensor, dtype in zip(
                ("input", "output"),
                (audit.input, audit.output),
                quantization.io_dtypes,
                strict=True,
            )
            if tensor.dtype != dtype
        ),
    ]
    if faults:
        raise RuntimeError(f"The converter gave a file that is not full int8: {'; '.join(faults)}.")


def check(fidelity: Fidelity, limits: Verification) -> tuple[Gate, ...]:
    """Compares the measured values with the user's limits."""
    gates = []
    if limits.max_accuracy_drop is not None:
        assert fidelity.top1 is not None  # the pipeline checks for labels first
        assert fidelity.float_top1 is not None
        # rounded: the difference of two percentages is not exact, and the limit itself passes
        drop = round(fidelity.float_top1 - fidelity.top1, 9)
        limit, difference = limits.max_accuracy_drop, fidelity.top1_difference
        low, high = difference.interval if difference else (0.0, 0.0)
        range_ = (0.0 - high, 0.0 - low) if difference else None
        gates.append(Gate("max_accuracy_drop", limit, drop, drop <= limit, range_))
    if (least := limits.min_agreement) is not None:
        agreement = fidelity.agreement
        agreeing = round(agreement / 100 * fidelity.inputs)
        range_ = interval(agreeing, fidelity.inputs)
        gates.append(Gate("min_agreement", least, agreement, agreement >= least, range_))
    if (least := limits.min_sqnr_db) is not None:
        gates.append(Gate("min_sqnr_db", least, fidelity.sqnr_db, fidelity.sqnr_db >= least))
    return tuple(gates)
