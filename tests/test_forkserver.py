"""Forked commands behave as started ones do."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import forkserver

PROGRAM = """
import atexit, os, sys, threading, warnings
print(sys.argv[1:], os.getcwd(), os.environ.get("NAME"), sys.stdin.read(), __name__)
print(sys.path[0], "trap" in sys.path[1], hasattr(sys.modules["__main__"], "PROGRAM"))
atexit.register(print, "at exit")
threading.Timer(0.1, print, ["in a thread"]).start()
PROGRAM = 1
print("caf\\udce9", file=sys.stderr)
os.write(2, b"native\\n")
sys.exit(int(sys.argv[1]))
"""
ENDS = {
    "0": "pass",
    "1": "raise ValueError('a defect')",
    "3": "raise SystemExit(3)",
    "text": "raise SystemExit('text')",
    "signal": "import os; os.kill(os.getpid(), 9)",
    "abort": "import os; os.abort()",
}


def light(*args: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *args]
    return forkserver.run(command, modules=["json"], capture_output=True, text=True, **options)


@pytest.mark.parametrize("kind", ["-m", "-c", "file"])
def test_a_forked_program_sees_and_prints_what_a_started_one_does(
    kind: str, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    args = {"-m": ["-m", "program"], "-c": ["-c", PROGRAM], "file": [tmp_path / "program.py"]}[kind]
    command = [sys.executable, *args, "3", "ü"]
    env = {**os.environ, "NAME": "x", "PYTHONPATH": str(tmp_path / "trap")}
    for text in ("in", ""):
        expected, forked = (
            run(command, cwd=tmp_path, env=env, input=text, capture_output=True, text=True)
            for run in (subprocess.run, forkserver.run)
        )
        for name in ("returncode", "stdout", "stderr"):
            assert getattr(forked, name) == getattr(expected, name), name


@pytest.mark.parametrize("end", ENDS)
def test_it_ends_as_a_started_one_does(end: str) -> None:
    expected = subprocess.run([sys.executable, "-c", ENDS[end]], capture_output=True, text=True)
    forked = light("-c", ENDS[end])
    assert forked.returncode == expected.returncode
    assert forked.stderr.splitlines()[-1:] == expected.stderr.splitlines()[-1:]


def test_signals_reach_it_and_time_runs_out() -> None:
    code = "import time; print('ready', flush=True); time.sleep(1000)"
    for number, ended in ((signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)):
        command = [sys.executable, "-c", f"try:\n {code}\nexcept KeyboardInterrupt: exit(130)"]
        with forkserver.Popen(command, modules=["json"], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            assert process.poll() is None
            process.send_signal(number)
            assert process.wait(60) == ended
    start = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        light("-c", code, timeout=0.5)
    assert time.monotonic() - start < 900


def test_tensorflow_works_in_each_of_two_at_once_and_is_not_imported_again() -> None:
    code = (
        "import sys; assert 'tf_keras' in sys.modules; import tensorflow as tf;"
        "print(float(tf.reduce_sum(tf.matmul(tf.ones((99, 99)), tf.ones((99, 99))))))"
    )
    command = [sys.executable, "-c", code]
    both = [forkserver.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate()[0] for process in both] == [b"970299.0\n"] * 2
    assert [process.returncode for process in both] == [0, 0]


def test_a_shell_command_is_forked_by_its_proxy(tmp_path: Path) -> None:
    python = forkserver.proxy(tmp_path / "python", ["json"])
    code = "import sys; print(sys.stdin.read(), 'json' in sys.modules); sys.exit(4)"
    script = f'echo hello | "{python}" -c "{code}" > out; echo $?'
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("4\n", "")
    assert (tmp_path / "out").read_text() == "hello\n True\n"
