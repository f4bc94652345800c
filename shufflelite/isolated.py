"""Starts processes that end with this one, and runs code in them that may crash or hang."""

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from shufflelite.errors import InputError

TIMEOUT_S = 600.0  # no library takes that long for a valid file
_GUARD = Path(__file__).with_name("guard.py")


def guarded(command: Sequence[str]) -> list[str]:
    """Returns the command so that it also ends if this process is killed; only Linux can do that.

    It ends with the thread that starts it, too, so that thread must wait for it.

    Raises:
      FileNotFoundError: there is no such program.
    """
    program = shutil.which(command[0])
    if program is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), command[0])
    words = [program, *command[1:]]
    if sys.platform != "linux":
        return words
    return [sys.executable, "-I", "-S", str(_GUARD), str(os.getpid()), *words]


def run(code: str, *arguments: str, library: str, data: bytes = b"") -> str:
    """Runs Python code with this process's import path; it should call `limit` after its imports.

    Args:
      code: The Python code.  It prints an expected error and exits with 1.
      arguments: Its sys.argv[1:].
      library: The library that may crash, for messages.
      data: Its standard input.

    Returns:
      What it printed.

    Raises:
      InputError: it crashed, hung, or exited with 1, with what it printed as the message.
    """
    advice = "damaged, or of another version; convert, copy or download it again"
    try:
        process = subprocess.run(
            guarded([sys.executable, "-c", code, *arguments]),
            input=data,
            capture_output=True,
            timeout=TIMEOUT_S,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{library} hangs on it: {advice}") from error
    if process.returncode == -signal.SIGXCPU:
        raise InputError(f"{library} hangs on it: {advice}")
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        raise InputError(f"{library} crashes on it ({name}): {advice}")
    printed = process.stdout.decode(errors="replace").strip()
    if process.returncode:
        if not printed:
            raise RuntimeError(process.stderr.decode(errors="replace"))
        raise InputError(printed)
    return printed


def limit(*, memory_bytes: int, cpu_s: float) -> None:
    """Limits what this process may use beyond what it has; more is a MemoryError or SIGXCPU."""
    try:
        import resource
    except ImportError:  # Windows
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(usage.ru_utime + usage.ru_stime + cpu_s) + 1
    limits = {resource.RLIMIT_CPU: seconds, resource.RLIMIT_CORE: 0}
    with contextlib.suppress(OSError):  # no Linux
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + memory_bytes
    for kind, value in limits.items():
        with contextlib.suppress(ValueError, OSError):  # lower already
            resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))
