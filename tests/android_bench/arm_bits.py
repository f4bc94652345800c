"""Compares LiteRT's ARM kernels with this machine's: every tensor of a network, bit by bit."""

import contextlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from android_bench.emulated import cores, process, setup
from android_bench.emulated.guest import delegated

_OUTPUTS = 8  # of a subgraph: the third field of its table, after tensors and inputs


@dataclass(frozen=True)
class ComparedTensor:
    """One int8 tensor on both machines, over all inputs."""

    name: str
    by_xnnpack: bool  # on both; the kernels of TFLite itself differ by a step between machines
    elements: int
    differences: int  # elements that are not equal
    largest: int  # difference, in steps
    distinct: int  # values that occur: equality of a constant says little


@dataclass(frozen=True)
class Verification:
    """A model on the host and on an emulated core."""

    tensors: tuple[
        ComparedTensor, ...
    ]  # all that operators compute, of a copy that outputs them all
    outputs: tuple[ComparedTensor, ...]  # of the file as it is


def verify(core: str, path: Path, inputs: Sequence[np.ndarray]) -> Verification:
    """Runs a model on the host and on a core, both LiteRT with XNNPACK, and compares.

    Args:
      core: A name of `cores.CORES`.
      path: The .tflite file, with one input.
      inputs: Arrays of the input's shape and dtype.
    """
    exposed = expose(path.read_bytes())
    guest = process.Guest(cores.find(core), setup.find().folder)
    with contextlib.closing(guest):
        copy = guest.folder / "exposed.tflite"
        copy.write_bytes(exposed)
        return Verification(_compare(guest, copy, inputs), _compare(guest, path, inputs))


def _compare(
    guest: process.Guest, path: Path, inputs: Sequence[np.ndarray]
) -> tuple[ComparedTensor, ...]:
    details, here_by_xnnpack, here = _on_host(path, inputs)
    there_by_xnnpack, there = _on_guest(guest, path, inputs)
    by_xnnpack = here_by_xnnpack & there_by_xnnpack
    return tuple(
        _tensor(
            one["name"],
            one["index"] in by_xnnpack,
            np.stack([arrays[position] for arrays in here]),
            np.stack([arrays[position] for arrays in there]),
        )
        for position, one in enumerate(details)
        if one["dtype"] == np.int8
    )


def _tensor(name: str, by_xnnpack: bool, here: np.ndarray, there: np.ndarray) -> ComparedTensor:
    distance = np.abs(here.astype(np.int16) - there)
    return ComparedTensor(
        name=name,
        by_xnnpack=by_xnnpack,
        elements=here.size,
        differences=int(np.count_nonzero(distance)),
        largest=int(distance.max(initial=0)),
        distinct=len(np.unique(here)),
    )


def _on_host(
    path: Path, inputs: Sequence[np.ndarray]
) -> tuple[list[dict[str, Any]], set[int], list[list[np.ndarray]]]:
    """The outputs' details, which of them XNNPACK computes, and their values for each input."""
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (source,), details = interpreter.get_input_details(), interpreter.get_output_details()
    values = []
    for array in inputs:
        interpreter.set_tensor(source["index"], array)
        interpreter.invoke()
        values.append([interpreter.get_tensor(one["index"]) for one in details])
    return details, set(delegated(interpreter)), values


def _on_guest(
    guest: process.Guest, path: Path, inputs: Sequence[np.ndarray]
) -> tuple[set[int], list[list[np.ndarray]]]:
    names = [guest.folder / f"input{i}.npy" for i in range(len(inputs))]
    results = [guest.folder / f"outputs{i}.npz" for i in range(len(inputs))]
    for name, array in zip(names, inputs, strict=True):
        np.save(name, array)
    by_delegate = guest.ask(
        "outputs",
        path=str(path),
        inputs=[str(name) for name in names],
        results=[str(result) for result in results],
    )
    values = []
    for result in results:
        with np.load(result) as archive:
            values.append([archive[f"arr_{i}"] for i in range(len(archive.files))])
    return set(by_delegate), values


def expose(data: bytes) -> bytes:
    """Returns a copy of a .tflite file whose first subgraph also outputs each tensor it computes.

    A delegate does not return the tensors inside a partition, but must return the graph's outputs.
    The file's own outputs come first, and nothing else in the file moves: a longer list is
    appended, and the graph points to it.
    """
    graph = schema.Model.GetRootAs(data, 0).Subgraphs(0)
    indices = [graph.Outputs(i) for i in range(graph.OutputsLength())]
    for operator in map(graph.Operators, range(graph.OperatorsLength())):
        indices += [operator.Outputs(i) for i in range(operator.OutputsLength())]
    indices = list(dict.fromkeys(index for index in indices if index >= 0))
    copy = bytearray(data) + bytes(-len(data) % 4)
    offset = graph._tab.Pos + graph._tab.Offset(_OUTPUTS)
    struct.pack_into("<I", copy, offset, len(copy) - offset)  # relative to where it stands
    return bytes(copy) + struct.pack(f"<I{len(indices)}i", len(indices), *indices)
