"""Ctrl-C where something must come to its end first."""

import signal
import threading
from collections.abc import Callable
from types import FrameType

HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)  # `cli` repeats the first two by the last


def undisturbed(action: Callable[[], None]) -> None:
    """Does `action` to its end, though Ctrl-C may come again and again; raises it afterwards."""
    if threading.current_thread() is not threading.main_thread():
        action()  # signals reach the main thread alone
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    handlers = {number: signal.getsignal(number) for number in HELD}
    ours = {n: h for n, h in handlers.items() if h not in (signal.SIG_IGN, None)}
    try:
        for number in ours:
            signal.signal(number, note)
        action()
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
            raise KeyboardInterrupt  # where the handler waits with it
