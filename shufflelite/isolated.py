"""Runs code that may crash or hang a native library in a child process."""

import os
import signal
import subprocess
import sys

from shufflelite.errors import InputError

TIMEOUT_S = 600.0  # no library takes that long for a valid file


def run(code: str, *arguments: str, library: str, data: bytes = b"") -> tuple[bool, str]:
    """Runs Python code with this process's import path.

    Args:
      code: The Python code.
      arguments: Its sys.argv[1:].
      library: The library that may crash, for messages.
      data: Its standard input.

    Returns:
      Whether it exited with 0, and what it printed.

    Raises:
      InputError: it crashed or hung.
    """
    advice = "damaged, or of another version; convert, copy or download it again"
    try:
        process = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            input=data,
            capture_output=True,
            timeout=TIMEOUT_S,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{library} hangs on it: {advice}") from error
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        raise InputError(f"{library} crashes on it ({name}): {advice}")
    return not process.returncode, process.stdout.decode(errors="replace")
