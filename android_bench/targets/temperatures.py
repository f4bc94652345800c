"""A device's temperature around the rounds of one model, which wait until it has cooled down."""

import time
from collections.abc import Callable

from android_bench import device_info

WARMER_C = 1.0  # than at the start, when a round begins
COOL_DOWN_S = 60.0  # before a round
COOL_DOWNS_S = 300.0  # of one model in all


class Temperatures:
    """Those before and after the rounds; `start_c` is the one to come back to, None: not told."""

    def __init__(self, start_c: float | None) -> None:
        self._start_c = start_c
        self._begun_c: list[float] = []
        self._ended_c: list[float] = []
        self._waited_s = 0.0

    def before_round(self, read: Callable[[], float | None]) -> None:
        """Waits until what `read` tells is about that of the start, or for long enough."""
        begun = time.monotonic()
        now_c = device_info.cool_down(
            read,
            goal_c=None if self._start_c is None else self._start_c + WARMER_C,
            limit_s=max(0.0, min(COOL_DOWN_S, COOL_DOWNS_S - self._waited_s)),
        )
        self._waited_s += time.monotonic() - begun
        if now_c is not None:
            self._begun_c.append(now_c)

    def after_round(self, now_c: float | None) -> None:
        """Notes the temperature behind a round."""
        if now_c is not None:
            self._ended_c.append(now_c)

    def notes(self) -> list[str]:
        """What a reader of the figures must know."""
        start_c = self._start_c
        if start_c is None or not self._begun_c:
            return []
        notes = [
            f"{start_c:.1f} C at the start,"
            f" {max(self._begun_c):.1f} C at most before and"
            f" {max(self._ended_c, default=start_c):.1f} C after a round"
        ]
        warm = [c for c in self._begun_c if c > start_c + WARMER_C]
        if warm:
            notes.append(
                f"warm: {len(warm)} of {len(self._begun_c)} rounds began up to"
                f" {max(warm) - start_c:.1f} C above the start, after waiting in vain"
            )
        return notes
