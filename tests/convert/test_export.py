"""Bytes of .tflite files of every precision."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from convert import export, keras_graph
from convert.calibration_data import Inputs
from convert.quantization import quantize
from convert.quantization.tfmot_config import quantized_kernel
from convert.settings import Estimator, Precision, Quantization, Rounding
from convert.verification import runner, verify
from keras_models.images.decode import Preprocessing
from shufflelite.errors import InputError
from tflite_file.model import read_operators

NEAR_DB = {  # least signal to noise of a shallow network's logits
    Precision.FLOAT32: 100,  # float32 has 24 bits of 6 dB
    Precision.FLOAT16: 55,  # 11 bits, in the weights only
    Precision.DYNAMIC: 25,  # 8 bits, in weights and activations
    Precision.INT8: 25,
    Precision.INT16X8: 30,  # 8 bits in the weights only
}


def logits(model: Any, inputs: Inputs) -> np.ndarray:
    return np.concatenate([model(x, training=False).numpy() for x in inputs.batches(8)])


def with_rounded_weights(model: Any, *, per_channel: bool = True) -> Any:
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for layer in copy.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            layer.set_weights([quantized_kernel(kernel, layer, per_channel=per_channel), bias])
    return copy


def as_stored(inputs: Inputs, source: runner.IoTensor) -> Iterator[np.ndarray]:
    """The real values that an int8 input stands for."""
    for x in inputs.batches(1):
        stored = runner.quantize(x, source).astype(np.float32)
        yield (stored - source.zero_point) * np.float32(source.scale)


@pytest.mark.parametrize("precision", list(Precision))
def test_every_precision_computes_the_float_network(
    small: Any, files: Callable[..., bytes], fresh: Inputs, precision: Precision
) -> None:
    data = files(Quantization(precision=precision))
    expected = logits(small.model, fresh)
    found = np.stack(list(runner.run(data, fresh)))
    assert verify.sqnr_db(expected, found) > NEAR_DB[precision]
    assert np.mean(found.argmax(1) == expected.argmax(1)) >= 0.8


@pytest.mark.parametrize("io_dtype", ["int8", "uint8", "float32"])
def test_ends_have_the_dtype_asked_for_and_the_same_numbers_between(
    files: Callable[..., bytes], fresh: Inputs, io_dtype: Any
) -> None:
    data = files(Quantization(precision=Precision.INT8, io_dtype=io_dtype))
    audit = verify.audit(data)
    assert (audit.input.dtype, audit.output.dtype) == (io_dtype, io_dtype)
    assert audit.input.shape == (1, 16, 16, 3)
    assert audit.output.shape == (1, 10)
    assert audit.requantizations == 0
    assert audit.float_operators == {}
    plain = files(Quantization(precision=Precision.INT8))
    expected = np.stack(list(runner.run(plain, fresh)))
    found = np.stack(list(runner.run(data, fresh)))
    if io_dtype == "float32":  # rounds pixels, which lie between two steps, to the upper one
        assert verify.sqnr_db(expected, found) > 20
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("per_channel", [True, False])
def test_an_int8_file_gives_the_logits_of_the_rounded_keras_network(
    small: Any, files: Callable[..., bytes], fresh: Inputs, per_channel: bool
) -> None:
    settings = Quantization(
        precision=Precision.INT8,
        per_channel=per_channel,
        rounding=Rounding.NEAREST,
        activation_equalization=False,
    )
    data = files(settings)
    audit = verify.audit(data)
    ranges = quantize.choose_ranges(
        small.deployed, small.calibration, Estimator.MSE, Preprocessing()
    )
    rounded_weights = with_rounded_weights(small.deployed, per_channel=per_channel)
    reference = quantize.fake_quantize(rounded_weights, ranges)
    stored = np.concatenate(list(as_stored(fresh, audit.input)))
    expected = reference(stored, training=False).numpy()
    found = np.stack(list(runner.run(data, fresh)))
    difference = np.abs(found - expected) / audit.output.scale
    assert difference.max() < 2.5  # values between two steps go either way, in every layer
    assert np.mean(difference < 1.5) > 0.98
    assert np.mean(difference < 0.5) > 0.7
    assert np.mean(found.argmax(1) == expected.argmax(1)) > 0.9


@pytest.mark.parametrize("toy", ["small", "shufflenet"])
def test_each_layer_of_an_int8_file_gives_what_keras_makes_of_its_inputs(
    toy: str, request: pytest.FixtureRequest
) -> None:
    """Layer by layer, with the file's own values going in: so nothing adds up."""
    network = request.getfixturevalue(toy)
    ranges = network.ranges
    fake = quantize.fake_quantize(with_rounded_weights(network.rounded), ranges)
    file = Interpreter(
        model_content=network.int8,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    file.allocate_tensors()
    tensors = verify._layer_tensors(file, list(ranges))
    source = verify.audit(network.int8).input
    details = {tensor["index"]: tensor for tensor in file.get_tensor_details()}
    worst: dict[str, float] = {}
    for x, real in zip(
        itertools.islice(network.calibration.batches(1), 3),
        as_stored(network.calibration, source),
        strict=False,
    ):
        file.set_tensor(source.index, runner.quantize(x, source))
        file.invoke()

        def step(layer: Any, values: list[np.ndarray], real: np.ndarray = real) -> np.ndarray:
            if not values:
                return real
            y = fake.get_layer(layer.name)(values if len(values) > 1 else values[0]).numpy()
            if layer.name not in ranges:
                return y
            index = tensors[layer.name]
            scale, zero_point = details[index]["quantization"]
            found = (file.get_tensor(index).astype(np.float32) - zero_point) * np.float32(scale)
            steps = np.abs(found - y) / scale
            assert steps.max() < 1.5, f"{layer.name} is off by more than a step"
            worst[layer.name] = max(worst.get(layer.name, 0), float(np.mean(steps > 0.5)))
            return found

        keras_graph.interpret(network.deployed, step)
    assert set(worst) == set(ranges) - {"image"}
    pooling = worst.pop("global_pool")  # a mean over places is near a half step more often
    assert pooling < 0.3
    assert max(worst.values()) <= 0.1  # one of ten logits
    assert np.mean(list(worst.values())) < 0.02


def test_a_shufflenet_has_no_operator_that_only_changes_scales(shufflenet: Any) -> None:
    audit = verify.audit(shufflenet.int8)
    assert "QUANTIZE" not in audit.operators
    assert "DEQUANTIZE" not in audit.operators
    assert audit.requantizations == 0
    assert audit.float_operators == {}
    assert audit.delegate_partitions == 1
    assert audit.undelegated_operators == {}
    convolutions = [type(layer) for layer in shufflenet.deployed.layers]
    assert audit.operators["CONV_2D"] == convolutions.count(keras.layers.Conv2D)
    assert not audit.operators.keys() & {"TRANSPOSE", "RESHAPE", "RELU", "PAD", "GATHER"}
    assert audit.operators["DEPTHWISE_CONV_2D"] == 3 * 2 + 13


@pytest.mark.parametrize("precision", list(Precision))
def test_shapes_are_static_and_batch_one(files: Callable[..., bytes], precision: Precision) -> None:
    data = files(Quantization(precision=precision))
    kinds = {operator.type for operator in read_operators(data)}
    assert not kinds & {"SHAPE", "PACK"}
    audit = verify.audit(data)
    assert (audit.input.shape, audit.output.shape) == ((1, 16, 16, 3), (1, 10))


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT16X8])
def test_the_same_network_gives_the_same_bytes(
    small: Any, files: Callable[..., bytes], precision: Precision
) -> None:
    settings = Quantization(precision=precision)
    ready = quantize.apply(small.deployed, small.calibration, settings, Preprocessing())
    assert export.to_tflite(ready, settings, small.calibration) == files(settings)


def test_int16_activations_with_one_scale_per_tensor_are_refused() -> None:
    with pytest.raises(InputError, match="leave out --noper_channel"):
        Quantization(precision=Precision.INT16X8, per_channel=False)
