"""Converts some operators of an int8 file to float32 or int16 and leaves the others unchanged."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

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
DTYPES = {"float32": TYPE.FLOAT32, "int16": TYPE.INT16}
INT16_VERSIONS = {  # of the operators with int16 kernels
    "ADD": 3,
    "CONV_2D": 4,
    "DEPTHWISE_CONV_2D": 5,
    "FULLY_CONNECTED": 7,
    "MEAN": 3,
    "MUL": 4,
}
_CONVERSIONS = {  # from, to: operator and version
    (TYPE.INT8, TYPE.FLOAT32): (BUILTIN.DEQUANTIZE, 2),
    (TYPE.INT16, TYPE.FLOAT32): (BUILTIN.DEQUANTIZE, 3),
    (TYPE.FLOAT32, TYPE.INT8): (BUILTIN.QUANTIZE, 1),
    (TYPE.FLOAT32, TYPE.INT16): (BUILTIN.QUANTIZE, 2),
    (TYPE.INT16, TYPE.INT8): (BUILTIN.QUANTIZE, 2),
    (TYPE.INT8, TYPE.INT16): (BUILTIN.QUANTIZE, 2),
}


@dataclass(frozen=True, eq=False)
class OpOverride:
    """The dtype in which an operator computes instead of int8.

    Attributes:
      dtype: "float32", or "int16" for activations (weights stay int8).
      constants: For float32: the values of the operator's quantized constants, in their order and
        shapes.
      range_is_activation: Whether the output's int8 range clips like an activation (ReLU). Then
        all readers get the output through int8, whatever their dtype.
    """

    dtype: str
    constants: Sequence[np.ndarray] = ()
    range_is_activation: bool = False


def apply_overrides(data: bytes, overrides: Mapping[int, OpOverride]) -> bytes:
    """Returns the file with the operators at some indices overridden; it has one subgraph.

    Their inputs are converted to their dtype, and their outputs for other readers; there is no
    conversion between two operators of the same dtype.
    """
    return _Rewriter(data, overrides).rewrite()


def quantized_constants(data: bytes, operator: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The quantized constants of an operator: their values in float64, and their scales."""
    model = schema.Model.GetRootAs(data, 0)
    graph = model.Subgraphs(0)
    constants = []
    for number in indices(graph.Operators(operator).InputsAsNumpy()):
        tensor = graph.Tensors(number)
        tensor_quantization, content = tensor.Quantization(), model.Buffers(tensor.Buffer())
        if not (content.DataLength() and tensor_quantization and tensor_quantization.ScaleLength()):
            continue
        dtype = np.int32 if tensor.Type() == TYPE.INT32 else np.int8
        shape = tensor.ShapeAsNumpy()
        scales = tensor_quantization.ScaleAsNumpy().astype(np.float64)
        broadcast = np.ones(len(shape), int)
        broadcast[tensor_quantization.QuantizedDimension()] = len(scales)
        scales = scales.reshape(broadcast)
        constants.append((content.DataAsNumpy().view(dtype).reshape(shape) * scales, scales))
    return constants


def output_names(data: bytes) -> list[str]:
    """The name of each operator's first output, in execution order."""
    graph = schema.Model.GetRootAs(data, 0).Subgraphs(0)
    operators = map(graph.Operators, range(graph.OperatorsLength()))
    return [graph.Tensors(op.Outputs(0)).Name().decode() for op in operators]


class _Rewriter:
    def __init__(self, data: bytes, overrides: Mapping[int, OpOverride]) -> None:
        self.model = unpack(data)
        (self.graph,) = self.model.subgraphs
        self.overrides = overrides
        self.operators: list[Any] = []
        self.converted: dict[tuple[int, int], int] = {}  # tensor, dtype -> its copy in that dtype
        self.requested = self._requested()

    def rewrite(self) -> bytes:
        for tensor in indices(self.graph.inputs):
            self.convert(tensor, tensor)
        for number, operator in enumerate(self.graph.operators):
            override = self.overrides.get(number)
            if override:
                self.override_inputs(operator, override)
                self.set_code(operator, override)
            self.operators.append(operator)
            outputs = indices(operator.outputs)
            if override:
                operator.outputs = [self.override_output(t, override) for t in outputs]
            else:
                for tensor in outputs:
                    self.convert(tensor, tensor)
        self.graph.operators = self.operators
        self.drop_unused()
        return pack(self.model)

    def _requested(self) -> Mapping[int, set[int]]:
        """Tensor -> the dtypes in which it is read."""
        requested: dict[int, set[int]] = defaultdict(set)
        for number, operator in enumerate(self.graph.operators):
            override = self.overrides.get(number)
            for tensor in indices(operator.inputs):
                own = self.graph.tensors[tensor].type
                requested[tensor].add(DTYPES[override.dtype] if override else own)
        for tensor in indices(self.graph.outputs):
            requested[tensor].add(self.graph.tensors[tensor].type)
        return requested

    def override_output(self, tensor: int, override: OpOverride) -> int:
        """Returns an overridden operator's output, and adds its conversions for other readers."""
        dtype = DTYPES[override.dtype]
        output = self.add_copy(tensor, dtype)
        if override.range_is_activation or TYPE.INT8 in self.requested[tensor]:
            self.operators.append(self.conversion(output, tensor))
        if not override.range_is_activation:
            self.converted[tensor, dtype] = output
        self.convert(tensor, tensor if override.range_is_activation else output)
        return output

    def convert(self, tensor: int, source: int) -> None:
        """Converts `source`, which holds the tensor's values, to all requested dtypes."""
        own = self.graph.tensors[tensor].type
        if own != TYPE.INT8 or self.is_constant(tensor):
            return
        for dtype in sorted(self.requested[tensor] - {own}):
            if (tensor, dtype) not in self.converted:
                self.converted[tensor, dtype] = self.add_copy(tensor, dtype)
                self.operators.append(self.conversion(source, self.converted[tensor, dtype]))

    def conversion(self, source: int, result: int) -> Any:
        types = self.graph.tensors[source].type, self.graph.tensors[result].type
        operator = schema.OperatorT(inputs=[source], outputs=[result])
        operator.opcodeIndex = operator_code(self.model, *_CONVERSIONS[types])
        return operator

    def override_inputs(self, operator: Any, override: OpOverride) -> None:
        dtype = DTYPES[override.dtype]
        constants = iter(override.constants)
        scale = 1.0  # of an int16 convolution's accumulators
        inputs = []
        for tensor in map(int, operator.inputs):
            old = self.graph.tensors[tensor] if tensor >= 0 else None
            if old is None or old.quantization is None or old.quantization.scale is None:
                inputs.append(tensor)
                continue
            if not self.is_constant(tensor):
                inputs.append(self.converted[tensor, dtype])
            elif dtype == TYPE.FLOAT32:
                values = next(constants).astype(np.float32).reshape(old.shape)
                inputs.append(self.add(old, dtype, None, values))
            elif old.type == TYPE.INT32:
                real = self.values(old, np.int32) * old.quantization.scale
                inputs.append(
                    self.add(old, TYPE.INT64, scale, np.round(real / scale).astype(np.int64))
                )
            else:
                inputs.append(tensor)
            if dtype == TYPE.INT16:
                scale = scale * self.graph.tensors[inputs[-1]].quantization.scale
        operator.inputs = inputs

    def set_code(self, operator: Any, override: OpOverride) -> None:
        if override.dtype != "int16":
            return  # int8 kernels' versions also compute float32
        code = self.model.operatorCodes[operator.opcodeIndex]
        builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
        (type_,) = (name for name in INT16_VERSIONS if getattr(BUILTIN, name) == builtin)
        operator.opcodeIndex = operator_code(
            self.model, builtin, max(code.version, INT16_VERSIONS[type_])
        )
        if type_ == "ADD":
            operator.builtinOptions.potScaleInt16 = False

    def is_constant(self, tensor: int) -> bool:
        return self.model.buffers[self.graph.tensors[tensor].buffer].data is not None

    def values(self, tensor: Any, dtype: type) -> np.ndarray:
        return np.frombuffer(self.model.buffers[tensor.buffer].data.tobytes(), dtype)

    def add_copy(self, tensor: int, dtype: int) -> int:
        old = self.graph.tensors[tensor]
        scale = None
        if dtype == TYPE.INT16:
            (step,), (zero,) = old.quantization.scale, old.quantization.zeroPoint
            scale = step * max(128 + zero, 127 - zero) / 32767
        return self.add(old, dtype, scale, None)

    def add(self, old: Any, dtype: int, scale: Any, values: np.ndarray | None) -> int:
        """Adds a tensor like `old`; with a scale, its zero point is 0."""
        tensor = copy(old)
        tensor.type, tensor.buffer = dtype, 0
        tensor.quantization = None
        tensor.name = (
            old.name + b";" + {v: k for k, v in vars(TYPE).items()}[dtype].lower().encode()
        )
        if scale is not None:
            tensor.quantization = quantization(scale)
        if values is not None:
            tensor.buffer = add_buffer(self.model, values)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def drop_unused(self) -> None:
        """Removes the tensors and buffers that nothing refers to any more."""
        graph, model = self.graph, self.model
        signature_tensors = [
            tensor
            for signature in model.signatureDefs or ()
            for tensor in (signature.inputs or []) + (signature.outputs or [])
        ]
        lists = [graph.inputs, graph.outputs]
        lists += [tensors for op in graph.operators for tensors in (op.inputs, op.outputs)]
        used = sorted({t for tensors in lists for t in indices(tensors)})
        number = {-1: -1, **{old: new for new, old in enumerate(used)}}
        graph.tensors = [graph.tensors[old] for old in used]
        graph.inputs = [number[int(t)] for t in graph.inputs]
        graph.outputs = [number[int(t)] for t in graph.outputs]
        for op in graph.operators:
            op.inputs, op.outputs = (
                [number[int(t)] for t in tensors] for tensors in (op.inputs, op.outputs)
            )
        for tensor in signature_tensors:
            tensor.tensorIndex = number[tensor.tensorIndex]
        holders = [*graph.tensors, *(model.metadata or ())]
        buffers = {0: 0}  # the first is the empty one
        for holder in holders:
            holder.buffer = buffers.setdefault(holder.buffer, len(buffers))
        model.buffers = [model.buffers[old] for old in buffers]
