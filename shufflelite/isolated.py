"""Tries in a process of its own what may crash a native library, or have it loop for ever."""

import os
import signal
import subprocess
import sys

from shufflelite.errors import InputError

TIMEOUT_S = 600.0  # no library takes as long over a good file


def run(code: str, *words: str, library: str, data: bytes = b"") -> tuple[bool, str]:
    """Runs Python code that imports what we import.

    Args:
      code: Of Python.
      words: Its sys.argv[1:].
      library: What may crash, for messages.
      data: Its standard input.

    Returns:
      Whether it came to a good end, and what it printed.

    Raises:
      InputError: it crashed, or came to no end.
    """
    advice = "damaged, or of another version; convert, copy or download it again"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            input=data,
            capture_output=True,
            timeout=TIMEOUT_S,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{library} comes to no end with it: {advice}") from error
    if done.returncode < 0:
        how = signal.Signals(-done.returncode).name
        raise InputError(f"{library} crashes on it ({how}): {advice}")
    return not done.returncode, done.stdout.decode(errors="replace")
