"""Several devices in one run of the command, each of them the real adb's."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from android_bench.measurement import Options
from android_bench.targets import adb
from shufflelite.errors import InputError
from tests.android_bench import fake_tool
from tests.android_bench.adb_device import Device
from tests.android_bench.phone import assert_clean

ROOT = Path(__file__).parents[2]

BENCH = """
import runpy
from android_bench.targets import remote_target, temperatures
remote_target.RETURN_S, temperatures.COOL_DOWN_S = 1.0, 0.1
runpy.run_module("android_bench", run_name="__main__", alter_sys=True)
"""


def bench(
    devices: Sequence[Device], tool: Path, model: Path, out: Path, *, runs: int
) -> subprocess.Popen[str]:
    """Starts the command on all devices, for two rounds."""
    targets = [f"--target=adb:{device.serial}" for device in devices]
    words = [*targets, f"--benchmark_binary={tool}", f"--out={out}", "--rounds=2", f"--runs={runs}"]
    return subprocess.Popen(
        [sys.executable, "-c", BENCH, f"--models={model}", *words, "--warmup=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def meet(devices: Sequence[Device], then: Callable[[Device], bool], *, runs: int) -> None:
    """Lets a device's first timed round begin when all others' has; then does `then`."""
    barrier = threading.Barrier(len(devices))
    came: set[str] = set()

    def drops(device: Device, command: str) -> bool:
        if f"--num_runs={runs}" not in command or device.serial in came:
            return False
        came.add(device.serial)
        barrier.wait(timeout=1200)
        return then(device)

    for device in devices:
        device.drops = lambda command, device=device: drops(device, command)


def test_no_device_and_several_have_messages_of_their_own(
    new_device: Callable[[], Device], tool: Path
) -> None:
    options = Options(benchmark_binary=str(tool))
    with pytest.raises(InputError, match="no device is connected: connect one"):
        adb.open_target("", options=options)
    first = new_device()
    assert adb.open_target("", options=options).name == f"adb:{first.serial}"
    second = new_device()
    assert sorted(adb.serials()) == sorted([first.serial, second.serial])
    with pytest.raises(InputError, match="several devices are connected: choose with") as caught:
        adb.open_target("", options=options)
    assert f"--target=adb:{second.serial}" in str(caught.value)
    with pytest.raises(InputError, match=r"adb knows no device 'R5CT', but: .* \(device\)"):
        adb.open_target("R5CT", options=options)


def test_a_device_is_known_by_itself_whatever_way_it_is_reached(
    new_device: Callable[[], Device], tool: Path
) -> None:
    options = Options(benchmark_binary=str(tool))
    first, second = new_device(), new_device()
    identities = [adb.open_target(one.serial, options=options).identity for one in (first, second)]
    assert len(set(identities)) == 2
    assert adb.open_target(first.serial, options=options).identity == identities[0]


def test_devices_are_measured_at_the_same_time_and_one_that_drops_out_costs_no_other(
    new_device: Callable[[], Device], tool: Path, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    steady, lost = devices = [new_device(), new_device()]

    meet(devices, lambda device: device is lost and bool(device.close()), runs=3)
    out = tmp_path / "rows.jsonl"
    with bench(devices, tool, toys["int8"], out, runs=3) as running:
        table, stderr = running.communicate(timeout=1200)
    assert running.returncode == 1, stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["target"], row["rounds"]) for row in rows] == [(f"adb:{steady.serial}", 2)]
    assert f"adb:{steady.serial}, Google Pixel Test" in table
    lines = stderr.splitlines()
    assert all(line.startswith("android_bench: ") for line in lines)
    for device in devices:
        assert f"android_bench: adb:{device.serial}: measuring rounds: 2" in lines
    assert (
        f"android_bench: int8 on adb:{lost.serial}: adb:{lost.serial}: expected it back" in stderr
    )
    assert lines[-1].endswith("stays on the device: remove it")
    assert_clean(steady)


@pytest.mark.parametrize("presses", [1, pytest.param(30, marks=pytest.mark.slow)])
def test_ctrl_c_ends_all_devices_and_leaves_nothing_behind(
    presses: int, new_device: Callable[[], Device], toys: Mapping[str, Path], tmp_path: Path
) -> None:
    devices = [new_device(), new_device()]
    slow = fake_tool.write(tmp_path / "slow", behaviour="slow")
    began = threading.Semaphore(0)
    meet(devices, lambda device: began.release() or False, runs=100)
    out = tmp_path / "rows.jsonl"
    with bench(devices, slow, toys["int8"], out, runs=100) as running:
        assert all(began.acquire(timeout=1200) for _ in devices)
        for _ in range(presses):
            running.send_signal(signal.SIGINT)
            time.sleep(0.1)
        _, stderr = running.communicate(timeout=1200)
    assert running.returncode == 130, stderr
    assert stderr.splitlines()[-1] == "android_bench: interrupted; no file was left half-written"
    assert "Traceback" not in stderr
    assert not out.exists()
    for device in devices:
        assert_clean(device)
