"""Flags of the preprocessing of .tflite files that do not describe it."""

from dataclasses import dataclass
from typing import Any, Literal

from absl import app

from keras_models.images.decode import Preprocessing
from shufflelite.config import setting

_WITHOUT_REPORT = ", for .tflite files without report.json"


@dataclass(frozen=True)
class PreprocessingFlags:
    """Fields of `Preprocessing`; None leaves those of the file's metadata, or the default."""

    TOPIC = "preprocessing"

    mean: tuple[float, ...] | None = setting(
        None,
        value_name="X[,X,X]",
        help=f"Mean in pixel units, 0 to 255, one or one per channel{_WITHOUT_REPORT}.",
    )
    std: tuple[float, ...] | None = setting(
        None, value_name="X[,X,X]", help=f"Standard deviation, like --mean{_WITHOUT_REPORT}."
    )
    channel_order: Literal["rgb", "bgr"] | None = setting(
        None, help=f"Order of the channels{_WITHOUT_REPORT}. Default: the metadata's, or rgb."
    )
    crop_fraction: float | None = setting(
        None,
        help=f"Share of the shorter side that is kept{_WITHOUT_REPORT}. Default: the metadata's, "
        "or 0.875.",
    )
    interpolation: Literal["bilinear", "bicubic"] | None = setting(
        None,
        help=f"How pictures are resized{_WITHOUT_REPORT}. Default: the metadata's, or bilinear.",
    )

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of `Preprocessing` that were passed.

        Raises:
          UsageError: one of --mean and --std alone, or not a number for each channel.
          InputError: a value is none of `Preprocessing`.
        """
        fields = {name: value for name, value in vars(self).items() if value is not None}
        for name, other in (("mean", "std"), ("std", "mean")):
            if name not in fields:
                continue
            if other not in fields:
                raise app.UsageError(f"expected --{other} too, got --{name}")
            if len(fields[name]) not in (1, 3):
                numbers = ",".join(map(str, fields[name]))
                raise app.UsageError(
                    f"--{name}: expected a number, or one for each channel, got {numbers!r}"
                )
            fields[name] *= 3 // len(fields[name])
        Preprocessing(**fields)  # checks the values
        return fields
