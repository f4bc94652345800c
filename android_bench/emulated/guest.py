"""Runs one model inside the emulated system; `process.py` starts it and sends it requests.

Requests are lines of JSON on standard input.  Answers are lines on the file descriptor that is its
argument, to which QEMU's counter also writes.  It exits when its input is closed.
"""

import gc
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import ai_edge_litert
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from android_bench.host_worker import Verbs, answer, fill_inputs
from tflite_file.model import count_delegation

SETTLED = 32  # intervals after which Python has adapted its bytecode to them


class GuestWorker:
    """The model between two requests."""

    def start(self) -> dict[str, Any]:
        """Returns what the guest detects; an empty interval shows that the counter works."""
        self._interval(0, gc.isenabled)
        with open("/proc/cpuinfo") as file:
            return {"runtime_version": ai_edge_litert.__version__, "cpuinfo": file.read()}

    def load(self, *, path: str, warmup: int, seed: int) -> None:
        """Loads the model, fills its inputs, runs it once and then `warmup` times."""
        self._allocate(path)
        fill_inputs(self.interpreter, seed=seed)
        for _ in range(1 + warmup):
            self.invoke()
        for _ in range(SETTLED):
            self._interval(1, gc.isenabled)

    def measure(self, *, runs: int) -> None:
        """Counts an interval with one inference, then one with `runs` more."""
        self._interval(1, self.invoke)
        self._interval(1 + runs, self.invoke)

    def finish(self) -> dict[str, Any]:
        """Returns the partitions of the model."""
        partitions, outside = count_delegation(self.interpreter._get_ops_details())
        return {"delegate_partitions": partitions, "undelegated_operators": outside}

    def outputs(self, *, path: str, inputs: Sequence[str], results: Sequence[str]) -> list[int]:
        """Runs another model on arrays in files and saves all its outputs, an archive for each.

        Returns:
          The indices of the tensors that delegates compute.
        """
        self._allocate(path)
        (source,) = self.interpreter.get_input_details()
        for array, result in zip(inputs, results, strict=True):
            self.interpreter.set_tensor(source["index"], np.load(array))
            self.invoke()
            details = self.interpreter.get_output_details()
            np.savez(result, *(self.interpreter.get_tensor(one["index"]) for one in details))
        return delegated(self.interpreter)

    def _allocate(self, path: str) -> None:
        self.interpreter = Interpreter(path, num_threads=1)
        self.interpreter.allocate_tensors()
        self.invoke = self.interpreter._interpreter.Invoke  # not through Python code that adapts

    def _interval(self, runs: int, function: Callable[[], Any]) -> None:
        """Calls a function between the two system calls that the counter takes as marks."""
        os.getpriority(os.PRIO_PROCESS, 0)
        for _ in range(runs):
            function()
        os.getpriority(os.PRIO_PGRP, 0)


def delegated(interpreter: Interpreter) -> list[int]:
    """Returns the indices of the output tensors of delegates."""
    operators = interpreter._get_ops_details()
    by_delegate = (one["outputs"] for one in operators if one["op_name"] == "DELEGATE")
    return [int(index) for indices in by_delegate for index in indices]


def main() -> None:
    """Answers requests until standard input is closed."""
    gc.disable()  # a collection in one of the intervals would falsify the difference
    answers = os.fdopen(int(sys.argv[1]), "w")
    worker = GuestWorker()
    verbs: Verbs = {
        "start": worker.start,
        "load": worker.load,
        "measure": worker.measure,
        "finish": worker.finish,
        "outputs": worker.outputs,
    }
    answer(sys.stdin, verbs, into=answers)


if __name__ == "__main__":
    main()
