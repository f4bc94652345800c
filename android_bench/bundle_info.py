"""The network in a .tflite file, as described by the bundle around it."""

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_models import registry
from shufflelite import config
from shufflelite.errors import InputError


@dataclass(frozen=True)
class BundleInfo:
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


def read(path: Path) -> BundleInfo | None:
    """Reads report.json beside the file; None for a file that `convert` did not write."""
    try:
        report = json.loads((path.parent / "report.json").read_text(encoding="utf-8"))
        model = report["settings"]["model"]
        fields = {
            "name": model["name"],
            "options": report["options"],
            "resolution": report["audit"]["input"]["shape"][1],
            "num_classes": model["num_classes"],
            "precision": report["settings"]["quantization"]["precision"],
            "params": report["params"],
            "multiply_adds": report["multiply_adds"],
            "published_top1": None,
            "top1": report["fidelity"]["top1"],
        }
        info = config.build(fields, BundleInfo)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return _with_published_top1(info)


def _with_published_top1(info: BundleInfo) -> BundleInfo:
    with contextlib.suppress(InputError):  # a network of the user's own
        published = registry.published(
            info.name, info.options, resolution=info.resolution, num_classes=info.num_classes
        )
        if published is not None:
            return dataclasses.replace(info, published_top1=published.top1)
    return info
