"""Audit of a .tflite file, and its fidelity to the float network that it was made from."""

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from convert.calibration_data import Inputs
from convert.quantization.quantize import shared_ranges
from convert.verification.runner import IoTensor, dequantize, io_tensors, load, quantize, run
from keras_models.accuracy import Difference, Interval, agreement, best_classes, compare, judge
from shufflelite import isolated
from shufflelite.errors import InputError
from tflite_file.model import count_delegation, read_operators

PROBED = 4  # inputs whose every tensor is compared: inference without XNNPACK is slow
RUN_IN_TFLITE_RUNTIME = """
import sys, numpy
from tflite_runtime.interpreter import Interpreter
model = Interpreter(sys.argv[1])
model.allocate_tensors()
for tensor in model.get_input_details():
    model.set_tensor(tensor["index"], numpy.zeros(tensor["shape"], tensor["dtype"]))
model.invoke()
"""


@dataclass(frozen=True)
class Audit:
    """What the file is made of, and which runtimes can run it."""

    size_bytes: int
    input: IoTensor
    output: IoTensor
    operators: Mapping[str, int]
    float_operators: Mapping[str, int]  # with float32 output, without QUANTIZE and DEQUANTIZE
    grouped_convolutions: int
    requantizations: int  # QUANTIZE operators inside, not those of the input and the output
    delegate_partitions: int  # of XNNPACK, in LiteRT
    undelegated_operators: Mapping[str, int]
    loads_in_tflite_runtime: bool | None  # None: not installed


@dataclass(frozen=True)
class LayerFidelity:
    """Signal to quantization noise of one layer's output, relative to the float network."""

    name: str
    sqnr_db: float


@dataclass(frozen=True)
class Fidelity:
    """The file compared with the float network on the same inputs.  Accuracies are in percent."""

    inputs: int
    agreement: float  # percent of inputs where the file has the float network's best class
    sqnr_db: float  # of the logits: signal to quantization noise
    float_top1: float | None  # None: no labels
    float_top5: float | None
    top1: float | None
    top5: float | None
    float_top1_interval: Interval | None  # at 95 % confidence; see keras_models/accuracy.py
    top1_interval: Interval | None
    top1_difference: Difference | None  # of the file to the float network
    layers: tuple[LayerFidelity, ...]  # worst first; measured on the first few inputs
    # percent of inputs where the fake-quantized Keras network has the file's best class
    fake_quantized_agreement: float | None = None


def audit(data: bytes) -> Audit:
    """Reads the file, and loads it in the runtimes that are installed."""
    operators = read_operators(data)
    interpreter = load(data)
    partitions, undelegated = count_delegation(interpreter._get_ops_details())
    source, result = io_tensors(interpreter)
    inside = [op for op in operators if op.type not in ("QUANTIZE", "DEQUANTIZE")]
    for_io = (source.dtype != "int8") + (result.dtype == "uint8")  # a float output: DEQUANTIZE
    quantize_count = sum(op.type == "QUANTIZE" for op in operators)
    return Audit(
        size_bytes=len(data),
        input=source,
        output=result,
        operators=dict(Counter(op.type for op in operators).most_common()),
        float_operators=dict(Counter(op.type for op in inside if "float32" in op.dtypes)),
        grouped_convolutions=sum(op.groups > 1 for op in operators),
        requantizations=max(0, quantize_count - for_io),
        delegate_partitions=partitions,
        undelegated_operators=undelegated,
        loads_in_tflite_runtime=_loads_in_tflite_runtime(data),
    )


def fidelity(
    data: bytes,
    model: keras.Model,
    deployed: keras.Model,
    inputs: Inputs,
    *,
    emulation: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Fidelity:
    """Runs the file and the float network on the same inputs.

    Args:
      data: The file.
      model: The float network as it was trained: the reference for the logits.
      deployed: The float deployment form of the file, whose layers name the file's tensors.
      inputs: What to run, with labels if they are known.
      emulation: The logits of a batch by the fake-quantized network; see `quantize.emulate`.

    Raises:
      InputError: the network's logits are not finite.
    """
    expected, actual = logits(model, inputs), np.stack(list(run(data, inputs)))
    layers = _layer_fidelity(data, deployed, next(inputs.batches())[:PROBED])
    compared = compare_logits(expected, actual, inputs.labels, layers)
    if emulation is None:
        return compared
    best = best_classes(np.concatenate([emulation(batch) for batch in inputs.batches()]))
    return replace(compared, fake_quantized_agreement=agreement(best_classes(actual), best))


def logits(model: keras.Model, inputs: Inputs) -> np.ndarray:
    """The logits of the float network, (inputs, classes).

    Raises:
      InputError: the logits are not finite.
    """
    expected = _logits(model, inputs)
    if not np.isfinite(expected).all():
        raise InputError(
            "Expected the float network to give finite logits, got others: its weights are those "
            "of a training that diverged."
        )
    return expected


def compare_logits(
    expected: np.ndarray,
    actual: np.ndarray,
    labels: np.ndarray | None,
    layers: tuple[LayerFidelity, ...] = (),
) -> Fidelity:
    """Compares a file's logits with the float network's, each (inputs, classes)."""
    float_accuracy = accuracy = difference = None
    if labels is not None:
        reference, predictions = judge(expected, labels), judge(actual, labels)
        float_accuracy, accuracy = reference.accuracy, predictions.accuracy
        difference = compare(predictions, reference)
    return Fidelity(
        inputs=len(expected),
        agreement=agreement(best_classes(actual), best_classes(expected)),
        sqnr_db=sqnr_db(expected, actual),
        float_top1=float_accuracy.top1 if float_accuracy else None,
        float_top5=float_accuracy.top5 if float_accuracy else None,
        top1=accuracy.top1 if accuracy else None,
        top5=accuracy.top5 if accuracy else None,
        float_top1_interval=float_accuracy.interval if float_accuracy else None,
        top1_interval=accuracy.interval if accuracy else None,
        top1_difference=difference,
        layers=layers,
    )


def sqnr_db(expected: np.ndarray, actual: np.ndarray) -> float:
    """Signal to quantization noise in decibels; 200 for equal arrays, since JSON has no infinity.

    Rounded to a millionth: further digits depend on the CPU.
    """
    noise = np.sum((expected.astype(np.float64) - actual) ** 2)
    if noise == 0:  # also if the signal is zero
        return 200.0
    signal = np.sum(expected.astype(np.float64) ** 2)
    return round(float(np.clip(10 * np.log10(max(signal, 1e-300) / noise), -200, 200)), 6)


def _logits(model: keras.Model, inputs: Inputs) -> np.ndarray:
    return np.concatenate([model(batch, training=False).numpy() for batch in inputs.batches()])


def _layer_fidelity(
    data: bytes, deployed: keras.Model, inputs: np.ndarray
) -> tuple[LayerFidelity, ...]:
    interpreter = Interpreter(
        model_content=data,
        experimental_preserve_all_tensors=True,
        # XNNPACK does not expose the tensors inside a partition
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    source, result = io_tensors(interpreter)
    tensors = _layer_tensors(interpreter, [name for g in shared_ranges(deployed) for name in g])
    tensors[deployed.output_names[0]] = result.index  # the converter renames the output
    probe = keras.Model(deployed.inputs, [deployed.get_layer(name).output for name in tensors])
    expected = [np.asarray(output) for output in probe(inputs, training=False)]
    outputs: list[list[np.ndarray]] = [[] for _ in tensors]
    quantization = {t["index"]: t["quantization"] for t in interpreter.get_tensor_details()}
    for x in inputs:
        interpreter.set_tensor(source.index, quantize(x[None], source))
        interpreter.invoke()
        for output, index in zip(outputs, tensors.values(), strict=True):
            values = interpreter.get_tensor(index)[0]
            output.append(dequantize(values, *quantization[index]))
    fidelities = [
        LayerFidelity(name, sqnr_db(e, np.stack(o).reshape(e.shape)))  # its tensor may be reshaped
        for name, e, o in zip(tensors, expected, outputs, strict=True)
    ]
    return tuple(sorted(fidelities, key=lambda layer: layer.sqnr_db))


def _layer_tensors(interpreter: Interpreter, layers: Sequence[str]) -> dict[str, int]:
    """Layer name -> index of its output: the tensor of the last operator named after the layer.

    A tensor's name is <model>/<layer>/<operation>. Fused operations have several names, that of the
    last operation first.
    """
    names = {tensor["index"]: tensor["name"] for tensor in interpreter.get_tensor_details()}
    by_layer = {}
    for operator in interpreter._get_ops_details():
        tensor = operator["outputs"][0]
        by_layer.update(dict.fromkeys(names[tensor].split(";")[0].split("/")[1:2], tensor))
    return {name: by_layer[name] for name in layers if name in by_layer}


def _loads_in_tflite_runtime(data: bytes) -> bool | None:
    """Runs the file in the runtime of old devices, in a separate process: it may crash."""
    try:
        import tflite_runtime  # noqa: F401
    except ImportError:
        return None
    with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
        Path(file.name).write_bytes(data)
        command = isolated.guarded([sys.executable, "-c", RUN_IN_TFLITE_RUNTIME, file.name])
        return subprocess.run(command, capture_output=True, timeout=600).returncode == 0
