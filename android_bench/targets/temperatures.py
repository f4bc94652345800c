"""A device's temperature before and after the rounds of a model, and the wait for cooling."""

import time
from collections.abc import Callable

from android_bench import device_info

WARMER_C = 1.0  # than at the start, when a round begins
COOL_DOWN_S = 60.0  # before a round
COOL_DOWNS_S = 300.0  # of one model in all


class Temperatures:
    """Temperatures of one model's rounds; `start_c` is the goal of cooling, None: not reported."""

    def __init__(self, start_c: float | None) -> None:
        self._start_c = start_c
        self._before_c: list[float] = []
        self._after_c: list[float] = []
        self._waited_s = 0.0

    def before_round(self, read: Callable[[], float | None]) -> None:
        """Waits until `read` returns about the start's temperature, or until the time limit."""
        start = time.monotonic()
        now_c = device_info.cool_down(
            read,
            goal_c=None if self._start_c is None else self._start_c + WARMER_C,
            limit_s=max(0.0, min(COOL_DOWN_S, COOL_DOWNS_S - self._waited_s)),
        )
        self._waited_s += time.monotonic() - start
        if now_c is not None:
            self._before_c.append(now_c)

    def after_round(self, now_c: float | None) -> None:
        """Records the temperature after a round."""
        if now_c is not None:
            self._after_c.append(now_c)

    def notes(self) -> list[str]:
        """Describes the temperatures of the measurement."""
        start_c = self._start_c
        if start_c is None or not self._before_c:
            return ["no sensor reports the CPU's temperature: throttling may go unnoticed"]
        notes = [
            f"{start_c:.1f} C at the start,"
            f" {max(self._before_c):.1f} C at most before and"
            f" {max(self._after_c, default=start_c):.1f} C after a round"
        ]
        warm = [c for c in self._before_c if c > start_c + WARMER_C]
        if warm:
            notes.append(
                f"warm: {len(warm)} of {len(self._before_c)} rounds began up to"
                f" {max(warm) - start_c:.1f} C above the start, in spite of waiting"
            )
        return notes
