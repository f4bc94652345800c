"""Adds operators at the input and output of a file: pixels in, probabilities out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_file.metadata import PROBABILITY
from tflite_file.serialize import (
    add_buffer,
    indices,
    operator_code,
    pack,
    quantization,
    unpack,
)

TYPE = schema.TensorType
BUILTIN = schema.BuiltinOperator
ZERO_POINTS = {TYPE.INT8: -128, TYPE.UINT8: 0}  # of ranges that begin at 0
SOFTMAX_VERSIONS = {TYPE.INT8: 2, TYPE.UINT8: 1, TYPE.FLOAT32: 1}
CONV_VERSIONS = {TYPE.INT8: 3, TYPE.FLOAT32: 1}


def append_softmax(data: bytes) -> bytes:
    """Appends a softmax in the output's dtype; int8 and uint8 outputs have a scale of 1/256."""
    model = unpack(data)
    (graph,) = model.subgraphs
    (result,) = graph.outputs
    logits = graph.tensors[result]
    is_quantized = logits.type in ZERO_POINTS
    scale = quantization(1 / 256, ZERO_POINTS[logits.type]) if is_quantized else None
    graph.outputs = [_add_tensor(graph, PROBABILITY, logits.type, logits.shape, scale)]
    code = operator_code(model, BUILTIN.SOFTMAX, SOFTMAX_VERSIONS[logits.type])
    options = schema.SoftmaxOptionsT(beta=1.0)
    kind = schema.BuiltinOptions.SoftmaxOptions
    graph.operators.append(_operator(code, [result], graph.outputs, kind, options))
    for signature in model.signatureDefs or ():
        for output in signature.outputs:
            output.name, output.tensorIndex = PROBABILITY, graph.outputs[0]
    return pack(model)


def prepend_normalization(
    data: bytes, mean: Sequence[float], std: Sequence[float], *, reverse: bool
) -> bytes:
    """Prepends a 1 x 1 convolution that normalizes pixels of 0..255.

    It computes in int8 if the file starts in int8, and rounds once, like quantizing the input.
    A float or uint8 input then takes the pixel itself, an int8 one the pixel - 128.

    Args:
      data: The file; its input is (1, height, width, 3).
      mean: Per channel of the input, in pixel units.
      std: Likewise; the input is (pixel - mean) / std.
      reverse: Whether to convert the channels from RGB to BGR.
    """
    model = unpack(data)
    (graph,) = model.subgraphs
    (source,) = graph.inputs
    image = graph.tensors[source]
    readers = [operator for operator in graph.operators if source in indices(operator.inputs)]
    quantized = graph.tensors[readers[0].outputs[0]]  # if the input itself is not
    if image.type == TYPE.INT8 or quantized.type != TYPE.INT8:
        position, pixels = 0, source
        normalized = _add_tensor(graph, "normalized", image.type, image.shape, image.quantization)
        for reader in readers:
            reader.inputs = [normalized if t == source else t for t in reader.inputs]
    else:
        (quantize,) = readers
        position = graph.operators.index(quantize) + 1
        normalized = int(quantize.outputs[0])
        pixel_scale = quantization(1.0, ZERO_POINTS[TYPE.INT8])
        pixels = _add_tensor(graph, "pixels", TYPE.INT8, image.shape, pixel_scale)
        quantize.outputs = [pixels]
    if image.type in ZERO_POINTS:
        image.quantization = quantization(1.0, ZERO_POINTS[image.type])
    dtype = graph.tensors[pixels].type
    constants = _constants(model, graph, dtype, np.array(mean), np.array(std), reverse=reverse)
    code = operator_code(model, BUILTIN.CONV_2D, CONV_VERSIONS[dtype])
    options = schema.Conv2DOptionsT(
        padding=schema.Padding.VALID, strideW=1, strideH=1, dilationWFactor=1, dilationHFactor=1
    )
    kind = schema.BuiltinOptions.Conv2DOptions
    convolution = _operator(code, [pixels, *constants], [normalized], kind, options)
    graph.operators.insert(position, convolution)
    return pack(model)


def _constants(
    model: Any, graph: Any, dtype: int, mean: np.ndarray, std: np.ndarray, *, reverse: bool
) -> list[int]:
    """Adds the convolution's kernel, (3, 1, 1, 3), and biases; returns their tensors."""
    scales = None if dtype == TYPE.FLOAT32 else quantization(1 / (127 * std))
    unit = 1 / std if scales is None else np.full(3, 127)
    kernel = (unit[:, None] * np.eye(3)[:: -1 if reverse else 1]).reshape(3, 1, 1, 3)
    if scales is None:
        stored = [kernel.astype(np.float32), (-mean * unit).astype(np.float32)]
    else:
        stored = [kernel.astype(np.int8), np.round(-mean * unit).astype(np.int32)]
    tensors = []
    for name, values in zip(("scales", "shifts"), stored, strict=True):
        type_ = getattr(TYPE, values.dtype.name.upper())
        tensors.append(_add_tensor(graph, name, type_, values.shape, scales))
        graph.tensors[-1].buffer = add_buffer(model, values)
    return tensors


def _operator(
    code: int, inputs: Sequence[int], outputs: Sequence[int], kind: int, options: Any
) -> Any:
    return schema.OperatorT(
        opcodeIndex=code,
        inputs=list(inputs),
        outputs=list(outputs),
        builtinOptionsType=kind,
        builtinOptions=options,
    )


def _add_tensor(graph: Any, name: str, type_: int, shape: Sequence[int], scale: Any) -> int:
    tensor = schema.TensorT(
        name=name, type=type_, shape=list(shape), quantization=scale, hasRank=True
    )
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1
