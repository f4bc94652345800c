"""The interface of a connection to a device's shell."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from android_bench.measurement import TargetError
from shufflelite.display import one_line, printable

OUTPUT_BYTES = 16 << 20  # of a command; a device that prints more is broken


class DroppedError(TargetError):
    """The connection broke; the command may succeed once the device is back."""


class TooMuchOutputError(Exception):
    """A command printed more than OUTPUT_BYTES."""


@dataclass(frozen=True)
class Output:
    """A command's output on both streams, and its exit code: 128 + N if signal N ended it."""

    text: str
    code: int


class Shell(Protocol):
    """A connection.  Methods raise DroppedError if it breaks, TargetError if that is final."""

    name: str  # as --target names it
    system: str  # of the programs that run there: "android" or "linux"
    stopping: threading.Event  # once it is set, `wait` raises KeyboardInterrupt

    @property
    def folders(self) -> Sequence[str]:
        """Folders in which to try to make a private one."""

    def run(self, command: str, *, timeout_s: float = 60.0) -> Output:
        """Runs a command of the device's sh; a failure shows in the output's code."""

    def push(self, path: Path, to: str) -> None:
        """Copies a file to the device."""

    def wait(self, *, timeout_s: float) -> None:
        """Returns as soon as the device can be reached again."""

    def close(self) -> None:
        """Ends the connection."""


def unended(name: str, command: str, error: Exception, *, timeout_s: float) -> TargetError:
    """Returns the error of a command that has not ended by itself."""
    expected, got = f"an end within {timeout_s:g} s", "none"
    if isinstance(error, TooMuchOutputError):
        expected, got = f"at most {OUTPUT_BYTES >> 20} MiB of output", "more"
    return TargetError(f"{name}: expected {expected}, got {got}, of: {shortened(command)}")


def last_line(text: str) -> str:
    """Returns the last line that is not blank, for messages."""
    tail = text[-1_000_000:].rstrip()
    return one_line(printable(tail.splitlines()[-1].strip())) if tail else ""


def shortened(command: str) -> str:
    """Returns a command in one line of at most 100 characters."""
    line = " ".join(command.split())
    return line if len(line) <= 100 else f"{line[:97]}..."
