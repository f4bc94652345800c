"""Runs files of MNN and ONNX Runtime on this host, or on an emulated core as `emulated/guest.py`.

Requests are lines of JSON on standard input; answers go to the file descriptor in the argument.
"""

import gc
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from android_bench.host_worker import Verbs, answer

RESOLUTION = 224
SETTLED = 32  # intervals after which Python has adapted its bytecode to them


class Worker:
    """The model between two requests."""

    def start(self) -> dict[str, Any]:
        """Returns nothing; an empty interval shows that the counter works."""
        self._interval(0)
        return {}

    def load(self, *, path: str, precision: str, warmup: int) -> str:
        """Loads the model, runs it once and then `warmup` times; returns the runtime's version."""
        loaders = {".mnn": load_mnn, ".onnx": load_onnx}
        self.invoke, self.keep = loaders[Path(path).suffix](path, precision)
        for _ in range(1 + warmup):
            self.invoke()
        for _ in range(SETTLED):
            self._interval(0)
        return version({".mnn": "MNN", ".onnx": "onnxruntime"}[Path(path).suffix])

    def measure(self, *, runs: int) -> None:
        """Counts an interval with one inference, then one with `runs` more."""
        self._interval(1)
        self._interval(1 + runs)

    def time(self, *, runs: int) -> list[int]:
        """Returns the nanoseconds of each of `runs` inferences."""
        self.invoke()  # untimed: refills the caches that the other models evicted
        return [self._time() for _ in range(runs)]

    def _time(self) -> int:
        start = time.perf_counter_ns()
        self.invoke()
        return time.perf_counter_ns() - start

    def _interval(self, runs: int) -> None:
        os.getpriority(os.PRIO_PROCESS, 0)
        for _ in range(runs):
            self.invoke()
        os.getpriority(os.PRIO_PGRP, 0)


def load_mnn(path: str, precision: str) -> tuple[Callable[[], Any], Any]:
    """Loads a file of MNN; `precision` "low" computes float32 operators in fp16 where it can."""
    import MNN

    interpreter = MNN.Interpreter(path)
    config = {"backend": "CPU", "numThread": 1, "precision": precision}
    session = interpreter.createSession(config)
    source = interpreter.getSessionInput(session)
    values = _picture().ravel()
    shape = (1, 3, RESOLUTION, RESOLUTION)
    host = MNN.Tensor(shape, MNN.Halide_Type_Float, values, MNN.Tensor_DimensionType_Caffe)
    source.copyFrom(host)
    return lambda: interpreter.runSession(session), (interpreter, session, host)


def load_onnx(path: str, precision: str) -> tuple[Callable[[], Any], Any]:
    """Loads a file of ONNX; `precision` must be "normal"."""
    import onnxruntime

    assert precision == "normal"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: _picture()}
    names = [output.name for output in session.get_outputs()]
    run = session._sess.run  # not through Python code that adapts
    return lambda: run(names, inputs, None), session


def _picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (1, 3, RESOLUTION, RESOLUTION)).astype(np.float32)


def main() -> None:
    """Answers requests until standard input is closed."""
    gc.disable()  # a collection in one of the intervals would falsify the difference
    answers = os.fdopen(int(sys.argv[1]), "w")
    worker = Worker()
    names = ("start", "load", "measure", "time")
    verbs: Verbs = {name: getattr(worker, name) for name in names}
    answer(sys.stdin, verbs, into=answers)


if __name__ == "__main__":
    main()
