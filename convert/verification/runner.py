"""Runs .tflite files in LiteRT, with XNNPACK where it can."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from convert.calibration_data import Inputs
from convert.quantization.int8_range import TIES
from keras_models.accuracy import Classifier
from keras_models.images.decode import Preprocessing


@dataclass(frozen=True)
class Tensor:
    """An input or output of the file; a float one has scale 0."""

    name: str
    index: int  # by which the interpreter knows it
    dtype: str
    shape: tuple[int, ...]
    scale: float
    zero_point: int


def load(data: bytes) -> Interpreter:
    """Makes an interpreter that is ready to run, on one thread."""
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def ends(interpreter: Interpreter) -> tuple[Tensor, Tensor]:
    """The first input and the first output."""
    source, result = (
        Tensor(
            name=details["name"],
            index=int(details["index"]),
            dtype=np.dtype(details["dtype"]).name,
            shape=tuple(int(n) for n in details["shape"]),
            scale=float(details["quantization"][0]),
            zero_point=int(details["quantization"][1]),
        )
        for details in (interpreter.get_input_details()[0], interpreter.get_output_details()[0])
    )
    return source, result


def run(data: bytes, inputs: Inputs) -> Iterator[np.ndarray]:
    """Yields the logits of each input as float32, (classes,)."""
    interpreter = load(data)
    source, result = ends(interpreter)
    for batch in inputs.batches(1):
        interpreter.set_tensor(source.index, quantize(batch, source))
        interpreter.invoke()
        yield dequantize(interpreter.get_tensor(result.index)[0], result.scale, result.zero_point)


def classifier_of(data: bytes, preprocessing: Preprocessing) -> Classifier:
    """Makes of a file a function of uint8 pictures; each thread runs an interpreter of its own.

    LiteRT lets go of Python's lock while it computes, so threads compute at the same time.
    """
    source, result = ends(load(data))
    table = stored_pixels(source, preprocessing)
    own = threading.local()

    def classify(pictures: np.ndarray) -> np.ndarray:
        if not hasattr(own, "interpreter"):
            own.interpreter = load(data)
        interpreter = own.interpreter
        ordered = pictures if preprocessing.channel_order == "rgb" else pictures[..., ::-1]
        logits = np.empty((len(pictures), result.shape[-1]), np.float32)
        for picture, given in zip(ordered, logits, strict=True):
            stored = np.stack([table[:, c][picture[..., c]] for c in range(3)], axis=-1)
            interpreter.set_tensor(source.index, stored[None])
            interpreter.invoke()
            values = interpreter.get_tensor(result.index)[0]
            given[:] = dequantize(values, result.scale, result.zero_point)
        return logits

    return classify


def quantize(x: np.ndarray, tensor: Tensor) -> np.ndarray:
    """Float inputs as the file takes them, of the same shape; see `TIES`."""
    if not tensor.scale:
        return x.astype(tensor.dtype)
    limits = np.iinfo(tensor.dtype)
    steps = np.floor(x / tensor.scale + tensor.zero_point + (0.5 - TIES))
    return np.clip(steps, limits.min, limits.max).astype(tensor.dtype)


def dequantize(values: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    """What stored values stand for, in float32; float ones, of scale 0, stand for themselves."""
    if not scale:
        return values.astype(np.float32)
    return (values.astype(np.float32) - zero_point) * np.float32(scale)


def stored_pixels(source: Tensor, preprocessing: Preprocessing) -> np.ndarray:
    """(256, 3): what the file takes for each value of a pixel, in the order of its channels.

    Looking it up gives what computing it does, in a quarter of the time.
    """
    every = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None], (256, 3))
    return quantize(preprocessing.to_input(every[None, None]), source)[0, 0]
