"""Code in a child process: its result, or one line when it crashes or hangs."""

import pytest

from shufflelite import isolated
from shufflelite.errors import InputError


def test_code_gets_its_arguments_and_input_and_returns_how_it_ended() -> None:
    code = "import sys; print(sys.argv[1:], sys.stdin.read()); sys.exit(len(sys.argv) - 2)"
    assert isolated.run(code, "a", library="it", data=b"b") == (True, "['a'] b\n")
    assert isolated.run(code, "a", "$b", library="it") == (False, "['a', '$b'] \n")


def test_a_crash_is_one_line() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    with pytest.raises(InputError, match=r"^it crashes on it \(SIGSEGV\): damaged, or of .*again$"):
        isolated.run(code, library="it")


def test_a_hang_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "TIMEOUT_S", 0.5)
    with pytest.raises(InputError, match=r"^it hangs on it: damaged, or"):
        isolated.run("while True: pass", library="it")
