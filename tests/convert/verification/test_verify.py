"""Fidelity, audit and delegation of files that are known to be right or wrong."""

import dataclasses
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tf_keras as keras

from convert import export
from convert.calibration_data import Inputs
from convert.quantization import quantize
from convert.quantization.int8_range import Range
from convert.settings import Precision, Quantization
from convert.verification import runner, verify
from keras_models import accuracy
from keras_models.images.decode import Preprocessing
from shufflelite.errors import InputError

HAS_OLD_RUNTIME = importlib.util.find_spec("tflite_runtime") is not None
OPERATORS = {  # of the small toy: a layer each, none for the shuffle
    "CONV_2D": 4,
    "DEPTHWISE_CONV_2D": 2,
    "STRIDED_SLICE": 2,
    "CONCATENATION": 1,
    "MEAN": 1,
    "FULLY_CONNECTED": 1,
}
COMPUTING = ("conv1", "expand", "depthwise", "project", "reduce", "conv2", "global_pool")
COMPUTING = (*COMPUTING, "classifier")


def tensor(dtype: str, scale: float, zero_point: int) -> runner.IoTensor:
    return runner.IoTensor("x", 0, dtype, (1, 1, 1, 1), scale, zero_point)


@pytest.mark.parametrize(
    ("expected", "got", "db"),
    [
        ([3.0, 4.0], [3.0, 3.0], 10 * np.log10(25)),
        ([[10.0, 0.0], [0.0, 0.0]], [[9.0, 0.0], [0.0, 0.0]], 20.0),
        ([1.0, -1.0], [-1.0, 1.0], 10 * np.log10(2 / 8)),
        ([0.5, 0.25], [0.5, 0.25], 200.0),
        ([0.0, 0.0], [0.0, 0.0], 200.0),
        ([0.0, 0.0], [1.0, 0.0], -200.0),
        ([1e-3, 0.0], [1.1e-3, 0.0], 20.0),
    ],
)
def test_signal_to_noise_is_that_of_its_definition(expected: Any, got: Any, db: float) -> None:
    found = verify.sqnr_db(np.array(expected, np.float32), np.array(got, np.float32))
    assert found == pytest.approx(db, abs=1e-4)


def test_inputs_are_clipped_and_halves_take_the_lower_step() -> None:
    x = np.array([-9.0, -0.26, -0.25, -0.24, 0.0, 0.25, 0.26, 9.0], np.float32)
    found = runner.quantize(x, tensor("int8", 0.5, 3))
    np.testing.assert_array_equal(found, [-15, 2, 2, 3, 3, 3, 4, 21])
    x = np.array([-9.0, 0.0, 100.0], np.float32)
    np.testing.assert_array_equal(runner.quantize(x, tensor("uint8", 0.1, 7)), [0, 7, 255])
    np.testing.assert_array_equal(runner.quantize(x, tensor("float32", 0.0, 0)), x)


def test_the_audit_tells_what_an_int8_file_is_made_of(small: Any) -> None:
    audit = verify.audit(small.int8)
    assert audit.size_bytes == len(small.int8)
    assert audit.operators == OPERATORS
    assert list(audit.operators.values()) == sorted(audit.operators.values(), reverse=True)
    assert audit.float_operators == {}
    assert audit.requantizations == 0
    assert (audit.delegate_partitions, audit.undelegated_operators) == (1, {})
    assert audit.loads_in_tflite_runtime is (True if HAS_OLD_RUNTIME else None)
    assert (audit.input.dtype, audit.input.shape) == ("int8", (1, 16, 16, 3))
    assert (audit.output.dtype, audit.output.shape) == ("int8", (1, 10))
    # the ends' scales are those of the ranges found in Keras
    for end, range_ in ((audit.input, small.ranges["image"]), (audit.output, _logits(small))):
        scale = (range_.high - range_.low) / 255
        assert end.scale == pytest.approx(scale, rel=1e-6)
        assert end.zero_point == round(-128 - range_.low / scale)


def _logits(small: Any) -> Range:
    return small.ranges["classifier"]


def test_the_audit_names_the_float_operators_of_a_float_file(
    files: Callable[[Quantization], bytes],
) -> None:
    for precision in (Precision.FLOAT32, Precision.FLOAT16):
        audit = verify.audit(files(Quantization(precision=precision)))
        assert audit.float_operators == OPERATORS  # a DEQUANTIZE of weights does not count
        assert (audit.input.dtype, audit.input.scale) == ("float32", 0.0)
        assert audit.requantizations == 0


def test_the_audit_tells_what_no_delegate_takes(files: Callable[[Quantization], bytes]) -> None:
    audit = verify.audit(files(Quantization(precision=Precision.INT16X8)))
    assert audit.delegate_partitions == 0  # XNNPACK knows no int16
    assert audit.undelegated_operators == audit.operators
    assert audit.float_operators == {}


@pytest.mark.parametrize("io_dtype", ["int8", "uint8", "float32"])
def test_the_audit_counts_changes_of_scale_inside_but_not_at_the_ends(
    small: Any, io_dtype: Any
) -> None:
    wide = small.ranges["project"]
    ranges = {**small.ranges, "project": Range(wide.low, 2 * wide.high)}
    unequal = quantize.fake_quantize(small.rounded, ranges)
    settings = Quantization(precision=Precision.INT8, io_dtype=io_dtype)
    audit = verify.audit(export.to_tflite(unequal, settings, None))
    assert audit.requantizations == 1  # the concat reads two scales
    assert audit.float_operators == {}


@pytest.mark.parametrize("labelled", [True, False])
def test_fidelity_counts_as_one_would_by_hand(small: Any, fresh: Inputs, labelled: bool) -> None:
    labels = np.random.default_rng(0).integers(0, 10, len(fresh)) if labelled else None
    inputs = dataclasses.replace(fresh, labels=labels)
    found = verify.fidelity(small.int8, small.model, small.deployed, inputs)
    ours = np.concatenate([small.model(x, training=False) for x in inputs.batches(5)])
    theirs = np.stack(list(runner.run(small.int8, inputs)))
    alike = sum(np.argmax(a) == np.argmax(b) for a, b in zip(ours, theirs, strict=True))
    assert found.inputs == 40
    assert found.agreement == pytest.approx(100 * alike / 40)
    assert found.sqnr_db == pytest.approx(verify.sqnr_db(ours, theirs), abs=1e-3)
    figures = (found.float_top1, found.float_top5, found.top1, found.top5)
    if labels is None:
        assert figures == (None,) * 4
        assert found.top1_difference is found.top1_interval is found.float_top1_interval is None
        return
    by_hand = []
    for logits in (ours, theirs):
        for k in (1, 5):
            # a class is among the best k where fewer than k classes are better; ties: the first
            hits = 0
            for row, label in zip(logits, labels, strict=True):
                better = sum(
                    value > row[label] or (value == row[label] and i < label)
                    for i, value in enumerate(row)
                )
                hits += better < k
            by_hand.append(100 * hits / 40)
    assert figures == pytest.approx(tuple(by_hand))
    rights = [logits.argmax(axis=1) == labels for logits in (ours, theirs)]
    assert found.float_top1_interval == accuracy.interval(int(rights[0].sum()), 40)
    assert found.top1_interval == accuracy.interval(int(rights[1].sum()), 40)
    assert found.top1_difference is not None
    assert found.top1_difference.points == pytest.approx(found.top1 - found.float_top1)
    assert found.top1_difference.only_this == (rights[1] & ~rights[0]).sum()


@pytest.mark.parametrize("precision", list(Precision))
def test_every_layer_that_computes_is_compared(
    small: Any, files: Callable[[Quantization], bytes], fresh: Inputs, precision: Precision
) -> None:
    settings = Quantization(precision=precision)
    calibrated = quantize.calibrate(small.deployed, small.calibration, settings, Preprocessing())
    layers = verify.fidelity(files(settings), small.model, calibrated.deployed, fresh).layers
    assert sorted(layer.name for layer in layers) == sorted(COMPUTING)
    assert list(layers) == sorted(layers, key=lambda layer: layer.sqnr_db)
    least = {Precision.FLOAT32: 100, Precision.FLOAT16: 50}.get(precision, 20)
    assert layers[0].sqnr_db > least, "compared with another layer's tensor"


def test_a_shufflenets_layers_are_all_compared(shufflenet: Any) -> None:
    layers = verify.fidelity(
        shufflenet.int8, shufflenet.model, shufflenet.deployed, shufflenet.calibration
    ).layers
    assert {layer.name for layer in layers} == set(shufflenet.ranges) - {"image"}
    by_name = {layer.name: layer.sqnr_db for layer in layers}
    assert by_name["conv1"] > 35
    assert by_name["stage2_unit1_expand"] > by_name["stage4_unit4_expand"]  # errors add up


@pytest.mark.parametrize("broken", ["expand", "reduce", "classifier"])
def test_layer_fidelity_finds_the_layer_that_is_broken(
    small: Any, fresh: Inputs, broken: str
) -> None:
    reference = keras.models.clone_model(small.deployed)
    reference.set_weights(small.deployed.get_weights())
    kernel, bias = reference.get_layer(broken).get_weights()
    reference.get_layer(broken).set_weights([np.flip(kernel, axis=-2), bias + 0.3])
    layers = verify.fidelity(small.int8, small.model, reference, fresh).layers
    by_name = {layer.name: layer.sqnr_db for layer in layers}
    after = COMPUTING[COMPUTING.index(broken) :]
    for name, sqnr_db in by_name.items():
        if name in after:
            assert sqnr_db < 17, name
        else:
            assert sqnr_db > 25, name


def test_running_a_file_gives_the_logits_it_stands_for(
    files: Callable[[Quantization], bytes], fresh: Inputs
) -> None:
    data = files(Quantization(precision=Precision.INT8))
    output = verify.audit(data).output
    logits = np.stack(list(runner.run(data, fresh)))
    steps = logits / output.scale + output.zero_point
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
    assert steps.min() >= -128
    assert steps.max() <= 127


def test_a_network_whose_logits_are_no_numbers_is_refused(small: Any, fresh: Inputs) -> None:
    diverged = keras.models.clone_model(small.model)
    diverged.set_weights([np.full_like(w, 3e38) for w in small.model.get_weights()])
    with pytest.raises(InputError, match="Expected the float network to give finite logits"):
        verify.fidelity(small.int8, diverged, small.deployed, fresh)
