"""Gates: what every int8 file must satisfy, and the limits that the user sets."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from convert.settings import Precision, Quantization, Verification
from convert.verification.verify import Audit, Fidelity

FLOAT_ONLY = frozenset({"LOCAL_RESPONSE_NORMALIZATION"})  # TFLite has no integer kernel


@dataclass(frozen=True)
class Gate:
    """A limit that the user set, and the measured value."""

    flag: str
    limit: float
    value: float
    passed: bool


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
        limit = limits.max_accuracy_drop
        gates.append(Gate("max_accuracy_drop", limit, drop, drop <= limit))
    for flag, minimum, value in (
        ("min_agreement", limits.min_agreement, fidelity.agreement),
        ("min_sqnr_db", limits.min_sqnr_db, fidelity.sqnr_db),
    ):
        if minimum is not None:
            gates.append(Gate(flag, minimum, value, value >= minimum))
    return tuple(gates)
