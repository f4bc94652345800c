"""Locks, held and waited for by real processes."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shufflelite import lock
from shufflelite.errors import InputError

HOLDER = """
import sys
from pathlib import Path
from shufflelite import lock
with lock.alone(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another(path: Path) -> "Iterator[subprocess.Popen[str]]":
    """A process that holds the lock until its input ends."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def refusing(path: Path) -> None:
    with lock.alone(path, lock.refusing(Path("out"), "choose another --out")):
        pass


def test_a_second_process_is_told_who_holds_it_and_what_to_do(tmp_path: Path) -> None:
    with another(tmp_path / ".lock") as process:
        message = (
            f"out: process {process.pid} writes there: wait until it is done, or choose another"
        )
        with pytest.raises(InputError, match=message):
            refusing(tmp_path / ".lock")
    refusing(tmp_path / ".lock")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_dies_with_its_process_and_the_next_takes_it_over(tmp_path: Path) -> None:
    with another(tmp_path / ".lock") as process:
        process.kill()
    assert (tmp_path / ".lock").exists()
    refusing(tmp_path / ".lock")
    assert list(tmp_path.iterdir()) == []


def test_who_waits_goes_on_when_the_other_ends(tmp_path: Path) -> None:
    told = []
    with another(tmp_path / "made" / ".lock") as process:

        def busy(holder: str) -> None:
            told.append(holder)
            process.communicate()

        with lock.alone(tmp_path / "made" / ".lock", busy):
            assert told == [f"process {process.pid}"]
            with pytest.raises(InputError, match=f"process {os.getpid()} writes"):
                refusing(tmp_path / "made" / ".lock")
    assert not (tmp_path / "made").exists()


def test_no_two_of_many_processes_hold_it_at_once(tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from shufflelite import lock
for _ in range(300):
    with lock.alone(Path("made/.lock")):
        Path("inside").mkdir()  # fails where another is inside
        Path("inside").rmdir()
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program]
    running = [subprocess.Popen(command, cwd=tmp_path, env=env) for _ in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "made"])


def test_a_file_system_without_locks_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with lock.alone(tmp_path / ".lock"):
        refusing(tmp_path / ".lock")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\xff", b"12", b"12 elsewhere\nx"])
def test_whatever_the_file_says_it_is_one_line(tmp_path: Path, content: bytes) -> None:
    with another(tmp_path / ".lock"):
        (tmp_path / ".lock").write_bytes(content)
        with pytest.raises(InputError, match=r"process .*writes there") as caught:
            refusing(tmp_path / ".lock")
    assert len(str(caught.value).splitlines()) == 1
