"""Ctrl-C while something comes to its end."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from android_bench.interrupts import undisturbed

PROGRAM = """
import time
from android_bench.interrupts import undisturbed
from shufflelite import cli

def action():
    print("begun", flush=True)
    time.sleep(2.5)
    print("done", flush=True)

def main(argv):
    undisturbed(action)
    print("went on", flush=True)
    return 0

cli.run(main, name="bench")
"""


@pytest.mark.parametrize(
    ("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "terminated"]
)
def test_an_action_ends_though_it_is_interrupted_again_and_again(
    stop: signal.Signals, code: int
) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=-1, stderr=-1, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "begun\n"
        for _ in range(10):
            run.send_signal(stop)
            time.sleep(0.2)
        stdout, complaint = run.communicate(timeout=1200)
    assert (stdout, run.returncode) == ("done\n", code)
    assert complaint.startswith("bench: ")
    assert len(complaint.splitlines()) == 1


def test_handlers_and_failures_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def fail() -> None:
        raise OSError("failed")

    with pytest.raises(OSError, match="failed"):
        undisturbed(fail)
    with pytest.raises(KeyboardInterrupt):
        undisturbed(lambda: signal.raise_signal(signal.SIGINT))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_in_another_thread_it_is_the_action() -> None:
    done = []
    thread = threading.Thread(target=lambda: undisturbed(lambda: done.append(1)))
    thread.start()
    thread.join()
    assert done == [1]
