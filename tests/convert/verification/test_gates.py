"""Gates: figures on either side of a limit, and files that are not int8 throughout."""

import dataclasses
import re

import numpy as np
import pytest

from convert.calibration_data import Inputs
from convert.settings import Precision, Quantization, Verification
from convert.verification import file_warnings, gates
from convert.verification.gates import Gate
from convert.verification.runner import IoTensor
from convert.verification.verify import Audit, Fidelity
from keras_models.accuracy import Difference, paired_interval
from keras_models.images.decode import Preprocessing

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


GOOD = dataclasses.replace(FIDELITY, agreement=99.0)


def audit(
    *,
    source: str = "int8",
    result: str = "int8",
    float_operators: dict[str, int],
    grouped: int = 0,
) -> Audit:
    return Audit(
        size_bytes=1000,
        input=IoTensor("image", 0, source, (1, 8, 8, 3), 0.1, 0),
        output=IoTensor("logits", 1, result, (1, 10), 0.1, 0),
        operators={"CONV_2D": 3},
        float_operators=float_operators,
        grouped_convolutions=grouped,
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
    for limit, passed in ((border, True), (beyond, False)):
        (gate,) = gates.check(FIDELITY, Verification(**{flag: limit}))
        assert (gate.flag, gate.limit, gate.value, gate.passed) == (flag, limit, value, passed)


def checked(inputs: int, agreement: float, both: int, lost: int, **limits: float) -> Gate:
    """The gate of a file that gets `lost` of `both` + `lost` labels wrong."""
    total = both + lost
    difference = Difference(
        -100 * lost / total, paired_interval(both, 0, lost, 0), agreement, lost, 0
    )
    measured = dataclasses.replace(
        FIDELITY,
        inputs=inputs,
        agreement=agreement,
        float_top1=100.0,
        top1=100 * both / total,
        top1_difference=difference,
    )
    (gate,) = gates.check(measured, Verification(**limits))
    return gate


@pytest.mark.parametrize(
    ("gate", "undecided"),
    [
        (checked(6, 100.0, 6, 0, max_accuracy_drop=1.0), True),
        (checked(3000, 100.0, 2990, 10, max_accuracy_drop=1.0), False),
        (checked(6, 100.0, 6, 0, max_accuracy_drop=100.0), False),
        (checked(50, 100.0, 25, 25, max_accuracy_drop=1.0), False),  # beyond any doubt
        (checked(200, 100.0, 200, 0, min_agreement=99.5), True),
        (checked(200, 97.0, 200, 0, min_agreement=80.0), False),
        (checked(10_000, 99.9, 200, 0, min_agreement=99.5), False),
        (checked(10, 100.0, 10, 0, min_sqnr_db=20.0), False),
    ],
)
def test_a_gate_that_too_few_inputs_decide_says_so(gate: Gate, undecided: bool) -> None:
    assert gate.is_undecided is undecided
    warnings = file_warnings.find(audit(float_operators={}), GOOD, [gate])
    assert [f"gate {gate.flag} " in warning for warning in warnings] == [True] * undecided
    if undecided:
        assert f"{gate.interval[0]:.1f} to {gate.interval[1]:.1f}, is wider" in warnings[0]
        assert "-0.0" not in warnings[0]


def test_figures_that_speak_against_a_file_are_warnings_with_the_number() -> None:
    good, grouped = audit(float_operators={}), audit(float_operators={}, grouped=16)
    assert file_warnings.find(good, GOOD, ()) == ()
    for found, fidelity, words in (
        (
            good,
            dataclasses.replace(GOOD, agreement=94.9),
            "agreement with float is 94.9 %, below 95 %",
        ),
        (good, dataclasses.replace(GOOD, sqnr_db=19.9), "logits have 19.9 dB, below 20 dB"),
        (grouped, GOOD, "must not be given to a GPU: .* of which it has 16"),
    ):
        (warning,) = file_warnings.find(found, fidelity, ())
        assert re.search(words, warning)


def test_inputs_that_flatter_a_file_are_a_warning() -> None:
    made = Inputs("made", np.zeros((2, 4, 4, 3), np.float32))
    pictures = Inputs("a", np.zeros((2, 4, 4, 3), np.uint8), Preprocessing())
    others = Inputs("b", np.ones((2, 4, 4, 3), np.uint8), Preprocessing())
    again = Inputs("csv of a", pictures.values, Preprocessing())
    for verification, calibration, words in (
        (made, made, "verified on synthetic inputs, not on pictures"),
        (made, pictures, "verified on synthetic inputs, not on pictures"),
        (again, pictures, "verified on the pictures of its calibration"),
    ):
        (warning,) = file_warnings.of_inputs(verification, calibration, Precision.INT8)
        assert warning.startswith(words)
        assert file_warnings.of_inputs(verification, calibration, Precision.FLOAT32) == ()
    assert file_warnings.of_inputs(others, pictures, Precision.INT8) == ()
    assert file_warnings.of_inputs(pictures, made, Precision.INT8) == ()
    (warning,) = file_warnings.of_inputs(made, None, Precision.DYNAMIC)
    assert "--data" in warning


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
