"""Devices that print for ever, lie or hang: one line, in time and in bounded memory."""

import contextlib
import itertools
import os
import re
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from android_bench.measurement import Options, TargetError
from android_bench.targets import adb, adb_server, ssh
from android_bench.targets.remote_shell import OUTPUT_BYTES, TooMuchOutputError
from android_bench.targets.remote_target import ShellTarget
from shufflelite.errors import InputError
from tests.android_bench.adb_device import Device
from tests.android_bench.phone import app, client, connect, opened, refused
from tests.android_bench.rounds import is_sound, measured
from tests.android_bench.ssh_server import Server, Wire

ENDLESS = "exec yes \"$(head -c 60000 /dev/zero | tr '\\0' x)\""
TOO_MUCH = "expected at most 16 MiB of output, got more, of: "


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("features", ["shell_v2,cmd", "cmd"])
def test_a_shell_that_prints_for_ever_or_hangs_is_one_line(
    features: str, new_device: Callable[[], Device], tool: Path
) -> None:
    device = new_device()
    client("disconnect", device.serial)
    device.features = features
    connect(device)
    with opened(device, tool) as target:
        assert_bounded(target)
    script(device.root / "system/bin/dumpsys", ENDLESS)
    with pytest.raises(InputError, match=rf"^adb:\S+: {TOO_MUCH}"):
        adb.open_target(device.serial, options=Options(benchmark_binary=str(tool)))


def assert_bounded(target: ShellTarget) -> None:
    """Runs commands that do not end on an open target."""
    for command, expected in (
        (ENDLESS, TOO_MUCH),
        (f"({ENDLESS}) >&2", TOO_MUCH),
        ("while :; do echo x; sleep 0.1; done", "expected an end within 1 s, got none"),
        ("sleep 600", "expected an end within 1 s, got none"),
    ):
        start = time.monotonic()
        with pytest.raises(TargetError) as caught:
            target.shell.run(command, timeout_s=1.0 if "1 s" in expected else 60.0)
        assert str(caught.value).startswith(f"{target.name}: {expected}")
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300
        assert time.monotonic() - start < 60
    assert target.shell.run("echo well").text == "well\n"


def test_a_tool_that_prints_for_ever_is_one_line(
    device: Device, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    assert TOO_MUCH in refused(device, script(tmp_path / "tool", ENDLESS), toys["int8"])


def test_a_log_that_never_ends_is_one_line(
    device: Device, tool: Path, toys: Mapping[str, Path]
) -> None:
    script(device.root / "system/bin/logcat", ENDLESS)
    with pytest.raises(TargetError, match=TOO_MUCH), app(device, tool) as target:
        target.load(toys["int8"], warmup=0, seed=0)


class Answering:
    """A device, of which the server passes on these bytes."""

    def __init__(self, data: Iterator[bytes]) -> None:
        self._data = data

    @contextlib.contextmanager
    def open_transport(self, timeout: float) -> Iterator[Any]:
        near, far = socket.socketpair()

        def send() -> None:
            with contextlib.suppress(OSError), far:
                for chunk in self._data:
                    far.sendall(chunk)

        threading.Thread(target=send, daemon=True).start()
        with near:
            yield Connection(near)


class Connection:
    def __init__(self, conn: socket.socket) -> None:
        self.conn = conn

    def send_command(self, command: str) -> None:
        pass

    def check_okay(self) -> None:
        pass


def packet(kind: int, data: bytes, *, size: int | None = None) -> bytes:
    return struct.pack("<BI", kind, len(data) if size is None else size) + data


@pytest.mark.parametrize(
    ("packets", "data", "error"),
    [
        (True, [packet(1, b"", size=2**32 - 1)], TooMuchOutputError),
        (True, itertools.repeat(packet(1, bytes(100_000))), TooMuchOutputError),
        (True, itertools.repeat(packet(9, bytes(100_000))), TimeoutError),
        (True, itertools.repeat(packet(1, b"")), TimeoutError),
        (True, [packet(1, b"a"), packet(3, b"")], EOFError),
        (True, [b"\x01\x05"], EOFError),
        (False, itertools.repeat(bytes(100_000)), TooMuchOutputError),
        (False, [b"text\n"], EOFError),
        (False, [b"shufflelite-exit-code:" + b"9" * 5000], EOFError),
        (False, [b"shufflelite-exit-code:"], EOFError),
    ],
)
def test_no_answer_of_a_phone_fills_the_memory(
    packets: bool, data: Any, error: type[Exception]
) -> None:
    tracemalloc.start()
    with pytest.raises(error):
        adb_server.run(Answering(iter(data)), "true", timeout_s=1.0, packets=packets)  # type: ignore[arg-type]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * OUTPUT_BYTES


@pytest.mark.parametrize(
    ("packets", "data"),
    [
        (True, [packet(1, b"a\r\n"), packet(2, b"\xff"), packet(3, b"\x07")]),
        (False, [b"a\r\n\xff", b"shufflelite-exit-code:7\r\n"]),
    ],
)
def test_output_and_exit_code_arrive_whatever_the_bytes(packets: bool, data: list[bytes]) -> None:
    ran = adb_server.run(Answering(iter(data)), "true", timeout_s=60.0, packets=packets)  # type: ignore[arg-type]
    assert (ran.text, ran.code) == ("a\n\ufffd", 7)


@contextlib.contextmanager
def commanded(server: Server, command: str) -> Iterator[None]:
    """Whoever logs in, whatever for, gets this command."""
    keys = server.folder / "authorized_keys"
    plain = keys.read_text()
    keys.write_text(f'command="{command}" {plain}')
    try:
        yield
    finally:
        keys.write_text(plain)


def test_a_board_s_shell_that_prints_for_ever_or_hangs_is_one_line(
    wire: Wire, tool: Path, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    endless = script(tmp_path / "tool", ENDLESS)
    target = ssh.open_target("board", options=Options(benchmark_binary=str(endless)))
    try:
        assert_bounded(target)
        with pytest.raises(TargetError, match=f"^ssh:board: {TOO_MUCH}"):
            target.load(toys["int8"], warmup=0, seed=0)
    finally:
        target.close()


@pytest.mark.parametrize(
    "command", ["yes", "cat /dev/zero", "yes >&2", "sleep 10", "yes '' | head -c 99999; sleep 10"]
)
def test_a_board_that_never_lets_us_in_is_one_line(
    command: str, wire: Wire, server: Server, tool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "CONNECT_S", 2.0)
    with (
        commanded(server, command),
        pytest.raises(InputError, match=r"^ssh:board: (no connection within 2 s|y)$"),
    ):
        ssh.open_target("board", options=Options(benchmark_binary=str(tool)))


@pytest.mark.parametrize("pause_s", [0.0, 0.3])
def test_an_endless_greeting_is_one_line(
    pause_s: float, wire: Wire, tool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "CONNECT_S", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    while True:
                        connection.sendall(b"welcome\r\n")
                        time.sleep(pause_s)

        threading.Thread(target=greet, daemon=True).start()
        where = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(InputError, match=f"^ssh:{where}: ") as caught:
            ssh.open_target(where, options=Options(benchmark_binary=str(tool)))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("", {}),
        ("emulator-5554\tdevice\n", {"emulator-5554": "device"}),
        (
            "adb-R5CX826Q9VB-IjsOKx (2)._adb-tls-connect._tcp\tdevice\n192.168.1.7:5555\toffline\n",
            {
                "adb-R5CX826Q9VB-IjsOKx (2)._adb-tls-connect._tcp": "device",
                "192.168.1.7:5555": "offline",
            },
        ),
        (
            "0123\tno permissions (user in plugdev group; are your udev rules wrong?); see"
            " [http://developer.android.com/tools/device.html]\n",
            {
                "0123": "no permissions (user in plugdev group; are your udev rules wrong?); see"
                " [http://developer.android.com/tools/device.html]"
            },
        ),
        ("????????????\tno permissions\n", {"????????????": "no permissions"}),
    ],
)
def test_the_list_of_devices_is_read_by_its_protocol(answer: str, expected: dict[str, str]) -> None:
    assert adb_server.parse_states(answer) == expected


class Renaming(Wire):
    """The wire to the adb server, at whose other end a device has another serial."""

    def __init__(self, *serials: str) -> None:
        super().__init__(int(os.environ["ANDROID_ADB_SERVER_PORT"]))
        self._serials = [serial.encode() for serial in serials]

    def passed_on(self, data: bytes) -> bytes:
        for one, other in itertools.permutations(self._serials):
            head = 4 * data.startswith(b"OKAY")  # of an answer; then its length follows, as in
            if one in data and re.match(rb"[0-9a-f]{4}", data[head:]):  # requests
                body = data[head + 4 :].replace(one, other)
                return data[:head] + b"%04x" % len(body) + body
        return data


def test_a_phone_whose_serial_has_blanks_is_measured(
    device: Device, tool: Path, toys: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    serial = "adb-R5CX826Q9VB-IjsOKx (2)._adb-tls-connect._tcp"
    wire = Renaming(device.serial, serial)
    with contextlib.closing(wire), monkeypatch.context() as patch:
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(wire.port))
        assert adb_server.states()[serial] == "device"
        target = adb.open_target(serial, options=Options(benchmark_binary=str(tool)))
        with contextlib.closing(target):
            assert target.name == f"adb:{serial}"
            assert is_sound(measured(target, toys["int8"], runs=4), runs=4)


@pytest.mark.parametrize(
    ("serial", "states", "message"),
    [
        (
            "",
            {"a b (2)._tcp": "no permissions (x y)"},
            r"adb:a b \(2\)\._tcp is not accessible for",
        ),
        ("", {"a b": "device", "c": "device"}, "choose with '--target=adb:a b', --target=adb:c"),
        ("", {"a": "connecting"}, "is about to be connected"),
        ("a", {"a": "on \x1b[31mfire"}, r"is in state 'on \\x1b\[31mfire': restart it"),
        ("d", {"a b": "device"}, r"adb knows no device 'd', but: 'a b' \(device\)"),
    ],
)
def test_a_device_that_cannot_be_used_is_one_line(
    serial: str, states: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    monkeypatch.setattr(adb_server, "states", lambda: states)
    with pytest.raises(InputError, match=message):
        adb.open_target(serial, options=Options())
