"""Runs a .tflite file once in a separate process: a foreign file may crash the runtime."""

import sys

import numpy as np

from convert.verification import runner
from shufflelite import isolated
from shufflelite.display import one_line
from shufflelite.errors import InputError


def check(data: bytes) -> None:
    """Loads the file and runs it on zeros.

    Raises:
      InputError: the runtime refuses the file, crashes or hangs.
    """
    code = "import sys; from convert.verification import sandbox; sys.exit(sandbox.main())"
    succeeded, message = isolated.run(code, library="LiteRT", data=data)
    if not succeeded:
        raise InputError(one_line(f"LiteRT refuses it: {message}"))


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
    try:
        run(sys.stdin.buffer.read())
    except (ValueError, RuntimeError) as error:
        print(error)
        return 1
    return 0
