"""Reads and writes .tflite files as the mutable `ModelT` of TFLite's schema."""

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_ALIGNMENT = 16  # bytes, of constants: as the converter writes them


class _Builder(flatbuffers.Builder):
    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:  # noqa: N802, N803
        return super().StartVector(elemSize, numElems, _ALIGNMENT if elemSize == 1 else alignment)


def pack(model: Any) -> bytes:
    """Returns the file of a `ModelT`."""
    builder = _Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def unpack(data: bytes) -> Any:
    """Returns the `ModelT` of a file."""
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))


def indices(tensors: Any) -> list[int]:
    """The tensors of a list, which is 0 if it is empty and has -1 for omitted optional tensors."""
    return [] if isinstance(tensors, int) else [int(tensor) for tensor in tensors if tensor >= 0]


def operator_code(model: Any, builtin: int, version: int) -> int:
    """Returns the index of an operator type in `model`, and adds the type if it is new."""
    for number, code in enumerate(model.operatorCodes):
        if (max(code.builtinCode, code.deprecatedBuiltinCode), code.version) == (builtin, version):
            return number
    model.operatorCodes.append(
        schema.OperatorCodeT(
            deprecatedBuiltinCode=min(builtin, 127), builtinCode=builtin, version=version
        )
    )
    return len(model.operatorCodes) - 1


def add_buffer(model: Any, values: np.ndarray) -> int:
    """Appends a constant's values; returns the index of their buffer."""
    model.buffers.append(schema.BufferT(data=np.frombuffer(values.tobytes(), np.uint8)))
    return len(model.buffers) - 1


def quantization(scale: float | np.ndarray, zero_point: int = 0) -> Any:
    """The quantization of a tensor, per tensor or, with several scales, per channel."""
    scales = np.atleast_1d(np.asarray(scale, np.float32))
    return schema.QuantizationParametersT(
        scale=scales, zeroPoint=np.full(len(scales), zero_point, np.int64)
    )
