"""Runs a .tflite file once in a separate process: a foreign file may crash the runtime."""

import sys

import numpy as np

from convert.verification import runner
from shufflelite import isolated
from shufflelite.display import one_line

SPARE_BYTES = 1 << 30  # of memory, beside the file and its copies
CPU_S = 60.0


def check(data: bytes) -> None:
    """Loads the file and runs it on zeros.

    Raises:
      InputError: the runtime refuses the file, crashes or hangs.
    """
    code = "import sys; from convert.verification import sandbox; sys.exit(sandbox.main())"
    isolated.run(code, library="LiteRT", data=data)


def run(data: bytes) -> None:
    """Runs the file on zeros in this process.

    Raises:
      ValueError, RuntimeError: the runtime refuses the file; the message may have several lines.
    """
    interpreter = runner.load(data)
    for tensor in interpreter.get_input_details():
        interpreter.set_tensor(tensor["index"], np.zeros(tensor["shape"], tensor["dtype"]))
    interpreter.invoke()


def main() -> int:
    """Runs the file on standard input; prints the runtime's error."""
    data = sys.stdin.buffer.read()
    isolated.limit(memory_bytes=SPARE_BYTES + 4 * len(data), cpu_s=CPU_S)
    try:
        run(data)
    except (ValueError, RuntimeError, MemoryError) as error:
        print(one_line(f"LiteRT refuses it: {error or 'not enough memory'}"))
        return 1
    return 0
