"""Runs a .tflite file once in a process of its own: one from elsewhere may crash the runtime."""

import sys

import numpy as np

from convert.verification import runner
from shufflelite import isolated
from shufflelite.display import one_line
from shufflelite.errors import InputError


def check(data: bytes) -> None:
    """Loads the file and runs it on zeros.

    Raises:
      InputError: the runtime refuses it, crashes, or does not come to an end.
    """
    code = "import sys; from convert.verification import sandbox; sys.exit(sandbox.main())"
    good, said = isolated.run(code, library="LiteRT", data=data)
    if not good:
        raise InputError(one_line(f"LiteRT refuses it: {said}"))


def run(data: bytes) -> None:
    """Does it here.

    Raises:
      ValueError, RuntimeError: the runtime refuses it, in several lines maybe.
    """
    interpreter = runner.load(data)
    for tensor in interpreter.get_input_details():
        interpreter.set_tensor(tensor["index"], np.zeros(tensor["shape"], tensor["dtype"]))
    interpreter.invoke()


def main() -> int:
    """Runs the file that comes on standard input; prints what the runtime has against it."""
    try:
        run(sys.stdin.buffer.read())
    except (ValueError, RuntimeError) as error:
        print(error)
        return 1
    return 0
