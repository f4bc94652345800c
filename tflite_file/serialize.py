"""Packs a `ModelT` of TFLite's schema into the bytes of a .tflite file."""

from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

_ALIGNMENT = 16  # bytes, of constants: as in what the converter writes


class _Builder(flatbuffers.Builder):
    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:  # noqa: N802, N803
        return super().StartVector(elemSize, numElems, _ALIGNMENT if elemSize == 1 else alignment)


def pack(model: Any) -> bytes:
    """The file of a `ModelT` of TFLite's schema."""
    builder = _Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def indices(tensors: Any) -> list[int]:
    """Tensors of a list, which is 0 when it is empty and has -1 for each optional one left out."""
    return [] if isinstance(tensors, int) else [int(tensor) for tensor in tensors if tensor >= 0]


def operator_code(model: Any, builtin: int, version: int) -> int:
    """The index of an operator's type in a `ModelT`, which gets it where it has none such."""
    for number, code in enumerate(model.operatorCodes):
        if (max(code.builtinCode, code.deprecatedBuiltinCode), code.version) == (builtin, version):
            return number
    model.operatorCodes.append(
        schema.OperatorCodeT(
            deprecatedBuiltinCode=min(builtin, 127), builtinCode=builtin, version=version
        )
    )
    return len(model.operatorCodes) - 1
