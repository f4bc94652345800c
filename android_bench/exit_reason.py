"""Why a process that answers requests is gone, in one line."""

import signal
import subprocess
from typing import IO, Any


def last_words(who: str, process: subprocess.Popen[Any], stderr: IO[bytes]) -> str:
    """How the process ended, once it has, and the last that it said on standard error."""
    code = process.wait()
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"left with {code}"
    stderr.seek(0)
    lines = stderr.read().decode(errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip() and not line.startswith("INFO")]
    return f"{who} {how}" + (f"; it last said: {said[-1]}" if said else "")
