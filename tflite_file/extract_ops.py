"""Extracts operators of a .tflite file into files of their own, to run each of them alone."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_file.model import damage_as_value_error, read_operators
from tflite_file.serialize import indices, pack

_INDICES = (schema.TensorType.INT32, schema.TensorType.INT64)


@dataclass(frozen=True)
class GraphOp:
    """One operator that each inference runs."""

    index: int  # in execution order
    type: str  # "CONV_2D", or a custom operator's own name
    tensor: str  # name of its first output
    kind: str  # equal for operators that do the same work on other values


def list_ops(data: bytes) -> list[GraphOp]:
    """The operators of a file, except those that only read constants: they run once, at loading.

    Two operators are of one kind if type, version, options, shapes and dtypes are equal, as well as
    constants that are indices (axes, paddings), and which of their tensors share a quantization.

    Raises:
      ValueError: the file is damaged, or does not hold exactly one subgraph.
    """
    types = [operator.type for operator in read_operators(data)]
    graph = _Graph(data)
    with damage_as_value_error(data):
        return [
            GraphOp(index, type_, graph.name(index), graph.kind(index))
            for index, type_ in enumerate(types)
            if index not in graph.folded
        ]


def extract(data: bytes, operators: Sequence[int]) -> bytes:
    """Returns a .tflite file of some operators, given by their indices in execution order.

    Its inputs are the tensors that they read from others, its outputs the tensors that others read
    from them; constants and quantization are kept.

    Raises:
      ValueError: the file is damaged, or does not hold exactly one subgraph.
    """
    graph = _Graph(data)
    with damage_as_value_error(data):
        return pack(graph.submodel(operators))


class _Graph:
    """A file's only subgraph."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.model = schema.Model.GetRootAs(data, 0)
        if self.model.SubgraphsLength() != 1:
            raise ValueError(f"expected one subgraph, got {self.model.SubgraphsLength()}")
        self.graph = self.model.Subgraphs(0)
        self.operators = list(map(self.graph.Operators, range(self.graph.OperatorsLength())))
        self.folded: dict[int, set[int]] = {}  # operators on constants: all that they depend on
        self.folded_tensors: dict[int, set[int]] = {}  # what they write: its operators
        with damage_as_value_error(data):
            self._fold()

    def _fold(self) -> None:
        for index, operator in enumerate(self.operators):
            read = indices(operator.InputsAsNumpy())
            if read and all(
                tensor in self.folded_tensors or self._is_constant(tensor) for tensor in read
            ):
                needed = {index}.union(*(self.folded_tensors.get(tensor, ()) for tensor in read))
                self.folded[index] = needed
                self.folded_tensors |= dict.fromkeys(indices(operator.OutputsAsNumpy()), needed)

    def name(self, operator: int) -> str:
        outputs = indices(self.operators[operator].OutputsAsNumpy())
        return str(self.graph.Tensors(outputs[0]).Name().decode()) if outputs else ""

    def kind(self, operator: int) -> str:
        """A hash of the operator's own file, without what does not change its cost."""
        model = self.submodel([operator])
        quantizations: list[object] = []  # in order of appearance
        for tensor in model.subgraphs[0].tensors:
            tensor.name = None
            quantization = tensor.quantization
            scales = (
                () if quantization is None or quantization.scale is None else quantization.scale
            )
            if tensor.buffer and not (tensor.type in _INDICES and not len(scales)):
                model.buffers[tensor.buffer].data = np.zeros(1, np.uint8)
            if len(scales):
                values = (tuple(scales), tuple(quantization.zeroPoint))
                if values not in quantizations:
                    quantizations.append(values)
                quantization.scale = np.full(len(scales), quantizations.index(values), np.float32)
                quantization.zeroPoint = quantization.min = quantization.max = None
        return hashlib.sha256(pack(model)).hexdigest()

    def submodel(self, operators: Sequence[int]) -> Any:
        """A model of these operators and those that compute their constants."""
        chosen = self._with_folded(operators)
        read_by_others = self._read_by_others(chosen)
        copies = [schema.OperatorT.InitFromObj(self.operators[index]) for index in chosen]
        written = [tensor for op in copies for tensor in indices(op.outputs)]
        read = [tensor for op in copies for tensor in indices(op.inputs)]
        numbers = {-1: -1}  # tensor in the file -> in the submodel; -1 is an omitted optional one
        tensors, buffers = [], [schema.BufferT()]  # the first buffer is the empty one
        for number, old in enumerate(dict.fromkeys(read + written)):
            numbers[old] = number
            tensor = schema.TensorT.InitFromObj(self.graph.Tensors(old))
            content = self._content(tensor.buffer)
            tensor.buffer = 0 if content is None else len(buffers)
            if content is not None:
                buffers.append(schema.BufferT(data=content))
            tensors.append(tensor)
        inputs = [
            old
            for old in dict.fromkeys(read)
            if old not in written and not tensors[numbers[old]].buffer
            if not tensors[numbers[old]].isVariable
        ]
        outputs = [old for old in written if old in read_by_others or old not in read]
        codes = [self.model.OperatorCodes(op.opcodeIndex) for op in copies]
        for number, op in enumerate(copies):
            op.opcodeIndex = number
            op.inputs = [numbers[int(tensor)] for tensor in op.inputs]
            op.outputs = [numbers[int(tensor)] for tensor in op.outputs]
        graph = schema.SubGraphT(
            tensors=tensors,
            inputs=[numbers[old] for old in inputs],
            outputs=[numbers[old] for old in outputs],
            operators=copies,
        )
        return schema.ModelT(
            version=self.model.Version(),
            operatorCodes=[schema.OperatorCodeT.InitFromObj(code) for code in codes],
            subgraphs=[graph],
            buffers=buffers,
        )

    def _with_folded(self, operators: Sequence[int]) -> list[int]:
        read = (t for index in operators for t in indices(self.operators[index].InputsAsNumpy()))
        return sorted(
            set(operators).union(*(self.folded_tensors.get(tensor, ()) for tensor in read))
        )

    def _read_by_others(self, chosen: Sequence[int]) -> set[int]:
        if len(chosen) == 1:  # all that it writes is for others
            return set()
        others = set(range(len(self.operators))) - set(chosen) - set(self.folded)
        read = (t for index in others for t in indices(self.operators[index].InputsAsNumpy()))
        return {*indices(self.graph.OutputsAsNumpy()), *read}

    def _is_constant(self, tensor: int) -> bool:
        return self._content(self.graph.Tensors(tensor).Buffer()) is not None

    def _content(self, buffer: int) -> np.ndarray | None:
        content = self.model.Buffers(buffer)
        if content.Size():  # large weights lie behind the tables
            return np.frombuffer(self.data, np.uint8, int(content.Size()), int(content.Offset()))
        return content.DataAsNumpy() if content.DataLength() else None
