"""Autotuning: finds the lowering options that run fastest on a target, by measuring whole files.

For one decision after the other, each alternative becomes a file, and `android_bench` measures it
next to the fastest options so far in one interleaved run. The result is cached for each network,
target and runtime version.
"""

import dataclasses
import hashlib
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tf_keras as keras

from convert import export
from convert.lowering import lower
from convert.lowering.options import GENERIC, Grouped, LoweringOptions, decisions
from convert.quantization import quantize
from convert.quantization.int8_range import Range
from convert.settings import ConversionSettings, Precision, Quantization
from shufflelite import atomic, config, isolated
from shufflelite.download import cache_folder
from shufflelite.errors import InputError
from shufflelite.progress import Progress

SCHEMA = 3  # of the cached files
MAX_RATIO = 0.995  # of the cost: an alternative that gains less is not chosen
TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class TuningGain:
    """A decision, the alternative chosen, and its cost relative to the options before it."""

    decision: str
    chosen: str
    ratio: float


@dataclass(frozen=True)
class Tuned:
    """Lowering options and how they were found; without gains they are the generic ones."""

    options: LoweringOptions
    gains: tuple[TuningGain, ...] = ()
    float32_ratio: float | None = None  # time of the float32 file over the int8 file's

    def warnings(self, target: str) -> tuple[str, ...]:
        """What the measurement says against the int8 file."""
        if self.float32_ratio is None or self.float32_ratio > 1:
            return ()
        return (
            f"float32 takes {self.float32_ratio:.2f} of int8's time on {target}: int8 only makes "
            "the file smaller there; without --int8 it is as fast and loses no accuracy",
        )


def options_for(model: keras.Model, settings: ConversionSettings, progress: Progress) -> Tuned:
    """Returns the options for the settings' target: measured, cached, or else the generic ones.

    Raises:
      InputError: the target cannot measure; the message is that of `android_bench`.
    """
    lowering = settings.lowering
    if lowering.target == "generic":
        return Tuned(GENERIC)
    cached = cache_folder() / "forms" / f"{_key(model, settings)}.json"
    if not lowering.tune:
        if cached.is_file():
            return _read(cached)
        progress.warn(f"nothing was measured on {lowering.target} yet: generic; pass --tune")
        return Tuned(GENERIC)
    _check_target(lowering.target)
    tuned = tune(model, settings, progress)
    atomic.write(cached, (json.dumps(_to_json(tuned), indent=2) + "\n").encode())
    return tuned


def tune(model: keras.Model, settings: ConversionSettings, progress: Progress) -> Tuned:
    """Measures the alternatives for a training-form model, one decision after the other.

    At the end it measures the chosen int8 file beside a float32 file with the same options: without
    VNNI or dotprod, int8 may gain nothing.  Not on an emulated core: it counts instructions, which
    are no measure of time between precisions.
    """
    options, gains = GENERIC, []
    network_params = model.count_params()
    integer = settings.quantization.precision.needs_inputs
    limit = settings.lowering.max_size_growth
    with tempfile.TemporaryDirectory(prefix="shufflelite-tune-") as folder:
        for decision in decisions(model):
            current = decision.current(options)
            alternatives = {current: options} | {
                name: other
                for name, other in decision.alternatives(options).items()
                if name != current
            }
            files = {}
            with progress.stage(f"alternatives for {decision.name}"):
                for number, (name, candidate) in enumerate(alternatives.items()):
                    deployed = lower(model, integer=integer, options=candidate)
                    growth = 100 * (deployed.count_params() / network_params - 1)
                    if number and limit is not None and growth > limit:
                        continue
                    files[name] = Path(folder) / f"{number}.tflite"
                    files[name].write_bytes(stand_in(deployed, settings.quantization))
            if len(files) == 1:
                continue
            with progress.stage(f"measure {len(files)} files on {settings.lowering.target}"):
                ratios = measure(list(files.values()), settings.lowering.target)
            costs = dict(zip(files, ratios, strict=True))
            best = min(costs, key=costs.__getitem__)
            if costs[best] > MAX_RATIO:
                best = current
            options = alternatives[best]
            gains.append(TuningGain(decision.name, best, round(costs[best], 4)))
        float32_ratio = None
        precision = settings.quantization.precision
        if precision is Precision.INT8 and not settings.lowering.target.startswith("emulated:"):
            float32_ratio = _compare_float32(model, options, settings, progress, Path(folder))
    return Tuned(options, tuple(gains), float32_ratio)


def _compare_float32(
    model: keras.Model,
    options: LoweringOptions,
    settings: ConversionSettings,
    progress: Progress,
    folder: Path,
) -> float:
    float32 = Quantization(precision=Precision.FLOAT32)
    files = []
    with progress.stage("int8 and float32 file"):
        for quantization in (settings.quantization, float32):
            integer = quantization.precision.needs_inputs
            deployed = lower(model, integer=integer, options=options)
            files.append(folder / f"{quantization.precision.value}.tflite")
            files[-1].write_bytes(stand_in(deployed, quantization))
    with progress.stage(f"measure both on {settings.lowering.target}"):
        return round(measure(files, settings.lowering.target)[1], 4)


def measure(files: Sequence[Path], target: str) -> list[float]:
    """The cost of each file relative to the first, in one interleaved run of `android_bench`.

    Raises:
      InputError: `android_bench` fails.
    """
    with tempfile.TemporaryDirectory(prefix="shufflelite-rows-") as folder:
        arguments = ["--models", *map(str, files), "--target", target, "--json"]
        out = str(Path(folder) / "rows.jsonl")
        command = [sys.executable, "-m", "shufflelite", "bench", *arguments, "--out", out]
        done = subprocess.run(
            isolated.guarded(command), capture_output=True, text=True, timeout=TIMEOUT_S
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise InputError(f"--target {target}: {lines[-1] if lines else 'android_bench failed'}")
    ratios = {row["path"]: row["ratio"] for row in json.loads(done.stdout)}
    return [ratios[str(path)] for path in files]


def stand_in(deployed: keras.Model, settings: Quantization) -> bytes:
    """A file that costs as much as the final one; int8 ranges are arbitrary."""
    if settings.precision is Precision.INT16X8:
        raise InputError("--tune: expected another precision than int16x8, which only counts data")
    if settings.precision is not Precision.INT8:
        return export.to_tflite(deployed, settings, None)
    groups = quantize.shared_ranges(deployed)
    ranges = {name: Range(-1.0, 1.0) for group in groups for name in group}
    ranges |= {deployed.input_names[0]: Range(-1.0, 1.0)}
    return export.to_tflite(quantize.fake_quantize(deployed, ranges), settings, None)


def _check_target(target: str) -> None:
    """Raises InputError if the target cannot measure, before minutes are spent on files."""
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(8, 1)(inputs))
    with tempfile.TemporaryDirectory(prefix="shufflelite-try-") as folder:
        file = Path(folder) / "convolution.tflite"
        file.write_bytes(stand_in(model, Quantization(precision=Precision.FLOAT32)))
        measure([file], target)


def _key(model: keras.Model, settings: ConversionSettings) -> str:
    parts = {
        "schema": SCHEMA,
        "network": json.loads(model.to_json()),
        "precision": settings.quantization.precision.value,
        "target": settings.lowering.target,
        "max_size_growth": settings.lowering.max_size_growth,
        "machine": [platform.node(), platform.machine()],
        "runtime": version("ai-edge-litert"),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _to_json(tuned: Tuned) -> dict[str, Any]:
    options = tuned.options
    return {
        "shuffles": options.shuffles,
        "grouped": {str(height): way.value for height, way in options.grouped.items()},
        "whole_outputs": sorted(options.whole_outputs),
        "float32_ratio": tuned.float32_ratio,
        "gains": [dataclasses.asdict(gain) for gain in tuned.gains],
    }


def _read(path: Path) -> Tuned:
    try:
        cached = config.read_json(path)
        grouped = {int(height): Grouped(way) for height, way in cached["grouped"].items()}
        options = LoweringOptions(cached["shuffles"], grouped, frozenset(cached["whole_outputs"]))
        gains = config.convert(cached["gains"], tuple[TuningGain, ...], "gains", origin="")
        ratio = config.convert(cached["float32_ratio"], float | None, "float32_ratio", origin="")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: expected measured forms; pass --tune to measure again."
        ) from error
    return Tuned(options, gains, ratio)
