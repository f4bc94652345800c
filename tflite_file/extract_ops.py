"""Makes files of single operators out of a .tflite file, so that each can be run alone."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

import tflite_file
from tflite_file.serialize import indices, pack

_INDICES = (schema.TensorType.INT32, schema.TensorType.INT64)


@dataclass(frozen=True)
class Part:
    """One operator that an inference runs."""

    index: int  # in the order in which they run
    type: str  # "CONV_2D", or a custom operator's own name
    tensor: str  # name of its first output
    kind: str  # the same for operators that do the same work on other values


def parts(data: bytes) -> list[Part]:
    """The operators of a file, without those that read constants alone: they run when it is loaded.

    Two are of one kind when type, version, options, shapes and dtypes are equal, as well as the
    constants that are indices (axes, paddings), and which of the tensors share their quantization.

    Raises:
      ValueError: the file is damaged, or does not hold exactly one subgraph.
    """
    types = [operator.type for operator in tflite_file.operators(data)]
    network = _Network(data)
    with tflite_file.damage_told(data):
        return [
            Part(index, type_, network.name(index), network.kind(index))
            for index, type_ in enumerate(types)
            if index not in network.folded
        ]


def cut(data: bytes, operators: Sequence[int]) -> bytes:
    """A .tflite file of some operators, by their indices in the order in which they run.

    Its inputs are the tensors that they read and do not make themselves, its outputs what they make
    for others; constants and quantization are kept.

    Raises:
      ValueError: the file is damaged, or does not hold exactly one subgraph.
    """
    network = _Network(data)
    with tflite_file.damage_told(data):
        return pack(network.part(operators))


class _Network:
    """A file's only subgraph."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.model = schema.Model.GetRootAs(data, 0)
        if self.model.SubgraphsLength() != 1:
            raise ValueError(f"expected one subgraph, got {self.model.SubgraphsLength()}")
        self.graph = self.model.Subgraphs(0)
        self.operators = list(map(self.graph.Operators, range(self.graph.OperatorsLength())))
        self.folded: dict[int, set[int]] = {}  # operators on constants: what they need before them
        self.made_of: dict[int, set[int]] = {}  # constant tensors that such operators make
        with tflite_file.damage_told(data):
            self._fold()

    def _fold(self) -> None:
        for index, operator in enumerate(self.operators):
            read = indices(operator.InputsAsNumpy())
            if read and all(tensor in self.made_of or self._is_constant(tensor) for tensor in read):
                needed = {index}.union(*(self.made_of.get(tensor, ()) for tensor in read))
                self.folded[index] = needed
                self.made_of |= dict.fromkeys(indices(operator.OutputsAsNumpy()), needed)

    def name(self, operator: int) -> str:
        outputs = indices(self.operators[operator].OutputsAsNumpy())
        return str(self.graph.Tensors(outputs[0]).Name().decode()) if outputs else ""

    def kind(self, operator: int) -> str:
        """A digest of the operator's own file, without names and values that change no cost."""
        part = self.part([operator])
        known: list[object] = []  # quantizations, in the order in which they appear
        for tensor in part.subgraphs[0].tensors:
            tensor.name = None
            quantization = tensor.quantization
            scales = (
                () if quantization is None or quantization.scale is None else quantization.scale
            )
            if tensor.buffer and not (tensor.type in _INDICES and not len(scales)):
                part.buffers[tensor.buffer].data = np.zeros(1, np.uint8)
            if len(scales):
                values = (tuple(scales), tuple(quantization.zeroPoint))
                if values not in known:
                    known.append(values)
                quantization.scale = np.full(len(scales), known.index(values), np.float32)
                quantization.zeroPoint = quantization.min = quantization.max = None
        return hashlib.sha256(pack(part)).hexdigest()

    def part(self, operators: Sequence[int]) -> Any:
        """The model that holds these operators, and what they need."""
        chosen = self._with_folded(operators)
        outer = self._read_by_others(chosen)
        taken = [schema.OperatorT.InitFromObj(self.operators[index]) for index in chosen]
        made = [tensor for one in taken for tensor in indices(one.outputs)]
        read = [tensor for one in taken for tensor in indices(one.inputs)]
        numbers = {-1: -1}  # of a tensor in the file: in the part; -1 is one left out
        tensors, buffers = [], [schema.BufferT()]  # the first buffer is the empty one
        for number, old in enumerate(dict.fromkeys(read + made)):
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
            if old not in made and not tensors[numbers[old]].buffer
            if not tensors[numbers[old]].isVariable
        ]
        outputs = [old for old in made if old in outer or old not in read]
        codes = [self.model.OperatorCodes(one.opcodeIndex) for one in taken]
        for number, one in enumerate(taken):
            one.opcodeIndex = number
            one.inputs = [numbers[int(tensor)] for tensor in one.inputs]
            one.outputs = [numbers[int(tensor)] for tensor in one.outputs]
        graph = schema.SubGraphT(
            tensors=tensors,
            inputs=[numbers[old] for old in inputs],
            outputs=[numbers[old] for old in outputs],
            operators=taken,
        )
        return schema.ModelT(
            version=self.model.Version(),
            operatorCodes=[schema.OperatorCodeT.InitFromObj(code) for code in codes],
            subgraphs=[graph],
            buffers=buffers,
        )

    def _with_folded(self, operators: Sequence[int]) -> list[int]:
        read = (t for index in operators for t in indices(self.operators[index].InputsAsNumpy()))
        return sorted(set(operators).union(*(self.made_of.get(tensor, ()) for tensor in read)))

    def _read_by_others(self, chosen: Sequence[int]) -> set[int]:
        if len(chosen) == 1:  # reads nothing that it makes
            return set()
        others = set(range(len(self.operators))) - set(chosen) - set(self.folded)
        read = (t for index in others for t in indices(self.operators[index].InputsAsNumpy()))
        return {*indices(self.graph.OutputsAsNumpy()), *read}

    def _is_constant(self, tensor: int) -> bool:
        return self._content(self.graph.Tensors(tensor).Buffer()) is not None

    def _content(self, buffer: int) -> np.ndarray | None:
        found = self.model.Buffers(buffer)
        if found.Size():  # large weights lie behind the tables
            return np.frombuffer(self.data, np.uint8, int(found.Size()), int(found.Offset()))
        return found.DataAsNumpy() if found.DataLength() else None
