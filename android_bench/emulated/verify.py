"""Holds LiteRT's ARM kernels against this machine's: every tensor of a network, bit by bit."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from android_bench import model_file
from android_bench.emulated import cores, probe, process, setup
from android_bench.targets import TargetError
from keras_models.errors import InputError


@dataclass(frozen=True)
class Tensor:
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

    core: str
    inputs: int
    tensors: tuple[Tensor, ...]  # all that operators compute, of a copy that gives them all
    outputs: tuple[Tensor, ...]  # of the file as it is
    host_runtime: str
    guest_runtime: str

    @property
    def elements(self) -> int:
        """Elements compared."""
        return sum(tensor.elements for tensor in (*self.tensors, *self.outputs))

    @property
    def differences(self) -> int:
        """Elements that are not equal."""
        return sum(tensor.differences for tensor in (*self.tensors, *self.outputs))


def verify(core: str, path: Path, inputs: Sequence[np.ndarray]) -> Verification:
    """Runs a model on the host and on a core, both LiteRT with XNNPACK, and compares.

    Args:
      core: A name of `cores.CORES`.
      path: The .tflite file, with one input.
      inputs: Arrays of the input's shape and dtype.

    Raises:
      InputError: The file has no int8 tensor or the inputs do not fit, or nothing is set up.
      TargetError: The guest has died, or LiteRT refuses the model.
    """
    import ai_edge_litert

    known, system = cores.find(core), setup.find()
    (model,) = model_file.read_all([str(path)])
    if not inputs:
        raise InputError(f"{path}: expected inputs to run it on, got none")
    exposed = probe.expose(model.path.read_bytes())
    with contextlib.closing(process.Guest(known, system.folder)) as guest:
        copy = guest.folder / "exposed.tflite"
        copy.write_bytes(exposed)
        tensors = _compare(guest, copy, inputs)
        outputs = _compare(guest, path.resolve(), inputs)
        guest_runtime = guest.start["runtime_version"]
    if not tensors:
        raise InputError(f"{path}: expected a network with int8 tensors, found none")
    return Verification(
        core=core,
        inputs=len(inputs),
        tensors=tensors,
        outputs=outputs,
        host_runtime=ai_edge_litert.__version__,
        guest_runtime=guest_runtime,
    )


def _compare(guest: process.Guest, path: Path, inputs: Sequence[np.ndarray]) -> tuple[Tensor, ...]:
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


def _tensor(name: str, by_xnnpack: bool, here: np.ndarray, there: np.ndarray) -> Tensor:
    distance = np.abs(here.astype(np.int16) - there)
    return Tensor(
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
    from ai_edge_litert.interpreter import Interpreter

    from android_bench.emulated.guest import delegated

    try:
        interpreter = Interpreter(str(path), num_threads=1)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise TargetError(f"LiteRT refuses it: {' '.join(str(error).split())}") from error
    sources, details = interpreter.get_input_details(), interpreter.get_output_details()
    if len(sources) != 1:
        raise InputError(f"expected a network with one input, got one with {len(sources)}")
    shape, dtype = tuple(sources[0]["shape"]), np.dtype(sources[0]["dtype"])
    values = []
    for given in inputs:
        if given.shape != shape or given.dtype != dtype:
            raise InputError(
                f"expected inputs of {dtype} {shape}, got one of {given.dtype} {given.shape}"
            )
        interpreter.set_tensor(sources[0]["index"], given)
        interpreter.invoke()
        values.append([interpreter.get_tensor(one["index"]) for one in details])
    return details, set(delegated(interpreter)), values


def _on_guest(
    guest: process.Guest, path: Path, inputs: Sequence[np.ndarray]
) -> tuple[set[int], list[list[np.ndarray]]]:
    names = [guest.folder / f"input{i}.npy" for i in range(len(inputs))]
    results = [guest.folder / f"outputs{i}.npz" for i in range(len(inputs))]
    for name, given in zip(names, inputs, strict=True):
        np.save(name, given)
    delegated = guest.ask(
        "outputs",
        path=str(path),
        inputs=[str(name) for name in names],
        results=[str(result) for result in results],
    )
    values = []
    for result in results:
        with np.load(result) as archive:
            values.append([archive[f"arr_{i}"] for i in range(len(archive.files))])
    return set(delegated), values
