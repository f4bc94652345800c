"""Reports progress on stderr: a progress bar in a terminal, plain lines elsewhere."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

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
        from rich.console import Console
        from rich.progress import track

        # Redrawn between the steps only: a thread that redraws would disturb the measurement.
        console = Console(stderr=True)
        return track(steps, title, console=console, auto_refresh=False, transient=True)

    def warn(self, message: str) -> None:
        """Prints a warning; the command continues."""
        self.tell(f"warning: {message}")

    def tell(self, message: str) -> None:
        """Prints a line."""
        print(f"{self._command}: {message}", file=sys.stderr)


def _in_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def _bar(title: str) -> Iterator[Step]:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
    )
    # stderr may have been replaced since rich was imported
    with progress.Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
