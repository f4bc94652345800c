"""Reports progress on stderr: a progress bar in a terminal, plain lines elsewhere."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from shufflelite.display import drawing, printable, printable_line

Step = Callable[[int, int], None]


class Progress:
    """The stages of one command, each with its time."""

    def __init__(self, command: str) -> None:
        self._command = command

    @contextmanager
    def stage(self, title: str) -> Iterator[Step]:
        """Shows a stage while its block runs; yields a function of (steps done, steps in total)."""
        start = time.monotonic()
        if _in_terminal():
            with _bar(title) as step:
                yield step
        else:
            yield lambda done, total: None
        self.tell(f"{title}: {time.monotonic() - start:.1f} s")

    def track(self, steps: range, title: str) -> Iterable[int]:
        """Yields the steps and shows how many are done, without disturbing what they measure."""
        if not _in_terminal() or threading.current_thread() is not threading.main_thread():
            self.tell(f"{title}: {len(steps)}")
            return steps
        return _track(steps, title)

    def warn(self, message: str) -> None:
        """Prints a warning; the command continues."""
        self.tell(f"warning: {message}")

    def tell(self, message: str) -> None:
        """Prints a line."""
        print(f"{self._command}: {printable_line(message)}", file=sys.stderr)


def _in_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _track(steps: range, title: str) -> Iterator[int]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import track

    # Redrawn between the steps only: a thread that redraws would disturb the measurement.
    options: dict[str, Any] = {"auto_refresh": False, "transient": True}
    with drawing(sys.stderr):
        yield from track(steps, escape(printable(title)), console=Console(stderr=True), **options)


@contextmanager
def _bar(title: str) -> Iterator[Step]:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
    )
    # stderr may have been replaced since rich was imported
    console = Console(file=sys.stderr)
    with drawing(sys.stderr), progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(printable(title), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
