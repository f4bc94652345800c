"""What the figures of a finished file, and their inputs, say against using it."""

from collections.abc import Iterable

from convert.calibration_data import Inputs
from convert.settings import Precision
from convert.verification.gates import Gate
from convert.verification.verify import Audit, Fidelity

MIN_AGREEMENT = 95.0  # percent
MIN_SQNR_DB = 20.0


def of_inputs(
    verification: Inputs, calibration: Inputs | None, precision: Precision
) -> tuple[str, ...]:
    """The warning if these inputs measure a file worse than other pictures would."""
    if precision in (Precision.FLOAT32, Precision.FLOAT16):  # any inputs compare two float networks
        return ()
    if verification.synthetic:
        return (
            "verified on synthetic inputs, not on pictures: its agreement with the float network "
            "on pictures is unknown; pass --data to measure it",
        )
    if calibration is not None and verification.sha256 == calibration.sha256:
        return (
            "verified on the pictures of its calibration: others may agree less with the float "
            "network; pass --data to measure it on others",
        )
    return ()


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
            f"agreement with float is {fidelity.agreement:.1f} %, below {MIN_AGREEMENT:g} %: the "
            "file often gives another best class than the float network"
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
