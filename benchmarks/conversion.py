"""Time and memory of whole conversions: ours against a plain script around TFLite's converter.

python benchmarks/conversion.py
python benchmarks/conversion.py --model mobilenet_v2 --model shufflenet_v1 --rounds 3

Each conversion is a process of its own, interleaved over --rounds; the least CPU and wall time of
each and the greatest peak memory are printed.  The plain script builds the same network and gives
the converter a representative data set of as many pictures (noise) as we make synthetic inputs; it
verifies nothing.  "ours, first" makes synthetic inputs, "ours" reads stored ones.  CPU time
includes that of processes that a conversion starts.  Needs a quiet machine.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from absl import app, flags

flags.DEFINE_multi_string("model", ["shufflenet_v2"], "Networks, with their default weights.")
flags.DEFINE_integer("rounds", 3, "Conversions of each kind.")

PLAIN = """
import sys, time
start = time.monotonic()
def tell(stage):
    global start
    print(f"plain: {stage}: {time.monotonic() - start:.1f} s", file=sys.stderr)
    start = time.monotonic()
import numpy as np, tensorflow as tf
from convert.network import create
from convert.quantization.synthetic_inputs import batch_size
from convert.resolve_model import complete
from convert.settings import Model
tell("import")
model = create(complete(Model(sys.argv[1])), seed=0, warn=lambda message: None).model
tell("network and weights")
rng = np.random.default_rng(0)
shape = (batch_size(model), *model.inputs[0].shape[1:])
pictures = rng.uniform(-1, 1, shape).astype(np.float32)
converter = tf.lite.TFLiteConverter.from_keras_model(model)
converter.optimizations = [tf.lite.Optimize.DEFAULT]
converter.representative_dataset = lambda: ([x[None]] for x in pictures)
converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
converter.inference_input_type = converter.inference_output_type = tf.int8
open(sys.argv[2], "wb").write(converter.convert())
tell("convert")
"""
PROJECT = Path(__file__).resolve().parents[1]
STAGE = re.compile(r"^(?:convert|plain): (.+): ([\d.]+) s$", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """One process: times in seconds, the peak in MB, and the stages that it reported."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    stages: tuple[tuple[str, float], ...]


def main(argv: list[str]) -> None:
    """Prints a Markdown table, one row for each kind of conversion, and the stages' seconds."""
    print("| network | conversion | wall s | CPU s | peak MB | of the plain script's CPU |")
    print("|---|---|---:|---:|---:|---:|")
    stages = []
    for model in flags.FLAGS.model:
        runs = _interleaved(model, flags.FLAGS.rounds)
        plain = min(run.cpu_s for run in runs["plain script"])
        for kind, measured in runs.items():
            wall, cpu = min(run.wall_s for run in measured), min(run.cpu_s for run in measured)
            peak = max(run.peak_mb for run in measured)
            print(f"| {model} | {kind} | {wall:.1f} | {cpu:.1f} | {peak:.0f} | {cpu / plain:.2f} |")
            seconds = defaultdict(list)
            for run in measured:
                for stage, value in run.stages:
                    seconds[stage].append(value)
            medians = (f"{stage} {statistics.median(v):.1f}" for stage, v in seconds.items())
            stages.append(f"- {model}, {kind}: {', '.join(medians)}")
    print("\nMedian wall seconds of the stages that the commands report:\n")
    print("\n".join(stages))


def _interleaved(model: str, rounds: int) -> dict[str, list[Run]]:
    with tempfile.TemporaryDirectory(prefix="shufflelite-conversion-") as name:
        folder = Path(name)
        ours = ["-m", "convert", "--model", model, "--int8", "--out", str(folder / "out")]
        commands = {
            "plain script": ["-c", PLAIN, model, str(folder / "plain.tflite")],
            "ours, first": [*ours, "--nocalibration_cache"],
            "ours": ours,
        }
        cache = folder / "cache"
        _run(ours, cache)  # fills it
        runs = defaultdict(list)
        for _ in range(rounds):
            for kind, command in commands.items():
                runs[kind].append(_run(command, cache))
    return runs


def _run(arguments: list[str], cache: Path) -> Run:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "TF_CPP_MIN_LOG_LEVEL": "3"}
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=PROJECT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=told,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall_s = time.monotonic() - start
        told.seek(0)
        text = told.read()
    if process.returncode:
        sys.exit(f"{arguments}: failed with {process.returncode}:\n{text[-2000:]}")
    stages = tuple((stage, float(seconds)) for stage, seconds in STAGE.findall(text))
    peak_mb = usage.ru_maxrss / 1024 * 1.048576
    return Run(wall_s, usage.ru_utime + usage.ru_stime, peak_mb, stages)


if __name__ == "__main__":
    app.run(main)
