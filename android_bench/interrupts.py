"""Ctrl-C where something must come to its end first."""

import threading
from collections.abc import Callable


def undisturbed(action: Callable[[], None]) -> None:
    """Does `action` to its end, though Ctrl-C may come again and again; raises it afterwards."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)  # signals reach the main thread alone
    thread.start()
    interrupted: KeyboardInterrupt | None = None
    while thread.is_alive():
        try:
            thread.join()
        except KeyboardInterrupt as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted
    if failures:
        raise failures[0]
