"""Accuracy of calibration methods: range estimators, rounding, data-free inputs.

python benchmarks/calibration.py --model mobilenet_v1 --width 0.25 --weights FILE.h5 \
    --pictures PICTURES --data LABELS.csv
"""

import dataclasses

import tensorflow as tf
from absl import app, flags

from convert import export
from convert.lowering import lower
from convert.network import create
from convert.quantization import quantize
from convert.quantization.synthetic_inputs import synthesize
from convert.settings import Estimator, Model, Precision, Quantization, Rounding
from convert.verification import verify

flags.DEFINE_string("model", None, "Network.", required=True)
flags.DEFINE_float("width", 1.0, "Width multiplier.")
flags.DEFINE_integer("resolution", 224, "Height and width of the input.")
flags.DEFINE_string("weights", None, "Its trained weights.", required=True)
flags.DEFINE_string("pictures", None, "Folder of pictures to calibrate on.", required=True)
flags.DEFINE_string("data", None, "csv of pictures and labels to measure on.", required=True)
flags.DEFINE_integer("seeds", 3, "Data-free calibrations, each from another seed.")


def main(argv: list[str]) -> None:
    """Prints a Markdown table, one row for each method."""
    values = flags.FLAGS
    tf.config.experimental.enable_op_determinism()  # as `convert` does: the same figures
    model = Model(values.model, {"width": values.width}, values.resolution, weights=values.weights)
    network = create(model, seed=0, warn=print)
    deployed = lower(network.model, integer=True)

    data = network.read_pictures(values.data, warn=print)
    calibrations = {"pictures": network.read_pictures(values.pictures, warn=print)} | {
        f"data-free, seed {seed}": synthesize(network.model, network.preprocessing, seed=seed)
        for seed in range(values.seeds)
    }
    settings = Quantization(precision=Precision.INT8)
    methods = [
        *(dataclasses.replace(settings, ranges=e, rounding=Rounding.NEAREST) for e in Estimator),
        *(dataclasses.replace(settings, ranges=e) for e in Estimator),
    ]
    print("| calibrated on | ranges | rounding | top-1 | agreement | logits' SQNR |")
    print("|---|---|---|---|---|---|")
    for name, calibration in calibrations.items():
        for method in methods:
            ready = quantize.apply(deployed, calibration, method, network.preprocessing)
            file = export.to_tflite(ready, method, calibration)
            fidelity = verify.fidelity(file, network.model, deployed, data)
            print(
                f"| {name} | {method.ranges.value} | {method.rounding.value} "
                f"| {fidelity.top1:.1f} % | {fidelity.agreement:.1f} % "
                f"| {fidelity.sqnr_db:.1f} dB |",
                flush=True,
            )
    print(f"\nFloat: {fidelity.float_top1:.1f} % of {len(data)} pictures.")


if __name__ == "__main__":
    app.run(main)
