"""What a conversion starts from.  Imports no TensorFlow."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from convert.bundle import writer
from convert.resolve_model import complete
from convert.settings import ConversionSettings


@dataclass(frozen=True)
class Conversion:
    """Settings that are complete, and the folder of the bundle."""

    settings: ConversionSettings
    folder: Path


def resolve(settings: ConversionSettings) -> Conversion:
    """Completes the settings from the weights; see `resolve_model.complete`."""
    settings = dataclasses.replace(settings, model=complete(settings.model))
    return Conversion(settings, writer.folder(settings))
