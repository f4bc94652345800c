"""The code that runs a bundle's file, written for its dtypes and preprocessing."""

from string import Template

import numpy as np

from convert.bundle.card.languages import NORMALIZED, PIXEL, QUANTIZED, Language
from convert.quantization import int8_range
from convert.verification import runner
from convert.verification.runner import Tensor
from keras_models.images.decode import Preprocessing


def code(
    language: Language, source: Tensor, result: Tensor, preprocessing: Preprocessing, *, name: str
) -> str:
    """The code in a language.

    Args:
      language: Which.
      source: The file's input.
      result: Its output.
      preprocessing: How a picture becomes its input.
      name: What the values of the output are: logits or scores.
    """
    _, side, _, channels = source.shape
    classes, kind = result.shape[-1], kind_of_input(source, preprocessing)
    feed = _fill(language, language.feed[kind], source, added=source.zero_point)
    read = _fill(language, language.read[result.dtype], result, added=-result.zero_point)
    statistics = ""
    if kind in (NORMALIZED, QUANTIZED):
        for statistic in ("mean", "std"):
            values = ", ".join(_number(language, v) for v in getattr(preprocessing, statistic))
            statistics += Template(language.statistics).substitute(name=statistic, values=values)
    return Template(language.code).substitute(
        name=name,
        side=side,
        shorter=preprocessing.shorter_side(side),
        filter=preprocessing.interpolation.upper(),
        classes=classes,
        input_type=language.types.get(source.dtype),
        output_type=language.types.get(result.dtype),
        input_bytes=side * side * channels * np.dtype(source.dtype).itemsize,
        output_bytes=classes * np.dtype(result.dtype).itemsize,
        statistics=statistics,
        order=language.order[preprocessing.channel_order],
        feed=feed,
        read=read,
    )


def kind_of_input(source: Tensor, preprocessing: Preprocessing) -> str:
    """How the file takes a pixel: a key of `Language.feed`."""
    pixels = np.arange(256)[:, None] - 128 * (source.dtype == "int8")
    if (runner.stored_pixels(source, preprocessing) == pixels).all():
        return PIXEL[source.dtype]
    return NORMALIZED if source.dtype == "float32" else QUANTIZED


def digits(value: float) -> str:
    """As few digits as tell a float32 from all others."""
    return str(np.float32(value))


def _fill(language: Language, text: str, tensor: Tensor, *, added: int) -> str:
    if not tensor.scale:
        return Template(text).substitute()
    limits = np.iinfo(tensor.dtype)
    return Template(text).substitute(
        scale=_number(language, tensor.scale),
        zero=f" {'-' if added < 0 else '+'} {abs(added)}" if added else "",
        half=_number(language, 0.5 - int8_range.TIES),
        low=limits.min,
        high=limits.max,
        input_type=language.types.get(tensor.dtype),
    )


def _number(language: Language, value: float) -> str:
    return Template(language.number).substitute(digits=digits(value))
