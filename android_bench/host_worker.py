"""Runs one model in a process of its own; `targets/host.py` starts it and sends it requests.

Requests are lines of JSON on standard input, answers are lines on standard output.  The process
imports only the runtime and NumPy, since its peak memory is reported, and exits as soon as its
input is closed: it never outlives the command that started it.
"""

import importlib
import json
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from tflite_file.model import count_delegation

PACKAGES = {"litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}  # --runtime: module

Verbs = Mapping[str, Callable[..., Any]]  # the functions of requests, by name

_GLUE = re.compile(r"(?<=\.)(?=[A-Z])|(?<=failed to prepare\.)|(?<!^)(?=Node number \d)")


class HostWorker:
    """The model between two requests."""

    def load(
        self, *, path: str, runtime: str, threads: int, delegate: str, warmup: int, seed: int
    ) -> None:
        """Loads the model, fills its inputs, times the first inference and warms up."""
        module, self.version = _runtime(runtime)
        kinds = module.OpResolverType
        none = delegate == "none"
        kind = kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES if none else kinds.AUTO
        self.peak_before_kb = _peak_kb(reset=True)
        start = time.perf_counter_ns()
        self.interpreter = module.Interpreter(
            path, num_threads=threads, experimental_op_resolver_type=kind
        )
        self.interpreter.allocate_tensors()
        self.init_ns = time.perf_counter_ns() - start
        fill_inputs(self.interpreter, seed=seed)
        self.first_ns = self._invoke()
        for _ in range(warmup):
            self._invoke()

    def measure(self, *, runs: int) -> list[int]:
        """Returns the nanoseconds of each of `runs` inferences."""
        self._invoke()  # untimed: refills the caches that the other models evicted
        return [self._invoke() for _ in range(runs)]

    def finish(self) -> dict[str, Any]:
        """Returns the fields of `measurement.Facts` after the last run."""
        before, peak = self.peak_before_kb, _peak_kb()  # read before the list below takes memory
        partitions, outside = count_delegation(self.interpreter._get_ops_details())
        return {
            "init_ms": self.init_ns / 1e6,
            "first_ms": self.first_ns / 1e6,
            "peak_memory_mb": None if before is None or peak is None else (peak - before) / 1024,
            "process_peak_mb": None if peak is None else peak / 1024,
            "delegate_partitions": partitions,
            "undelegated_operators": outside,
            "runtime_version": self.version,
        }

    def _invoke(self) -> int:
        start = time.perf_counter_ns()
        self.interpreter.invoke()
        return time.perf_counter_ns() - start


def isolated_times(
    *,
    paths: Sequence[str],
    runtime: str,
    threads: int,
    delegate: str,
    rounds: int,
    runs: int,
    max_seconds: float,
) -> list[tuple[list[float], bool]]:
    """Measures many small models in turn.

    Returns:
      For each, its median of each round in nanoseconds, and whether delegates run all of it.
    """
    models = [HostWorker() for _ in paths]
    for model, path in zip(models, paths, strict=True):
        model.load(path=path, runtime=runtime, threads=threads, delegate=delegate, warmup=1, seed=0)
    medians: list[list[float]] = [[] for _ in models]
    start = time.monotonic()
    for _ in range(rounds):
        for model, of_rounds in zip(models, medians, strict=True):
            of_rounds.append(float(np.median(model.measure(runs=runs))))
        if time.monotonic() - start >= max_seconds:
            break
    delegated = [not model.finish()["undelegated_operators"] for model in models]
    return list(zip(medians, delegated, strict=True))


def fill_inputs(interpreter: Any, *, seed: int) -> None:
    """Fills each input of the model with random values."""
    rng = np.random.default_rng(seed)
    for tensor in interpreter.get_input_details():
        values = random_input(tensor["shape"], tensor["dtype"], rng)
        interpreter.set_tensor(tensor["index"], values)


def random_input(shape: Sequence[int], dtype: type, rng: np.random.Generator) -> np.ndarray:
    """Returns values over the whole range of int8, uint8 and int16; for floats, over [-1, 1]."""
    if np.issubdtype(dtype, np.floating):
        return (rng.random(shape, np.float32) * 2 - 1).astype(dtype)
    if dtype in (np.int8, np.uint8, np.int16):
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    if np.issubdtype(dtype, np.integer) or dtype is np.bool_:
        return rng.integers(0, 2, shape).astype(dtype)  # often indices: 0 and 1 exist everywhere
    raise ValueError(f"expected an input of numbers to fill at random, got {dtype.__name__}")


def answer(requests: Iterable[str], verbs: Verbs, *, into: IO[str]) -> None:
    """Answers each request, a line of JSON, with the result of its verb or with the error."""
    for line in requests:
        request = json.loads(line)
        try:
            reply = {"answer": verbs[request.pop("do")](**request)}
        except Exception as error:  # the runtime raises many types
            reply = {"error": reason(error)}
        print(json.dumps(reply), file=into, flush=True)


def reason(error: Exception) -> str:
    """Returns the message in one line; the runtimes join several without a space."""
    messages = (" ".join(message.split()).rstrip(".") for message in _GLUE.split(str(error)))
    return "; ".join(dict.fromkeys(filter(None, messages))) or type(error).__name__


def _runtime(name: str) -> tuple[Any, str]:
    """Returns the module of Interpreter, and the version of its package."""
    try:
        module = importlib.import_module(f"{PACKAGES[name]}.interpreter")
    except ImportError as error:
        raise RuntimeError(f"the runtime {name} cannot be imported here: {error}") from error
    return module, sys.modules[PACKAGES[name]].__version__


def _peak_kb(*, reset: bool = False) -> int | None:
    """Returns VmHWM, the peak memory of this process; None if Linux does not report it.

    Args:
      reset: Reset the peak first, if the kernel permits it.
    """
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass  # the imports' peak remains, so the reported growth may be too small
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    peaks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(peaks[0]) if peaks else None


def _read(requests: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)  # also in the middle of an inference: no one reads the answer


def main() -> None:
    """Answers requests until standard input is closed."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # native code must not print between the answers
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    worker = HostWorker()
    verbs: Verbs = {
        "load": worker.load,
        "measure": worker.measure,
        "finish": worker.finish,
        "isolated_times": isolated_times,
    }
    answer(iter(requests.get, None), verbs, into=answers)


if __name__ == "__main__":
    main()
