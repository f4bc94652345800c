"""What the code templates need to know of a file: dtypes, quantization and preprocessing."""

from typing import Any

import numpy as np

from convert.quantization import int8_range
from convert.verification import runner
from convert.verification.runner import IoTensor
from keras_models.images.decode import Preprocessing


def variables(
    source: IoTensor, result: IoTensor, preprocessing: Preprocessing, output_name: str
) -> dict[str, Any]:
    """The variables of the code templates.

    Args:
      source: The file's input.
      result: Its output.
      preprocessing: How a picture becomes its input.
      output_name: What the values of the output are: logits or scores.
    """
    _, resolution, _, channels = source.shape
    classes = result.shape[-1]
    limits = np.iinfo(source.dtype) if source.scale else None
    return {
        "input": source,
        "input_kind": input_kind(source, preprocessing),
        "input_bytes": resolution * resolution * channels * np.dtype(source.dtype).itemsize,
        "low": limits and limits.min,
        "high": limits and limits.max,
        "half": 0.5 - int8_range.TIES,
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "channel_order": preprocessing.channel_order,
        "interpolation": preprocessing.interpolation,
        "resolution": resolution,
        "shorter_side": preprocessing.shorter_side(resolution),
        "output": result,
        "output_name": output_name,
        "output_bytes": classes * np.dtype(result.dtype).itemsize,
        "classes": classes,
    }


def input_kind(source: IoTensor, preprocessing: Preprocessing) -> str:
    """How a pixel is stored: "pixel" (as it is; int8: minus 128), "normalized" or "quantized"."""
    pixels = np.arange(256)[:, None] - 128 * (source.dtype == "int8")
    if (runner.stored_pixels(source, preprocessing) == pixels).all():
        return "pixel"
    return "normalized" if source.dtype == "float32" else "quantized"


def float32(value: float, suffix: str = "") -> str:
    """The shortest decimal number that reads back as this float32."""
    return str(np.float32(value)) + suffix


def signed(value: int) -> str:
    """An integer to add, as " + 5" or " - 5"; nothing for 0."""
    return f" {'-' if value < 0 else '+'} {abs(value)}" if value else ""
