"""The command line of a conversion: which flag sets which setting, and the other way round."""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from convert.settings import Model, Precision, Settings
from shufflelite import config

FLAGS = {  # flag: the setting that it sets
    "model": "model.name",
    "width": "model.options.width",
    "groups": "model.options.groups",
    "stem": "model.options.stem",
    "variant": "model.options.variant",
    "allow_any_width": "model.options.allow_any_width",
    "resolution": "model.resolution",
    "resolution_multiplier": "model.resolution_multiplier",
    "num_classes": "model.num_classes",
    "weights": "model.weights",
    "source": "model.source",
    "labels": "model.labels",
    "lowering": "lowering.way",
    "target": "lowering.target",
    "tune": "lowering.tune",
    "max_size_growth": "lowering.max_size_growth",
    "precision": "quantization.precision",
    "io_dtype": "quantization.io_dtype",
    "scores": "quantization.scores",
    "per_channel": "quantization.per_channel",
    "calibration": "quantization.calibration",
    "calibration_samples": "quantization.calibration_samples",
    "ranges": "quantization.ranges",
    "bias_correction": "quantization.bias_correction",
    "qat_epochs": "qat.epochs",
    "qat_data": "qat.data",
    "distillation": "qat.distillation",
    "equalize": "quantization.equalization",
    "keep_float": "quantization.keep_float",
    "int16": "quantization.int16",
    "auto_precision": "quantization.auto_precision",
    "data": "verification.data",
    "max_accuracy_drop": "verification.max_accuracy_drop",
    "min_agreement": "verification.min_agreement",
    "min_sqnr_db": "verification.min_sqnr_db",
    "out": "out",
    "c_array": "c_array",
    "seed": "seed",
}
OPTIONS = "model.options."


def words(settings: Settings) -> list[str]:
    """The command that has these settings, but for where it writes."""
    places = {place: flag for flag, place in FLAGS.items()}
    usual = dict(_leaves(config.to_dict(Settings(Model(settings.model.name)))))
    found = ["python", "-m", "convert", "--model", settings.model.name]
    for place, value in _leaves(config.to_dict(settings)):
        if place in ("model.name", "out") or value == usual.get(place):
            continue
        flag = places.get(place)
        if value == Precision.INT8.value and flag == "precision":
            found.append("--int8")
        elif isinstance(value, bool) and flag:
            found.append(f"--{'' if value else 'no'}{flag}")
        elif flag:
            found += [f"--{flag}", ",".join(value) if isinstance(value, list) else str(value)]
        elif place.startswith(OPTIONS):
            found += ["--option", f"{place.removeprefix(OPTIONS)}={toml(value)}"]
        else:
            found += ["--set", f"{place}={toml(value)}"]
    return found


def line(settings: Settings) -> str:
    """`words` for a shell."""
    return shlex.join(words(settings))


def toml(value: bool | float | str | list[str]) -> str:
    """A setting's value as TOML has it."""
    # JSON's NaN, and its two escapes for an emoji, are not TOML's
    return str(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _leaves(table: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value
