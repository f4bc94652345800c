"""Phones, connections and tools that fail: a right result or one line, and nothing left behind."""

import contextlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from android_bench.measurement import Options, TargetError
from android_bench.targets import adb, remote_target
from tests.android_bench import fake_tool
from tests.android_bench.adb_device import Device
from tests.android_bench.phone import (
    assert_clean,
    client,
    kill_once_there_is,
    measured,
    once,
    opened,
    refused,
)
from tests.android_bench.rounds import is_sound

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("what", ["--num_runs=4", "push 1.tflite", "mkdir", "rm -rf", "thermal"])
def test_a_broken_connection_that_comes_back_costs_nothing(
    what: str, device: Device, tool: Path, toys: Mapping[str, Path]
) -> None:
    device.away_s = 1.0
    once(device, what)
    assert is_sound(measured(device, tool, toys["int8"]), runs=4)
    assert any(what in command for command in device.commands) or what.startswith("push")


def test_what_a_restart_removes_is_pushed_again(
    device: Device, tool: Path, toys: Mapping[str, Path]
) -> None:
    with opened(device, tool) as target:
        session = target.load(toys["int8"], warmup=0, seed=0)
        shutil.rmtree(next(device.tmp.iterdir()))
        once(device, "--num_runs=4")
        assert is_sound(session.measure(runs=4), runs=4)


@pytest.mark.slow
def test_a_phone_that_stays_away_is_one_line(
    device: Device, tool: Path, toys: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_target, "RETURN_S", 1.0)
    options = Options(benchmark_binary=str(tool))
    target = adb.open_target(device.serial, options=options)
    session = target.load(toys["int8"], warmup=0, seed=0)
    device.away_s = 3600.0
    device.drop()
    with pytest.raises(TargetError, match=r"expected it back within 1 s, but it .*"):
        session.measure(runs=1)
    session.close()
    with pytest.raises(TargetError, match=r"/data/local/tmp/shufflelite-\w+ stays on the device"):
        target.close()


def test_a_phone_that_does_not_trust_this_computer_names_the_remedy(
    device: Device, tool: Path, toys: Mapping[str, Path]
) -> None:
    device.authorized = False
    device.drop()
    end = time.monotonic() + 30
    while "unauthorized" not in client("devices") and time.monotonic() < end:
        with contextlib.suppress(subprocess.CalledProcessError):
            client("disconnect", device.serial)
        with contextlib.suppress(subprocess.CalledProcessError):
            client("connect", device.serial)
    assert "unlock it and allow USB debugging" in refused(device, tool, toys["int8"])


def test_a_program_for_other_processors_is_refused(
    device: Device, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x3e\x00" + bytes(64))
    message = refused(device, program, toys["int8"])
    assert "expected a program for arm64-v8a or armeabi-v7a" in message
    assert "got one for x86_64" in message
    program.write_text("#!/nowhere/interpreter\n")
    assert "is it for this system and processor?" in refused(device, program, toys["int8"])


@pytest.mark.parametrize("room", ["tool", "model"])
def test_a_full_disk_is_named_and_left_as_it_was(
    room: str, device: Device, tool: Path, toys: Mapping[str, Path]
) -> None:
    device.free_bytes = 100 if room == "tool" else tool.stat().st_size + 100
    message = refused(device, tool, toys["int8"])
    name = tool.name if room == "tool" else toys["int8"].name
    assert f"no space left for {name}" in message


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("crash", "the tool died of SIGABRT"),
        ("fails", "Failed to allocate tensors"),
        pytest.param("hang", "expected an end within 3 s, got none", marks=pytest.mark.slow),
    ],
)
def test_a_tool_that_fails_is_one_line(
    behaviour: str,
    message: str,
    device: Device,
    toys: Mapping[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote_target, "RUN_S", 3.0)
    program = fake_tool.write(tmp_path / "tool", behaviour=behaviour)
    assert message in refused(device, program, toys["int8"])


def test_a_run_that_is_killed_is_no_result(
    device: Device, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    slow = fake_tool.write(tmp_path / "slow", behaviour="slow")
    with opened(device, slow) as target:
        session = target.load(toys["int8"], warmup=0, seed=0)
        kill_once_there_is(device, "data/local/tmp/*/pid")
        with pytest.raises(TargetError, match="killed by SIGKILL; memory may be short"):
            session.measure(runs=100)


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("garbles", "the output has avg_ms = 7.99575, the result file 131.753: they are of"),
        ("cuts", "the result file is cut off or damaged"),
        ("contradicts", "the tool contradicts itself on what xnnpack took of the model"),
    ],
)
def test_files_that_contradict_the_log_are_refused(
    behaviour: str, message: str, device: Device, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    program = fake_tool.write(tmp_path / "tool", behaviour=behaviour)
    assert message in refused(device, program, toys["int8"], runs=4)


def test_a_delegate_that_declines_is_never_a_number(
    device: Device, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    for generation, delegate in (("head", "xnnpack"), ("old", "gpu")):
        declining = fake_tool.write(
            tmp_path / generation, generation=generation, behaviour="declines"
        )
        message = refused(device, declining, toys["int8"], delegate=delegate)
        assert f"the delegate {delegate} took no operator of the model" in message


INTERRUPTED = """
import sys
from pathlib import Path
from android_bench.measurement import Options
from android_bench.targets import adb
from shufflelite import cli

def main(argv):
    target = adb.open_target(argv[1], options=Options(benchmark_binary=argv[2]))
    try:
        session = target.load(Path(argv[3]), warmup=0, seed=0)
        session.measure(runs=30)
        session.close()
    finally:
        target.close()
    return 0

cli.run(main, name="bench")
"""


@pytest.mark.parametrize("presses", [1, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", ["--num_runs=30", "rm -rf", "mkdir", "wc -c"])
def test_ctrl_c_leaves_nothing_behind(
    what: str, presses: int, device: Device, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    slow = fake_tool.write(tmp_path / "slow", behaviour="slow")
    device.delay_s = 0.3  # so that each command is one that Ctrl-C can hit
    command = [sys.executable, "-c", INTERRUPTED, device.serial, str(slow), str(toys["int8"])]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as bench:
        pressed: list[threading.Thread] = []

        def press() -> None:
            for _ in range(presses):
                bench.send_signal(signal.SIGINT)
                time.sleep(0.1)

        def drops(command: str) -> bool:
            if what in command and not pressed:
                pressed.append(threading.Timer(0.2, press))
                pressed[0].start()
            return False

        device.drops = drops
        _, stderr = bench.communicate(timeout=1200)
        pressed[0].join()
    assert stderr == "bench: interrupted; no file was left half-written\n"
    assert bench.returncode == 130
    assert_clean(device)
