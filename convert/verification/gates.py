"""Gates: what every int8 file must be, and the limits that the user sets."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from convert.settings import Precision, Quantization, Verification
from convert.verification.verify import Audit, Fidelity

FLOAT_ONLY = frozenset({"LOCAL_RESPONSE_NORMALIZATION"})  # TFLite has no integer kernel


@dataclass(frozen=True)
class Gate:
    """A limit of the user's and the figure held against it."""

    flag: str
    limit: float
    value: float
    passed: bool


def require(audit: Audit, quantization: Quantization, kept_float: Iterable[str] = ()) -> None:
    """Raises RuntimeError unless an int8 file is int8 throughout, with the ends asked for.

    FLOAT_ONLY operators are let through: the report names them.  Of the others just those compute
    in float32 whose types are in `kept_float`.
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
            f"its {end} is {tensor.dtype}, not {wanted}"
            for end, tensor, wanted in zip(
                ("input", "output"),
                (audit.input, audit.output),
                quantization.io_dtypes,
                strict=True,
            )
            if tensor.dtype != wanted
        ),
    ]
    if faults:
        raise RuntimeError(f"The converter gave a file that is not full int8: {'; '.join(faults)}.")


def check(fidelity: Fidelity, wanted: Verification) -> tuple[Gate, ...]:
    """Holds the figures against the user's limits."""
    gates = []
    if wanted.max_accuracy_drop is not None:
        assert fidelity.top1 is not None  # the pipeline asks for labels before the long work
        assert fidelity.float_top1 is not None
        # rounded: a difference of two percentages is not exact, and the limit itself passes
        drop = round(fidelity.float_top1 - fidelity.top1, 9)
        limit = wanted.max_accuracy_drop
        gates.append(Gate("max_accuracy_drop", limit, drop, drop <= limit))
    for flag, least, value in (
        ("min_agreement", wanted.min_agreement, fidelity.agreement),
        ("min_sqnr_db", wanted.min_sqnr_db, fidelity.sqnr_db),
    ):
        if least is not None:
            gates.append(Gate(flag, least, value, value >= least))
    return tuple(gates)
