"""The form of a network that a target runs fastest, found by measuring whole files there.

Decision after decision, each alternative becomes a file, and `android_bench` measures them beside
the fastest form so far in one interleaved run.  What was found is kept, for each network, target
and runtime version.
"""

import dataclasses
import hashlib
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tf_keras as keras

from convert import export
from convert.lowering import lower
from convert.lowering.options import GENERIC, Form, Grouped, decisions
from convert.quantization import quantize
from convert.quantization.int8_range import Range
from convert.settings import ConversionSettings, Precision, Quantization
from shufflelite.atomic import replacing
from shufflelite.download import cache_folder
from shufflelite.errors import InputError
from shufflelite.progress import Progress

SCHEMA = 2  # of what is kept
CLEARLY = 0.995  # of the cost: what gains less stays as it was
TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Gain:
    """A decision, what was chosen, and its cost over that of the form before."""

    decision: str
    chosen: str
    ratio: float


@dataclass(frozen=True)
class Tuned:
    """A form, and how it was found; no gains: it is the generic one."""

    form: Form
    gains: tuple[Gain, ...] = ()


def form_for(model: keras.Model, settings: ConversionSettings, progress: Progress) -> Tuned:
    """Returns the form for the settings' target: measured now or before, or else the generic one.

    Raises:
      InputError: the target cannot measure; the message is that of `android_bench`.
    """
    wanted = settings.lowering
    if wanted.target == "generic":
        return Tuned(GENERIC)
    kept = cache_folder() / "forms" / f"{_key(model, settings)}.json"
    if not wanted.tune:
        if kept.is_file():
            return _read(kept)
        progress.warn(f"nothing was measured on {wanted.target} yet: generic; pass --tune")
        return Tuned(GENERIC)
    _try(wanted.target)
    tuned = tune(model, settings, progress)
    with replacing(kept) as partial:
        partial.write_text(json.dumps(_plain(tuned), indent=2) + "\n")
    return tuned


def tune(model: keras.Model, settings: ConversionSettings, progress: Progress) -> Tuned:
    """Measures the forms of a training-form model, one decision after the other."""
    form, gains = GENERIC, []
    own_size = model.count_params()
    with tempfile.TemporaryDirectory(prefix="shufflelite-tune-") as folder:
        for decision in decisions(model):
            forms = decision.options(form)
            current = decision.current(form)
            forms = {current: form} | {name: f for name, f in forms.items() if name != current}
            files = {}
            with progress.stage(f"forms for {decision.name}"):
                for number, (name, candidate) in enumerate(forms.items()):
                    deployed = lower(model, integer=_is_integer(settings), form=candidate)
                    grown = 100 * (deployed.count_params() / own_size - 1)
                    limit = settings.lowering.max_size_growth
                    if number and limit is not None and grown > limit:
                        continue
                    files[name] = Path(folder) / f"{number}.tflite"
                    files[name].write_bytes(stand_in(deployed, settings.quantization))
            if len(files) == 1:
                continue
            with progress.stage(f"measure {len(files)} forms on {settings.lowering.target}"):
                ratios = measure(list(files.values()), settings.lowering.target)
            costs = dict(zip(files, ratios, strict=True))
            best = min(costs, key=costs.__getitem__)
            if costs[best] > CLEARLY:
                best = next(iter(files))
            form = forms[best]
            gains.append(Gain(decision.name, best, round(costs[best], 4)))
    return Tuned(form, tuple(gains))


def measure(files: Sequence[Path], target: str) -> list[float]:
    """The cost of each file over that of the first, in one interleaved run of `android_bench`.

    Raises:
      InputError: it could not be measured.
    """
    with tempfile.TemporaryDirectory(prefix="shufflelite-rows-") as folder:
        words = ["--models", *map(str, files), "--target", target, "--json"]
        out = str(Path(folder) / "rows.jsonl")
        command = [sys.executable, "-m", "shufflelite", "bench", *words, "--out", out]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise InputError(f"--target {target}: {said[-1] if said else 'android_bench failed'}")
    rows = {row["path"]: row["ratio"] for row in json.loads(done.stdout)}
    return [rows[str(path)] for path in files]


def stand_in(deployed: keras.Model, settings: Quantization) -> bytes:
    """A file that costs what the real one costs: its ranges need not be the right ones."""
    if settings.precision is Precision.INT16X8:
        raise InputError("--tune: expected another precision than int16x8, which only counts data")
    if settings.precision is not Precision.INT8:
        return export.to_tflite(deployed, settings, None)
    groups = quantize.shared_ranges(deployed)
    ranges = {name: Range(-1.0, 1.0) for group in groups for name in group}
    ranges |= {deployed.input_names[0]: Range(-1.0, 1.0)}
    return export.to_tflite(quantize.fake_quantize(deployed, ranges), settings, None)


def _try(target: str) -> None:
    """Raises InputError where the target cannot measure, before minutes are spent on forms."""
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(8, 1)(inputs))
    with tempfile.TemporaryDirectory(prefix="shufflelite-try-") as folder:
        file = Path(folder) / "convolution.tflite"
        file.write_bytes(stand_in(model, Quantization(precision=Precision.FLOAT32)))
        measure([file], target)


def _is_integer(settings: ConversionSettings) -> bool:
    return settings.quantization.precision.needs_inputs


def _key(model: keras.Model, settings: ConversionSettings) -> str:
    told = {
        "schema": SCHEMA,
        "network": json.loads(model.to_json()),
        "precision": settings.quantization.precision.value,
        "target": settings.lowering.target,
        "max_size_growth": settings.lowering.max_size_growth,
        "machine": [platform.node(), platform.machine()],
        "runtime": version("ai-edge-litert"),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def _plain(tuned: Tuned) -> dict[str, Any]:
    form = tuned.form
    return {
        "shuffles": form.shuffles,
        "grouped": {str(side): way.value for side, way in form.grouped.items()},
        "whole_outputs": sorted(form.whole_outputs),
        "gains": [dataclasses.asdict(gain) for gain in tuned.gains],
    }


def _read(path: Path) -> Tuned:
    kept: Mapping[str, Any] = json.loads(path.read_text())
    grouped = {int(side): Grouped(way) for side, way in kept["grouped"].items()}
    form = Form(kept["shuffles"], grouped, frozenset(kept["whole_outputs"]))
    return Tuned(form, tuple(Gain(**gain) for gain in kept["gains"]))
