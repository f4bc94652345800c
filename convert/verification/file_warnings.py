"""What the figures of a finished file say against using it."""

from collections.abc import Iterable

from convert.verification.gates import Gate
from convert.verification.verify import Audit, Fidelity

MIN_AGREEMENT = 95.0  # percent
MIN_SQNR_DB = 20.0


def find(audit: Audit, fidelity: Fidelity, gates: Iterable[Gate]) -> tuple[str, ...]:
    """The warnings, a sentence each."""
    warnings = []
    if number := audit.grouped_convolutions:
        warnings.append(
            f"this file must not be given to a GPU: LiteRT's GPU accelerator ends the process, or "
            f"answers wrongly, on grouped convolutions, of which it has {number}"
        )
    if fidelity.agreement < MIN_AGREEMENT:
        warnings.append(
            f"agreement is {fidelity.agreement:.1f} %, below {MIN_AGREEMENT:g} %: the file often "
            "gives another best class than the float network"
        )
    if fidelity.sqnr_db < MIN_SQNR_DB:
        warnings.append(
            f"the logits have {fidelity.sqnr_db:.1f} dB, below {MIN_SQNR_DB:g} dB: scores differ "
            "visibly from those of the float network"
        )
    for gate in gates:
        if gate.is_undecided:
            assert gate.interval
            low, high = gate.interval
            warnings.append(
                f"gate {gate.flag} {gate.limit:g} cannot be decided by {fidelity.inputs} inputs: "
                f"the 95 % interval, {low:.1f} to {high:.1f}, is wider than the limit"
            )
    return tuple(warnings)
