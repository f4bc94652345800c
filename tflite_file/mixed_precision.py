"""Has some operators of an int8 file compute in float32 or int16; the others stay as they are."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_file.serialize import indices, operator_code, pack

TYPE = schema.TensorType
BUILTIN = schema.BuiltinOperator
DTYPES = {"float32": TYPE.FLOAT32, "int16": TYPE.INT16}
INT16_VERSIONS = {  # of the operators that int16 can be asked of
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
class Change:
    """How an operator computes.

    Attributes:
      dtype: "float32", or "int16": activations alone, its weights stay int8.
      constants: Of float32: what stands for the operator's quantized constants, in their order and
        shapes; float32.
      clips: Whether the range of what it gives does the work of an activation: what others read of
        it, whatever their dtype, has gone through int8.
    """

    dtype: str
    constants: Sequence[np.ndarray] = ()
    clips: bool = False


def change(data: bytes, changes: Mapping[int, Change]) -> bytes:
    """Returns the file with some operators, by their index, changed.

    What they read is converted for them, what they give for others; between two operators of the
    same dtype there is no conversion.  Of a file's one subgraph.
    """
    return _Changing(data, changes).changed()


def constants(data: bytes, operator: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The quantized constants of an operator: their values in float64, and the size of a step."""
    model = schema.Model.GetRootAs(data, 0)
    graph = model.Subgraphs(0)
    found = []
    for number in indices(graph.Operators(operator).InputsAsNumpy()):
        tensor = graph.Tensors(number)
        quantization, content = tensor.Quantization(), model.Buffers(tensor.Buffer())
        if not (content.DataLength() and quantization and quantization.ScaleLength()):
            continue
        dtype = np.int32 if tensor.Type() == TYPE.INT32 else np.int8
        shape = tensor.ShapeAsNumpy()
        steps = quantization.ScaleAsNumpy().astype(np.float64)
        along = np.ones(len(shape), int)
        along[quantization.QuantizedDimension()] = len(steps)
        steps = steps.reshape(along)
        found.append((content.DataAsNumpy().view(dtype).reshape(shape) * steps, steps))
    return found


def tensors(data: bytes) -> list[str]:
    """The name of what each operator gives, in the order in which they run."""
    graph = schema.Model.GetRootAs(data, 0).Subgraphs(0)
    operators = map(graph.Operators, range(graph.OperatorsLength()))
    return [graph.Tensors(one.Outputs(0)).Name().decode() for one in operators]


class _Changing:
    def __init__(self, data: bytes, changes: Mapping[int, Change]) -> None:
        self.model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
        (self.graph,) = self.model.subgraphs
        self.changes = changes
        self.operators: list[Any] = []
        self.versions: dict[tuple[int, int], int] = {}  # tensor, dtype: tensor of its values in it
        self.wanted = self._wanted()

    def changed(self) -> bytes:
        for tensor in indices(self.graph.inputs):
            self.convert(tensor, tensor)
        for number, operator in enumerate(self.graph.operators):
            change = self.changes.get(number)
            if change:
                self.change_inputs(operator, change)
                self.set_code(operator, change)
            self.operators.append(operator)
            given = indices(operator.outputs)
            if change:
                operator.outputs = [self.give(tensor, change) for tensor in given]
            else:
                for tensor in given:
                    self.convert(tensor, tensor)
        self.graph.operators = self.operators
        self.drop_unused()
        return pack(self.model)

    def _wanted(self) -> Mapping[int, set[int]]:
        """Tensor: the dtypes in which it is read."""
        found: dict[int, set[int]] = defaultdict(set)
        for number, operator in enumerate(self.graph.operators):
            change = self.changes.get(number)
            for tensor in indices(operator.inputs):
                as_it_is = self.graph.tensors[tensor].type
                found[tensor].add(DTYPES[change.dtype] if change else as_it_is)
        for tensor in indices(self.graph.outputs):
            found[tensor].add(self.graph.tensors[tensor].type)
        return found

    def give(self, tensor: int, change: Change) -> int:
        """The tensor that a changed operator gives, once others have theirs of it."""
        dtype = DTYPES[change.dtype]
        given = self.add_version(tensor, dtype)
        if change.clips or TYPE.INT8 in self.wanted[tensor]:
            self.operators.append(self.conversion(given, tensor))
        if not change.clips:
            self.versions[tensor, dtype] = given
        self.convert(tensor, tensor if change.clips else given)
        return given

    def convert(self, tensor: int, given: int) -> None:
        """Makes what is still wanted of a tensor from `given`, which holds its values."""
        own = self.graph.tensors[tensor].type
        if own != TYPE.INT8 or self.is_constant(tensor):
            return
        for dtype in sorted(self.wanted[tensor] - {own}):
            if (tensor, dtype) not in self.versions:
                self.versions[tensor, dtype] = self.add_version(tensor, dtype)
                self.operators.append(self.conversion(given, self.versions[tensor, dtype]))

    def conversion(self, read: int, given: int) -> Any:
        types = self.graph.tensors[read].type, self.graph.tensors[given].type
        operator = schema.OperatorT(inputs=[read], outputs=[given])
        operator.opcodeIndex = operator_code(self.model, *_CONVERSIONS[types])
        return operator

    def change_inputs(self, operator: Any, change: Change) -> None:
        dtype = DTYPES[change.dtype]
        constants = iter(change.constants)
        scale = 1.0  # of an int16 convolution's sums
        read = []
        for tensor in map(int, operator.inputs):
            old = self.graph.tensors[tensor] if tensor >= 0 else None
            if old is None or old.quantization is None or old.quantization.scale is None:
                read.append(tensor)
                continue
            if not self.is_constant(tensor):
                read.append(self.versions[tensor, dtype])
            elif dtype == TYPE.FLOAT32:
                values = next(constants).astype(np.float32).reshape(old.shape)
                read.append(self.add(old, dtype, None, values))
            elif old.type == TYPE.INT32:
                real = self.values(old, np.int32) * old.quantization.scale
                read.append(
                    self.add(old, TYPE.INT64, scale, np.round(real / scale).astype(np.int64))
                )
            else:
                read.append(tensor)
            if dtype == TYPE.INT16:
                scale = scale * self.graph.tensors[read[-1]].quantization.scale
        operator.inputs = read

    def set_code(self, operator: Any, change: Change) -> None:
        if change.dtype != "int16":
            return  # what computes int8 computes float32
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

    def add_version(self, tensor: int, dtype: int) -> int:
        old = self.graph.tensors[tensor]
        scale = None
        if dtype == TYPE.INT16:
            (step,), (zero,) = old.quantization.scale, old.quantization.zeroPoint
            scale = step * max(128 + zero, 127 - zero) / 32767
        return self.add(old, dtype, scale, None)

    def add(self, old: Any, dtype: int, scale: Any, values: np.ndarray | None) -> int:
        """A tensor like `old`; one with a scale has its zero at 0."""
        tensor = copy(old)
        tensor.type, tensor.buffer = dtype, 0
        tensor.quantization = None
        tensor.name = (
            old.name + b";" + {v: k for k, v in vars(TYPE).items()}[dtype].lower().encode()
        )
        if scale is not None:
            scales = np.atleast_1d(np.asarray(scale, np.float32))
            tensor.quantization = schema.QuantizationParametersT(
                scale=scales, zeroPoint=np.zeros(len(scales), np.int64)
            )
        if values is not None:
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(
                schema.BufferT(data=np.frombuffer(values.tobytes(), np.uint8))
            )
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def drop_unused(self) -> None:
        """Leaves out the tensors and buffers that nothing refers to any more."""
        graph, model = self.graph, self.model
        signatures = [
            end
            for one in model.signatureDefs or ()
            for end in (one.inputs or []) + (one.outputs or [])
        ]
        lists = [graph.inputs, graph.outputs]
        lists += [tensors for one in graph.operators for tensors in (one.inputs, one.outputs)]
        used = sorted({t for tensors in lists for t in indices(tensors)})
        number = {-1: -1, **{old: new for new, old in enumerate(used)}}
        graph.tensors = [graph.tensors[old] for old in used]
        graph.inputs = [number[int(t)] for t in graph.inputs]
        graph.outputs = [number[int(t)] for t in graph.outputs]
        for one in graph.operators:
            one.inputs, one.outputs = (
                [number[int(t)] for t in ts] for ts in (one.inputs, one.outputs)
            )
        for end in signatures:
            end.tensorIndex = number[end.tensorIndex]
        holders = [*graph.tensors, *(model.metadata or ())]
        buffers = {0: 0}  # the first is the empty one
        for holder in holders:
            holder.buffer = buffers.setdefault(holder.buffer, len(buffers))
        model.buffers = [model.buffers[old] for old in buffers]
