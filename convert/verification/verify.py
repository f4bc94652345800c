"""Holds a .tflite file against the float network that it was made from."""

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from convert.calibration_data import Inputs
from convert.quantization.quantize import shared_ranges
from convert.verification.runner import Tensor, dequantize, ends, load, quantize, run
from keras_models.accuracy import Difference, Interval, agreement, best_classes, compare, judge
from shufflelite.errors import InputError
from tflite_file.model import count_delegation, read_operators

PROBED = 4  # inputs whose every tensor is compared: without XNNPACK, inference takes long
ANOTHER_RUNTIME = """
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
    """What the file is made of, and who can run it."""

    size_bytes: int
    input: Tensor
    output: Tensor
    operators: Mapping[str, int]
    float_operators: Mapping[str, int]  # that give float32, but for the (DE)QUANTIZE at the ends
    requantizations: int  # QUANTIZE operators between the input's and the output's
    delegate_partitions: int  # of XNNPACK, in LiteRT
    undelegated_operators: Mapping[str, int]
    loads_in_tflite_runtime: bool | None  # None: not installed


@dataclass(frozen=True)
class LayerFidelity:
    """How near one layer's output is to that of the float network."""

    name: str
    sqnr_db: float


@dataclass(frozen=True)
class Fidelity:
    """The file against the float network, on the same inputs.  Accuracies are in percent."""

    inputs: int
    agreement: float  # inputs with the same best class
    sqnr_db: float  # of the logits: signal to quantization noise
    float_top1: float | None  # None: no labels
    float_top5: float | None
    top1: float | None
    top5: float | None
    float_top1_interval: Interval | None  # at 95 % confidence; see keras_models/accuracy.py
    top1_interval: Interval | None
    top1_difference: Difference | None  # of the file to the float network
    layers: tuple[LayerFidelity, ...]  # the worst first; on the first few inputs
    rounded_agreement: float | None = None  # percent, with the fake-quantized network in Keras


def audit(data: bytes) -> Audit:
    """Reads the file, and loads it in the runtimes that are here."""
    operators = read_operators(data)
    interpreter = load(data)
    partitions, undelegated = count_delegation(interpreter._get_ops_details())
    source, result = ends(interpreter)
    inside = [op for op in operators if op.type not in ("QUANTIZE", "DEQUANTIZE")]
    at_ends = (source.dtype != "int8") + (result.dtype == "uint8")  # float ones: DEQUANTIZE
    quantize = sum(op.type == "QUANTIZE" for op in operators)
    return Audit(
        size_bytes=len(data),
        input=source,
        output=result,
        operators=dict(Counter(op.type for op in operators).most_common()),
        float_operators=dict(Counter(op.type for op in inside if "float32" in op.dtypes)),
        requantizations=max(0, quantize - at_ends),
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
    rounded: keras.Model | None = None,
) -> Fidelity:
    """Runs the file and the float network on the same inputs.

    Args:
      data: The file.
      model: The float network as it was trained: the reference of the logits.
      deployed: The deployment form of the file, in float; the file's tensors are named after its
        layers.
      inputs: What to run, with labels where they are known.
      rounded: The deployment form fake-quantized: everything in it is rounded as in the file.

    Raises:
      InputError: the network's logits are not finite.
    """
    expected, got = logits(model, inputs), np.stack(list(run(data, inputs)))
    layers = _layer_fidelity(data, deployed, next(inputs.batches())[:PROBED])
    found = compare_logits(expected, got, inputs.labels, layers)
    if rounded is None:
        return found
    best = best_classes(_logits(rounded, inputs))
    return replace(found, rounded_agreement=agreement(best_classes(got), best))


def logits(model: keras.Model, inputs: Inputs) -> np.ndarray:
    """What the float network gives, (inputs, classes).

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
    got: np.ndarray,
    labels: np.ndarray | None,
    layers: tuple[LayerFidelity, ...] = (),
) -> Fidelity:
    """Holds a file's logits against the float network's, each (inputs, classes)."""
    wanted = given = difference = None
    if labels is not None:
        reference, answers = judge(expected, labels), judge(got, labels)
        wanted, given = reference.accuracy, answers.accuracy
        difference = compare(answers, reference)
    return Fidelity(
        inputs=len(expected),
        agreement=agreement(best_classes(got), best_classes(expected)),
        sqnr_db=sqnr_db(expected, got),
        float_top1=wanted.top1 if wanted else None,
        float_top5=wanted.top5 if wanted else None,
        top1=given.top1 if given else None,
        top5=given.top5 if given else None,
        float_top1_interval=wanted.interval if wanted else None,
        top1_interval=given.interval if given else None,
        top1_difference=difference,
        layers=layers,
    )


def sqnr_db(expected: np.ndarray, got: np.ndarray) -> float:
    """Signal to quantization noise in decibels; 200 for equal arrays, to stay a JSON number.

    To a millionth: what lies behind depends on the CPU that computes it.
    """
    noise = np.sum((expected.astype(np.float64) - got) ** 2)
    if noise == 0:  # also of a signal of zeros
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
        # XNNPACK keeps the tensors inside a partition to itself
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    source, result = ends(interpreter)
    tensors = _layer_tensors(interpreter, [name for g in shared_ranges(deployed) for name in g])
    tensors[deployed.output_names[0]] = result.index  # whose name is the converter's
    probe = keras.Model(deployed.inputs, [deployed.get_layer(name).output for name in tensors])
    expected = [np.asarray(output) for output in probe(inputs, training=False)]
    got: list[list[np.ndarray]] = [[] for _ in tensors]
    quantization = {t["index"]: t["quantization"] for t in interpreter.get_tensor_details()}
    for x in inputs:
        interpreter.set_tensor(source.index, quantize(x[None], source))
        interpreter.invoke()
        for found, index in zip(got, tensors.values(), strict=True):
            values = interpreter.get_tensor(index)[0]
            found.append(dequantize(values, *quantization[index]))
    fidelities = [
        LayerFidelity(name, sqnr_db(e, np.stack(g).reshape(e.shape)))  # its tensor may be reshaped
        for name, e, g in zip(tensors, expected, got, strict=True)
    ]
    return tuple(sorted(fidelities, key=lambda layer: layer.sqnr_db))


def _layer_tensors(interpreter: Interpreter, layers: Sequence[str]) -> dict[str, int]:
    """Layer name -> index of what it gives: the last operator's tensor that is named after it.

    A tensor's name is <model>/<layer>/<operation>; where operations were fused there are several,
    the last operation's first.
    """
    names = {tensor["index"]: tensor["name"] for tensor in interpreter.get_tensor_details()}
    found = {}
    for operator in interpreter._get_ops_details():
        tensor = operator["outputs"][0]
        found.update(dict.fromkeys(names[tensor].split(";")[0].split("/")[1:2], tensor))
    return {name: found[name] for name in layers if name in found}


def _loads_in_tflite_runtime(data: bytes) -> bool | None:
    """Runs the file in the runtime of old devices, in a process of its own: it may crash there."""
    try:
        import tflite_runtime  # noqa: F401
    except ImportError:
        return None
    with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
        Path(file.name).write_bytes(data)
        command = [sys.executable, "-c", ANOTHER_RUNTIME, file.name]
        return subprocess.run(command, capture_output=True, timeout=600).returncode == 0
