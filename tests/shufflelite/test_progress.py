"""Progress of loops: a line outside a terminal, a bar without a thread inside."""

import io
import sys
import threading

import pytest

from shufflelite.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_outside_a_terminal_a_loop_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(Progress("bench").track(range(3), "host: loading")) == [0, 1, 2]
    assert capsys.readouterr().err == "bench: host: loading: 3\n"


def test_a_bar_has_no_thread_that_would_disturb_a_measurement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    before = threading.active_count()
    for step in Progress("bench").track(range(3), "host: loading"):
        assert threading.active_count() == before, step
    assert "host: loading" in terminal.getvalue()


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_loops_of_other_threads_and_dumb_terminals_have_no_bar(
    monkeypatch: pytest.MonkeyPatch, term: str
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())

    def loop() -> None:
        for _ in Progress("bench").track(range(3), "host: loading"):
            pass

    if term == "dumb":
        loop()
    else:
        thread = threading.Thread(target=loop)
        thread.start()
        thread.join()
    assert terminal.getvalue() == "bench: host: loading: 3\n"
