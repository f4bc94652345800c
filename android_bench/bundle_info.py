"""The network in a .tflite file, as described by the bundle around it."""

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from keras_models import registry
from shufflelite import config
from shufflelite.config import Bounded, setting
from shufflelite.errors import InputError


@dataclass(frozen=True)
class BundleInfo(Bounded):
    """A network by its name in the registry; accuracies are in percent, None where unknown."""

    name: str
    options: Mapping[str, bool | int | float | str]  # of its builder: width, groups, ...
    resolution: int = setting(least=1)
    num_classes: int = setting(least=1)
    precision: str = setting()
    params: int = setting(least=1)
    multiply_adds: int = setting(least=1)
    published_top1: float | None = setting(least=0, most=100)
    top1: float | None = setting(least=0, most=100)  # of the file, as its conversion measured it

    def __post_init__(self) -> None:
        super().__post_init__()
        config.convert(self.options.get("width", 1.0), float, "width", origin="")

    @property
    def width(self) -> float:
        """The width multiplier."""
        return float(self.options.get("width", 1.0))


def read(path: Path) -> BundleInfo | None:
    """Reads report.json beside the file; None for a file that `convert` did not write."""
    try:
        report = config.read_json(path.parent / "report.json")
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
    except (OSError, ValueError, LookupError, TypeError):
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
