"""Code in a child process: its result, or one line when it crashes or hangs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shufflelite import isolated
from shufflelite.errors import InputError


def test_code_gets_its_arguments_and_input_and_returns_what_it_prints() -> None:
    code = "import sys; print(sys.argv[1:], sys.stdin.read()); sys.exit(len(sys.argv) - 2)"
    assert isolated.run(code, "a", library="it", data=b"b") == "['a'] b"
    with pytest.raises(InputError, match=r"^\['a', '\$b'\]$"):
        isolated.run(code, "a", "$b", library="it")


def test_a_defect_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        isolated.run("1 / 0", library="it")


def test_a_crash_is_one_line() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    with pytest.raises(InputError, match=r"^it crashes on it \(SIGSEGV\): damaged, or of .*again$"):
        isolated.run(code, library="it")


def test_a_hang_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    limited = "from shufflelite import isolated; isolated.limit(memory_bytes=1 << 30, cpu_s=0)\n"
    with pytest.raises(InputError, match=r"^it hangs on it: damaged, or"):
        isolated.run(f"{limited}while True: pass", library="it")
    monkeypatch.setattr(isolated, "TIMEOUT_S", 0.5)
    with pytest.raises(InputError, match=r"^it hangs on it: damaged, or"):
        isolated.run("import time; time.sleep(60)", library="it")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_beyond_the_limit_is_a_memory_error() -> None:
    code = """
from shufflelite import isolated
isolated.limit(memory_bytes=100 << 20, cpu_s=9)
bytes(90 << 20)
try:
    bytes(110 << 20)
except MemoryError:
    print("refused")
"""
    assert isolated.run(code, library="it") == "refused"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot")
def test_a_guarded_command_ends_with_the_process_that_starts_it() -> None:
    code = """
import subprocess, sys
from shufflelite import isolated
child = subprocess.Popen(isolated.guarded(["sleep", "60"]))
print(child.pid, flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdin=-1, stdout=-1, env=env) as process:
        assert process.stdout is not None
        child = Path("/proc", process.stdout.readline().decode().strip())
        while b"sleep" not in (child / "cmdline").read_bytes():
            time.sleep(0.01)
        process.kill()
    end = time.monotonic() + 60
    while is_alive(child):
        assert time.monotonic() < end
        time.sleep(0.01)


def is_alive(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="other systems need no guard")
def test_a_guarded_command_has_its_own_environment_signals_and_exit_code() -> None:
    script = "trap; env; kill -PIPE $$"
    run = subprocess.run(
        isolated.guarded(["sh", "-c", script]), capture_output=True, env={"A": "ä"}
    )
    assert run.returncode == -signal.SIGPIPE
    assert "A=ä" in run.stdout.decode().splitlines()
    assert not [line for line in run.stdout.decode().splitlines() if line.startswith("LC_")]
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        isolated.guarded(["no-such-program"])
