"""Runs .tflite files in LiteRT with XNNPACK.  Imports no TensorFlow."""

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
class IoTensor:
    """An input or output tensor of the file; float tensors have scale 0."""

    name: str
    index: int  # in the interpreter
    dtype: str
    shape: tuple[int, ...]
    scale: float
    zero_point: int


def load(data: bytes) -> Interpreter:
    """Returns an interpreter that is ready to run, on one thread."""
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def io_tensors(interpreter: Interpreter) -> tuple[IoTensor, IoTensor]:
    """The first input and the first output tensor."""
    source, result = (
        IoTensor(
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
    source, result = io_tensors(interpreter)
    for batch in inputs.batches(1):
        interpreter.set_tensor(source.index, quantize(batch, source))
        interpreter.invoke()
        yield dequantize(interpreter.get_tensor(result.index)[0], result.scale, result.zero_point)


def classifier_of(data: bytes, preprocessing: Preprocessing) -> Classifier:
    """Returns a function from uint8 pictures to logits; each thread has its own interpreter.

    LiteRT releases Python's lock while it computes, so threads run in parallel.
    """
    source, result = io_tensors(load(data))
    table = stored_pixels(source, preprocessing)
    local = threading.local()

    def classify(pictures: np.ndarray) -> np.ndarray:
        if not hasattr(local, "interpreter"):
            local.interpreter = load(data)
        interpreter = local.interpreter
        ordered = pictures if preprocessing.channel_order == "rgb" else pictures[..., ::-1]
        logits = np.empty((len(pictures), result.shape[-1]), np.float32)
        for picture, row in zip(ordered, logits, strict=True):
            stored = np.stack([table[:, c][picture[..., c]] for c in range(3)], axis=-1)
            interpreter.set_tensor(source.index, stored[None])
            interpreter.invoke()
            values = interpreter.get_tensor(result.index)[0]
            row[:] = dequantize(values, result.scale, result.zero_point)
        return logits

    return classify


def quantize(x: np.ndarray, tensor: IoTensor) -> np.ndarray:
    """Float inputs in the dtype of the file's input; see `TIES`."""
    if not tensor.scale:
        return x.astype(tensor.dtype)
    limits = np.iinfo(tensor.dtype)
    steps = np.floor(x / tensor.scale + tensor.zero_point + (0.5 - TIES))
    return np.clip(steps, limits.min, limits.max).astype(tensor.dtype)


def dequantize(values: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    """The real values, in float32, of stored values; those of float tensors are the same."""
    if not scale:
        return values.astype(np.float32)
    return (values.astype(np.float32) - zero_point) * np.float32(scale)


def stored_pixels(source: IoTensor, preprocessing: Preprocessing) -> np.ndarray:
    """(256, 3): the input value for each pixel value, in the channel order of the file.

    A lookup takes a quarter of the time of the computation.
    """
    values = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None], (256, 3))
    return quantize(preprocessing.to_input(values[None, None]), source)[0, 0]
