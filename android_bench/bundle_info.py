"""Which network a .tflite file is, as the bundle around it tells."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_models import registry
from shufflelite.errors import InputError


@dataclass(frozen=True)
class Network:
    """A network by its name in the registry; accuracies are in percent, None where unknown."""

    name: str
    options: Mapping[str, Any]  # of its builder: width, groups, ...
    resolution: int
    num_classes: int
    precision: str
    params: int
    multiply_adds: int
    published_top1: float | None
    top1: float | None  # of the file, as its conversion measured it


def of(path: Path) -> Network | None:
    """Reads report.json beside the file; None for a file that `convert` did not make."""
    report = path.parent / "report.json"
    try:
        told = json.loads(report.read_text(encoding="utf-8"))
        model = told["settings"]["model"]
        resolution = told["audit"]["input"]["shape"][1]
        return Network(
            name=model["name"],
            options=told["options"],
            resolution=resolution,
            num_classes=model["num_classes"],
            precision=told["settings"]["quantization"]["precision"],
            params=told["params"],
            multiply_adds=told["multiply_adds"],
            published_top1=_published(
                model["name"],
                told["options"],
                resolution=resolution,
                num_classes=model["num_classes"],
            ),
            top1=told["fidelity"]["top1"],
        )
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _published(name: str, options: Mapping[str, Any], **sizes: int) -> float | None:
    try:
        found = registry.published(name, options, **sizes)
    except InputError:
        return None
    return None if found is None else found.top1
