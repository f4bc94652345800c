"""What tests do with an in-test phone, through the real adb client and server."""

import contextlib
import os
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from android_bench.measurement import Options, Round, TargetError
from android_bench.targets import adb
from android_bench.targets.remote_target import ShellTarget
from shufflelite.errors import InputError
from tests.android_bench import rounds
from tests.android_bench.adb_device import Device


def client(*words: str) -> str:
    """Runs the real client."""
    command = [os.environ["ADBUTILS_ADB_PATH"], *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=1200).stdout


def connect(device: Device) -> Device:
    client("connect", device.serial)
    return device


@contextlib.contextmanager
def opened(device: Device, tool: Path | None, **options: object) -> Iterator[ShellTarget]:
    """The target; afterwards nothing of it may be left on the device."""
    all_options = Options(benchmark_binary=str(tool) if tool else None, **options)  # type: ignore[arg-type]
    target = adb.open_target(device.serial, options=all_options)
    try:
        yield target
    finally:
        target.close()
        assert_clean(device)


@contextlib.contextmanager
def app(device: Device, tool: Path, **options: object) -> Iterator[ShellTarget]:
    """The target of the app that holds the tool."""
    apk = tool.with_suffix(".apk")
    with zipfile.ZipFile(apk, "w") as file:
        file.write(tool, "main.py")
    all_options = Options(benchmark_binary=str(apk), **options)  # type: ignore[arg-type]
    target = adb.open_target(device.serial, options=all_options, apk=True)
    try:
        yield target
    finally:
        target.close()
        assert_clean(device)


def assert_clean(device: Device) -> None:
    end = time.monotonic() + 5  # a killed process takes a moment
    while device.running() and time.monotonic() < end:
        time.sleep(0.05)
    assert device.running() == []
    assert list(device.tmp.iterdir()) == []


def measured(device: Device, tool: Path, model: Path, *, runs: int = 4, **options: object) -> Round:
    with opened(device, tool, **options) as target:
        return rounds.measured(target, model, runs=runs)


def refused(device: Device, tool: Path, model: Path, **options: Any) -> str:
    """The one line that says why it could not be measured."""
    with pytest.raises((TargetError, InputError)) as caught:
        measured(device, tool, model, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def kill_once_there_is(device: Device, pattern: str) -> None:
    """Ends all programs, as soon as a file of the phone's matches."""

    def kill() -> None:
        end = time.monotonic() + 60
        while not any(device.root.glob(pattern)) and time.monotonic() < end:
            time.sleep(0.05)
        device.kill_programs()

    threading.Thread(target=kill, daemon=True).start()


def once(device: Device, what: str) -> None:
    """Breaks the connection at the first command that holds `what`."""
    done = []

    def drops(command: str) -> bool:
        if what in command and not done:
            done.append(command)
            return True
        return False

    device.drops = drops
