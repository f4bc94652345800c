"""Becomes a command that ends with the process that started it, however that ends.

Run as a script, `python -I -S guard.py PARENT WORD...`, by the commands of `isolated.guarded`.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Asks Linux for SIGKILL at the end of the parent, and executes the command."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended before
        sys.exit(1)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # which Python ignores
    with open("/proc/self/environ", "rb") as stream:  # os.environ has a locale that Python adds
        variables = [entry.partition(b"=") for entry in stream.read().split(b"\0") if entry]
    os.execve(command[0], command, {name: value for name, _, value in variables})


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
