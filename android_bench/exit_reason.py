"""Why a worker process ended, in one line."""

import signal
import subprocess
from typing import IO, Any


def exit_reason(who: str, process: subprocess.Popen[Any], stderr: IO[bytes]) -> str:
    """Waits for the process; returns how it ended and its last line on standard error."""
    code = process.wait()
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
    stderr.seek(0)
    lines = stderr.read().decode(errors="replace").split("\n")
    errors = [line.strip() for line in lines if line.strip() and not line.startswith("INFO")]
    return f"{who} {how}" + (f"; last output: {errors[-1]}" if errors else "")
