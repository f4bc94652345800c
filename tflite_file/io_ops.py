"""Has a file take pixels as they are, and give probabilities: what readers of pictures expect."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_file.metadata import PROBABILITY
from tflite_file.serialize import indices, operator_code, pack

TYPE = schema.TensorType
BUILTIN = schema.BuiltinOperator
ZERO = {TYPE.INT8: -128, TYPE.UINT8: 0}  # stored value of 0, where the least is 0
SOFTMAX_VERSIONS = {TYPE.INT8: 2, TYPE.UINT8: 1, TYPE.FLOAT32: 1}
CONV_VERSIONS = {TYPE.INT8: 3, TYPE.FLOAT32: 1}


def give_probabilities(data: bytes) -> bytes:
    """Appends a softmax, of the output's dtype: int8 and uint8 then have steps of 1/256."""
    model, graph = _opened(data)
    (last,) = graph.outputs
    logits = graph.tensors[last]
    quantization = _quantization(1 / 256, ZERO[logits.type]) if logits.type in ZERO else None
    graph.outputs = [_add(graph, PROBABILITY, logits.type, logits.shape, quantization)]
    code = operator_code(model, BUILTIN.SOFTMAX, SOFTMAX_VERSIONS[logits.type])
    options = schema.SoftmaxOptionsT(beta=1.0)
    kind = schema.BuiltinOptions.SoftmaxOptions
    graph.operators.append(_operator(code, [last], graph.outputs, kind, options))
    for signature in model.signatureDefs or ():
        for end in signature.outputs:
            end.name, end.tensorIndex = PROBABILITY, graph.outputs[0]
    return pack(model)


def take_pixels(
    data: bytes, mean: Sequence[float], std: Sequence[float], *, reverse: bool
) -> bytes:
    """Prepends what makes pixels 0..255 the input that the file takes: a 1 x 1 convolution.

    It computes in int8 where the file does from its input on, and rounds once, as quantizing the
    input did.  A float input then takes 0..255, an int8 one the pixel - 128, a uint8 one the pixel.

    Args:
      data: The file; its input is (1, height, width, 3).
      mean: Of the input's channels, in pixel units.
      std: Likewise: an input is (pixel - mean) / std.
      reverse: Whether the channels change their order, from RGB to BGR.
    """
    model, graph = _opened(data)
    (first,) = graph.inputs
    image = graph.tensors[first]
    readers = [operator for operator in graph.operators if first in indices(operator.inputs)]
    quantized = graph.tensors[readers[0].outputs[0]]  # where the file's input is not
    if image.type == TYPE.INT8 or quantized.type != TYPE.INT8:
        place, pixels = 0, first
        normalized = _add(graph, "normalized", image.type, image.shape, image.quantization)
        for one in readers:
            one.inputs = [normalized if tensor == first else tensor for tensor in one.inputs]
    else:
        (one,) = readers
        place = graph.operators.index(one) + 1
        normalized = int(one.outputs[0])
        steps = _quantization(1.0, ZERO[TYPE.INT8])
        pixels = _add(graph, "pixels", TYPE.INT8, image.shape, steps)
        one.outputs = [pixels]
    if image.type in ZERO:
        image.quantization = _quantization(1.0, ZERO[image.type])
    dtype = graph.tensors[pixels].type
    constants = _constants(model, graph, dtype, np.array(mean), np.array(std), reverse=reverse)
    code = operator_code(model, BUILTIN.CONV_2D, CONV_VERSIONS[dtype])
    options = schema.Conv2DOptionsT(
        padding=schema.Padding.VALID, strideW=1, strideH=1, dilationWFactor=1, dilationHFactor=1
    )
    kind = schema.BuiltinOptions.Conv2DOptions
    convolution = _operator(code, [pixels, *constants], [normalized], kind, options)
    graph.operators.insert(place, convolution)
    return pack(model)


def _opened(data: bytes) -> tuple[Any, Any]:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    (graph,) = model.subgraphs
    return model, graph


def _constants(
    model: Any, graph: Any, dtype: int, mean: np.ndarray, std: np.ndarray, *, reverse: bool
) -> list[int]:
    """The tensors of the convolution's kernel, (3, 1, 1, 3), and of its biases."""
    steps = None if dtype == TYPE.FLOAT32 else _quantization(1 / (127 * std), 0)
    unit = 1 / std if steps is None else np.full(3, 127)
    kernel = (unit[:, None] * np.eye(3)[:: -1 if reverse else 1]).reshape(3, 1, 1, 3)
    if steps is None:
        stored = [kernel.astype(np.float32), (-mean * unit).astype(np.float32)]
    else:
        stored = [kernel.astype(np.int8), np.round(-mean * unit).astype(np.int32)]
    tensors = []
    for name, values in zip(("scales", "shifts"), stored, strict=True):
        type_ = getattr(TYPE, values.dtype.name.upper())
        tensors.append(_add(graph, name, type_, values.shape, steps))
        graph.tensors[-1].buffer = len(model.buffers)
        content = np.frombuffer(values.tobytes(), np.uint8)
        model.buffers.append(schema.BufferT(data=content))
    return tensors


def _operator(code: int, inputs: Sequence[int], outputs: Sequence[int], kind: int, how: Any) -> Any:
    return schema.OperatorT(
        opcodeIndex=code,
        inputs=list(inputs),
        outputs=list(outputs),
        builtinOptionsType=kind,
        builtinOptions=how,
    )


def _add(graph: Any, name: str, type_: int, shape: Sequence[int], quantization: Any) -> int:
    tensor = schema.TensorT(
        name=name, type=type_, shape=list(shape), quantization=quantization, hasRank=True
    )
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _quantization(scale: float | np.ndarray, zero_point: int) -> Any:
    scales = np.atleast_1d(np.asarray(scale, np.float32))
    return schema.QuantizationParametersT(
        scale=scales, zeroPoint=np.full(len(scales), zero_point, np.int64)
    )
