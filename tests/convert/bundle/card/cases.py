"""Ends of files in all dtypes, with what goes in and comes out of each."""

from dataclasses import dataclass

import numpy as np

from convert.bundle.card import render, snippets
from convert.quantization import quantize
from convert.verification import runner
from convert.verification.runner import IoTensor
from keras_models.images.decode import Preprocessing

SIDE, CLASSES = 16, 11
ALIKE = Preprocessing()
PIXELS = Preprocessing((0.0,) * 3, (1.0,) * 3)
UNIT = Preprocessing((0.0,) * 3, (255.0,) * 3)
IMAGENET = Preprocessing((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
ODD = Preprocessing((0.4, 127.5, 254.6), (50.0, 60.0, 70.0), "bgr", 0.8, "bicubic")
DTYPES = ("int8", "uint8", "float32")
KOTLIN, JAVA, SWIFT = "classifier.kt.j2", "classifier.java.j2", "classifier.swift.j2"
CPP, PYTHON = "classifier.cc.j2", "classify.py.j2"
TEMPLATES = (KOTLIN, JAVA, SWIFT, CPP, PYTHON)


@dataclass(frozen=True)
class Case:
    """What a file takes and gives."""

    source: IoTensor
    result: IoTensor
    preprocessing: Preprocessing

    def code(self, template: str) -> str:
        variables = snippets.variables(self.source, self.result, self.preprocessing, "logits")
        return render.environment().get_template(template).render(variables)

    @property
    def stored(self) -> bytes:
        """What goes in for `picture`."""
        values = self.preprocessing.to_input(picture()[None])
        return runner.quantize(values, self.source).tobytes()

    @property
    def output(self) -> np.ndarray:
        """What a network might put out."""
        values = np.random.default_rng(0).normal(0, 60, CLASSES)
        if not self.result.scale:
            return values.astype(np.float32)
        limits = np.iinfo(self.result.dtype)
        return (values + self.result.zero_point).clip(limits.min, limits.max).astype(limits.dtype)

    @property
    def values(self) -> np.ndarray:
        """What `output` stands for."""
        return runner.dequantize(self.output, self.result.scale, self.result.zero_point)


def picture() -> np.ndarray:
    """Every value in every channel, (SIDE, SIDE, 3) uint8."""
    value = np.arange(256)
    channels = np.stack([value, 7 * value + 3, 255 - value], axis=-1) % 256
    return channels.astype(np.uint8).reshape(SIDE, SIDE, 3)


def source(dtype: str, preprocessing: Preprocessing) -> IoTensor:
    """The input of a file that `convert` would make."""
    shape = (1, SIDE, SIDE, 3)
    if dtype == "float32":
        return IoTensor("image", 0, dtype, shape, 0.0, 0)
    range_ = quantize.input_range(preprocessing)
    scale = (range_.high - range_.low) / 255
    zero_point = np.iinfo(dtype).min - round(range_.low / scale)
    return IoTensor("image", 0, dtype, shape, float(np.float32(scale)), zero_point)


def result(dtype: str) -> IoTensor:
    scale, zero_point = {
        "int8": (0.0123, -17),
        "uint8": (1 / 256, 0),
        "float32": (0.0, 0),
    }[dtype]
    return IoTensor("logits", 1, dtype, (1, CLASSES), float(np.float32(scale)), zero_point)


CASES = [
    Case(source(dtype, seen), result(DTYPES[(number + place) % 3]), seen)
    for number, seen in enumerate((ALIKE, PIXELS, UNIT, IMAGENET, ODD))
    for place, dtype in enumerate(DTYPES)
]
