"""What a connection to a device's shell must offer, and what comes back through it."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from android_bench.measurement import TargetError


class DroppedError(TargetError):
    """The connection broke: what was asked may succeed once the device is back."""


@dataclass(frozen=True)
class Output:
    """What a command printed on both streams, and its exit code, 128 + N if signal N ended it."""

    text: str
    code: int


class Shell(Protocol):
    """The connection.  Methods raise DroppedError when it breaks, TargetError when for good."""

    name: str  # as --target names it
    system: str  # whose programs run there: "android" or "linux"
    stopping: threading.Event  # set, `wait` raises KeyboardInterrupt

    @property
    def folders(self) -> Sequence[str]:
        """Where to try to make a private one."""

    def run(self, command: str, *, timeout_s: float = 60.0) -> Output:
        """Runs a command of the device's sh; its failure is in the output's code."""

    def push(self, path: Path, to: str) -> None:
        """Copies a file to the device."""

    def wait(self, *, timeout_s: float) -> None:
        """Returns as soon as the device can be reached again."""

    def close(self) -> None:
        """Ends the connection."""


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def shortened(command: str) -> str:
    """A command for a message."""
    line = " ".join(command.split())
    return line if len(line) <= 100 else f"{line[:97]}..."
