"""Profiles of operators that run alone.  Those of emulated cores are in test_emulated.py."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from android_bench import op_profiler
from android_bench.host_worker import random_input
from android_bench.measurement import Options, TargetError
from android_bench.op_profiler import IsolatedCost
from android_bench.targets import open_target
from tflite_file import extract_ops
from tflite_file.model import read_operators

START = 100.0
COSTS = {"CONV_2D": 7.0, "DEPTHWISE_CONV_2D": 5.0, "MEAN": 0.0, "FULLY_CONNECTED": 1.0}


@dataclass
class Scripted:
    """A target where an operator costs what its type says, and each inference START."""

    refuses: bool = False
    folder: Path | None = None
    measured: list[list[str]] = field(default_factory=list)

    def isolated_costs(self, files: Sequence[Path]) -> list[IsolatedCost]:
        self.folder = files[0].parent
        if self.refuses:
            raise TargetError("the runtime refuses it")
        self.measured = [[one.type for one in read_operators(file.read_bytes())] for file in files]
        return [
            IsolatedCost(START + sum(map(COSTS.__getitem__, one)), True) for one in self.measured
        ]


def run(data: bytes, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """All outputs of a file by the names of their tensors; `inputs` may hold others too."""
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    for details in interpreter.get_input_details():
        interpreter.set_tensor(details["index"], inputs[details["name"]])
    interpreter.invoke()
    outputs = interpreter.get_output_details()
    return {details["name"]: interpreter.get_tensor(details["index"]) for details in outputs}


def test_the_start_of_an_inference_belongs_to_no_operator(toys: Mapping[str, Path]) -> None:
    bench = Scripted()
    costs = op_profiler.profile(toys["int8"].read_bytes(), bench)
    assert [(one.index, one.type, one.cost) for one in costs] == [
        (0, "CONV_2D", 7.0),
        (1, "DEPTHWISE_CONV_2D", 5.0),
        (2, "CONV_2D", 7.0),
        (3, "MEAN", 0.0),
        (4, "FULLY_CONNECTED", 1.0),
    ]
    assert len({one.tensor for one in costs}) == 5
    assert bench.folder is not None
    assert not bench.folder.exists()


def test_a_file_of_one_operator_has_a_profile_too(toys: Mapping[str, Path]) -> None:
    (one,) = op_profiler.profile(toys["heavy"].read_bytes(), Scripted())
    assert (one.type, one.cost) == ("FULLY_CONNECTED", START + 1.0)  # nothing tells them apart


def test_a_refusal_becomes_a_note_and_leaves_no_file(toys: Mapping[str, Path]) -> None:
    bench = Scripted(refuses=True)
    path = toys["int8"]
    rows, notes = op_profiler.profile_or_note(path, bench, note="alone")
    assert (rows, notes) == ([], [f"no profile of {path}: the runtime refuses it"])
    assert bench.folder is not None
    assert not bench.folder.exists()


@pytest.mark.parametrize("name", ["int8", "float"])
def test_single_operators_one_after_the_other_compute_what_the_whole_does(
    toys: Mapping[str, Path], name: str
) -> None:
    data = toys[name].read_bytes()
    (source,) = Interpreter(model_content=data).get_input_details()
    rng = np.random.default_rng(0)
    tensors = {source["name"]: random_input(source["shape"], source["dtype"], rng)}
    expected = run(data, tensors)
    parts = extract_ops.list_ops(data)
    for part in parts:
        outputs = run(extract_ops.extract(data, [part.index]), tensors)
        assert list(outputs) == [part.tensor]
        tensors |= outputs
    for tensor, values in expected.items():
        assert np.unique(values).size > 1
        np.testing.assert_array_equal(tensors[tensor], values)
    again = run(extract_ops.extract(data, [part.index for part in parts]), tensors)
    for tensor, values in expected.items():
        np.testing.assert_array_equal(again[tensor], values)


def test_the_host_measures_each_operator_and_tells_which_are_delegated(
    toys: Mapping[str, Path],
) -> None:
    target = open_target("host", options=Options(profile=True))
    with contextlib.closing(target.load(toys["int8"], warmup=0, seed=0)) as session:
        session.measure(runs=1)
        facts = session.finish()
    data = toys["int8"].read_bytes()
    assert [(one.name, one.type) for one in facts.profile] == [
        (part.tensor, part.type) for part in extract_ops.list_ops(data)
    ]
    assert all(one.delegated and one.calls == 1 for one in facts.profile)
    (note,) = facts.notes
    assert "ran alone" in note


def test_a_worker_that_cannot_run_a_part_says_so(unrunnable: Path) -> None:
    target = open_target("host", options=Options(profile=True))
    rows, (note,) = op_profiler.profile_or_note(unrunnable, target, note="alone")
    assert rows == []
    assert "unresolved custom op: Mystery" in note
