"""Delays Ctrl-C until an action is complete."""

import signal
import threading
from collections.abc import Callable
from types import FrameType

HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)  # `cli` repeats the first two by the last


def undisturbed(action: Callable[[], None]) -> None:
    """Completes `action` although Ctrl-C may come repeatedly; raises KeyboardInterrupt after it."""
    if threading.current_thread() is not threading.main_thread():
        action()  # signals reach the main thread alone
        return
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    handlers = {number: signal.getsignal(number) for number in HELD}
    replaced = {n: h for n, h in handlers.items() if h not in (signal.SIG_IGN, None)}
    try:
        for number in replaced:
            signal.signal(number, note)
        action()
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])
            raise KeyboardInterrupt  # if the handler did not raise it at once
