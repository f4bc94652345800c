"""Post-training int8 of other quantizers: the same float network and calibration pictures.

python benchmarks/quantizers.py --model mobilenet_v1 --option width=0.25 --weights FILE.h5 \
    --pictures LABELS.csv --rival_python build/rival/bin/python
python benchmarks/quantizers.py --model shufflenet_v1 --option width=0.5 --option groups=3 \
    --weights FILE.pth.tar --pictures LABELS.csv --rival_python build/rival/bin/python

"TFLite converter" is post-training quantization by tf.lite.TFLiteConverter, "ai-edge-quantizer" its
recipe static_wi8_ai8 of version 0.10.0, which the rival's interpreter must have.  All three get the
network after lowering: others would have to transpose.
"""

import json
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras
from absl import app, flags

from convert import export, tflite_model
from convert.calibration_data import Inputs
from convert.context import Context
from convert.lowering import lower
from convert.network import create
from convert.settings import ConversionSettings, Model, Precision, Quantization
from convert.verification import runner, verify
from keras_models.accuracy import interval
from shufflelite.progress import Progress

flags.DEFINE_string("model", None, "Network.", required=True)
flags.DEFINE_multi_string("option", [], "Arguments of its builder, as width=0.5.")
flags.DEFINE_integer("resolution", 224, "Height and width of the input.")
flags.DEFINE_string("weights", None, "Its trained weights.", required=True)
flags.DEFINE_string("pictures", None, "csv of pictures and labels.", required=True)
flags.DEFINE_string("rival_python", None, "Python that has ai-edge-quantizer; None: left out.")

AI_EDGE_QUANTIZER = """
import sys, numpy
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe

source, pictures, result = sys.argv[1:]
((name, signature),) = Interpreter(source).get_signature_list().items()
(image,) = signature["inputs"]
made = quantizer.Quantizer(source, recipe.static_wi8_ai8())
inputs = [{image: x[None]} for x in numpy.load(pictures)]
made.quantize(made.calibrate({name: inputs})).export_model(result)
"""


def main(argv: list[str]) -> None:
    """Prints a Markdown table, one row for each quantizer and set of calibration pictures."""
    values = flags.FLAGS
    tf.config.experimental.enable_op_determinism()  # as `convert` does: the same figures
    options = {name: json.loads(value) for name, value in (o.split("=") for o in values.option)}
    model = Model(values.model, options, values.resolution, weights=values.weights)
    network = create(model, seed=0, warn=print)
    settings = ConversionSettings(model, Quantization(precision=Precision.INT8))
    context = Context(settings, network, Progress("quantizers"))
    deployed = lower(network.model, integer=True)
    pictures = network.read_pictures(values.pictures, warn=print)
    quantizers: dict[str, Callable[[Inputs], bytes]] = {
        "ours": lambda inputs: tflite_model.build(context, deployed, inputs, Path()).data,
        "TFLite converter": lambda inputs: _converter(deployed, inputs),
    }
    if values.rival_python:
        float_file = export.to_tflite(deployed, Quantization(), None)
        quantizers["ai-edge-quantizer"] = lambda inputs: _ai_edge_quantizer(
            float_file, inputs, values.rival_python
        )
    half = len(pictures) // 2
    splits = {
        f"{half}, measured on {len(pictures) - half} others": _every_second(pictures),
        f"{len(pictures)}, measured on them": (pictures, pictures),
    }
    print("| calibrated on | quantizer | top-1 | difference | agreement with float ", end="")
    print("| logits' SQNR | kB | XNNPACK partitions |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for split, (calibration, data) in splits.items():
        expected = verify.logits(network.model, data)
        for name, quantize in quantizers.items():
            file = quantize(calibration)
            logits = np.stack(list(runner.run(file, data)))
            fidelity, audit = verify.compare_logits(expected, logits, data.labels), _audit(file)
            low, high = interval(round(fidelity.agreement * len(data) / 100), len(data))
            assert fidelity.top1_difference is not None
            print(
                f"| {split} | {name} | {fidelity.top1:.1f} % "
                f"| {fidelity.top1_difference.points:+.1f} "
                f"| {fidelity.agreement:.1f} % ({low:.1f} to {high:.1f}) "
                f"| {fidelity.sqnr_db:.1f} dB | {len(file) / 1000:.0f} | {audit} |",
                flush=True,
            )


def _every_second(pictures: Inputs) -> tuple[Inputs, Inputs]:
    halves = [
        replace(pictures, values=pictures.values[i::2], labels=pictures.labels[i::2])
        for i in (0, 1)
        if pictures.labels is not None
    ]
    return halves[0], halves[1]


def _converter(deployed: keras.Model, calibration: Inputs) -> bytes:
    signature = tf.TensorSpec((1, *deployed.inputs[0].shape[1:]), tf.float32, name="image")
    function = tf.function(lambda image: deployed(image, training=False), autograph=False)
    concrete = function.get_concrete_function(signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], deployed)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([batch] for batch in calibration.batches(1))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def _ai_edge_quantizer(float_file: bytes, calibration: Inputs, python: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        source, pictures, result = (
            Path(folder, name) for name in ("float.tflite", "pictures.npy", "int8.tflite")
        )
        source.write_bytes(float_file)
        np.save(pictures, np.concatenate(list(calibration.batches())).astype(np.float32))
        command = [python, "-c", AI_EDGE_QUANTIZER, *map(str, (source, pictures, result))]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return result.read_bytes()


def _audit(file: bytes) -> str:
    audit = verify.audit(file)
    outside = ", ".join(f"{n} {name}" for name, n in audit.undelegated_operators.items())
    return f"{audit.delegate_partitions}" + (f", outside: {outside}" if outside else "")


if __name__ == "__main__":
    app.run(main)
