"""Locks, held and waited for by real processes."""

import errno
import fcntl
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
with lock.exclusive(Path(sys.argv[1])):
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


def hold_or_refuse(path: Path) -> None:
    with lock.exclusive(path, on_busy=lock.refuse(Path("out"), "choose another --out")):
        pass


def test_a_second_process_learns_which_folder_is_busy_and_what_to_do(tmp_path: Path) -> None:
    message = "^out: another process writes there: wait until it is done, or choose another --out.$"
    with another(tmp_path / ".lock"), pytest.raises(InputError, match=message):
        hold_or_refuse(tmp_path / ".lock")
    hold_or_refuse(tmp_path / ".lock")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_dies_with_its_process_and_the_next_takes_it_over(tmp_path: Path) -> None:
    with another(tmp_path / ".lock") as process:
        process.kill()
    assert (tmp_path / ".lock").exists()
    hold_or_refuse(tmp_path / ".lock")
    assert list(tmp_path.iterdir()) == []


def test_who_waits_goes_on_when_the_other_ends(tmp_path: Path) -> None:
    calls = []
    with another(tmp_path / "made" / ".lock") as process:

        def on_busy() -> None:
            calls.append(process.poll())
            process.communicate()

        with lock.exclusive(tmp_path / "made" / ".lock", on_busy=on_busy):
            assert calls == [None]
            with pytest.raises(InputError, match="another process writes"):
                hold_or_refuse(tmp_path / "made" / ".lock")
    assert not (tmp_path / "made").exists()


def test_no_two_of_many_processes_hold_it_at_once(tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from shufflelite import lock
for _ in range(300):
    with lock.exclusive(Path("made/.lock")):
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

    monkeypatch.setattr(fcntl, "flock", flock)
    with lock.exclusive(tmp_path / ".lock"):
        hold_or_refuse(tmp_path / ".lock")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        hold_or_refuse(tmp_path / "file" / ".lock")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that takes no others")
def test_a_folder_that_cannot_be_made_is_no_endless_wait() -> None:
    with pytest.raises(OSError, match="/proc/x"), lock.exclusive(Path("/proc/x/.lock")):
        pass
