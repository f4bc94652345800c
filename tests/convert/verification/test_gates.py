"""Gates: figures on either side of a limit, and files that are not int8 throughout."""

import dataclasses

import pytest

from convert.settings import Precision, Quantization, Verification
from convert.verification import gates
from convert.verification.gates import Gate
from convert.verification.runner import IoTensor
from convert.verification.verify import Audit, Fidelity

INT8 = Quantization(precision=Precision.INT8)
FIDELITY = Fidelity(
    inputs=200,
    agreement=91.5,
    sqnr_db=20.25,
    float_top1=60.5,
    float_top5=85.0,
    top1=60.0,
    top5=85.5,
    float_top1_interval=(53.6, 67.0),
    top1_interval=(53.1, 66.5),
    top1_difference=None,
    layers=(),
)


def audit(*, source: str = "int8", result: str = "int8", float_operators: dict[str, int]) -> Audit:
    return Audit(
        size_bytes=1000,
        input=IoTensor("image", 0, source, (1, 8, 8, 3), 0.1, 0),
        output=IoTensor("logits", 1, result, (1, 10), 0.1, 0),
        operators={"CONV_2D": 3},
        float_operators=float_operators,
        requantizations=0,
        delegate_partitions=1,
        undelegated_operators={},
        loads_in_tflite_runtime=None,
    )


@pytest.mark.parametrize(
    ("flag", "border", "beyond", "value"),
    [
        ("max_accuracy_drop", 0.5, 0.49, 0.5),
        ("min_agreement", 91.5, 91.51, 91.5),
        ("min_sqnr_db", 20.25, 20.26, 20.25),
    ],
)
def test_a_figure_on_the_limit_passes_and_the_next_is_missed(
    flag: str, border: float, beyond: float, value: float
) -> None:
    assert gates.check(FIDELITY, Verification(**{flag: border})) == (
        Gate(flag, border, value, passed=True),
    )
    assert gates.check(FIDELITY, Verification(**{flag: beyond})) == (
        Gate(flag, beyond, value, passed=False),
    )


def test_no_limits_are_no_gates_and_a_limit_of_zero_is_one() -> None:
    assert gates.check(FIDELITY, Verification()) == ()
    wanted = Verification(max_accuracy_drop=0.0, min_agreement=0.0, min_sqnr_db=0.0)
    assert [gate.passed for gate in gates.check(FIDELITY, wanted)] == [False, True, True]


def test_an_accuracy_that_rises_is_a_negative_drop() -> None:
    better = dataclasses.replace(FIDELITY, top1=62.0)
    (gate,) = gates.check(better, Verification(max_accuracy_drop=-1.0))
    assert (gate.value, gate.passed) == (-1.5, True)


def test_a_drop_that_is_the_limit_passes_whatever_floats_make_of_it() -> None:
    float_top1, top1 = 100 * (7 / 100), 100 * (6 / 100)
    assert float_top1 - top1 > 1.0
    measured = dataclasses.replace(FIDELITY, float_top1=float_top1, top1=top1)
    (gate,) = gates.check(measured, Verification(max_accuracy_drop=1.0))
    assert gate.passed


def test_a_file_that_is_int8_throughout_is_accepted() -> None:
    gates.require(audit(float_operators={}), INT8)


def test_float_operators_in_an_int8_file_are_refused_by_name() -> None:
    with pytest.raises(RuntimeError, match=r"not full int8: MEAN computes in float32; SUM comp"):
        gates.require(audit(float_operators={"MEAN": 1, "SUM": 2}), INT8)


def test_ends_of_another_dtype_than_asked_for_are_refused() -> None:
    with pytest.raises(RuntimeError, match="its input is float32, not int8"):
        gates.require(audit(source="float32", float_operators={}), INT8)
    wanted = dataclasses.replace(INT8, io_dtype="uint8")
    with pytest.raises(RuntimeError, match="its output is int8, not uint8"):
        gates.require(audit(source="uint8", float_operators={}), wanted)
    gates.require(audit(source="uint8", result="uint8", float_operators={}), wanted)


@pytest.mark.parametrize("precision", [p for p in Precision if p is not Precision.INT8])
def test_other_precisions_may_compute_in_float(precision: Precision) -> None:
    found = audit(source="float32", result="float32", float_operators={"CONV_2D": 3})
    gates.require(found, Quantization(precision=precision))
