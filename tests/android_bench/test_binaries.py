"""The benchmark tool's program: found, downloaded once from a local server, and checked."""

import hashlib
import http.server
import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from numpy.random import mtrand

from android_bench import binaries
from shufflelite.errors import InputError


def elf(machine: int, *, big_endian: bool = False) -> bytes:
    """The beginning of a program: identification, type 2, machine."""
    data = 2 if big_endian else 1
    order = "big" if big_endian else "little"
    ident = b"\x7fELF" + bytes([2, data, 1]) + bytes(9)
    return ident + (2).to_bytes(2, order) + machine.to_bytes(2, order) + bytes(44)


def program(machine: int) -> bytes:
    """A real program of this machine, as if it were for another."""
    data = Path(mtrand.__file__).read_bytes()
    return data[:18] + machine.to_bytes(2, "little") + data[20:]


AARCH64 = program(183)


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` under any name."""

    content = AARCH64
    requests = 0


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        for abi, name in (("arm64-v8a", "aarch64"), ("armeabi-v7a", "arm")):
            url = f"http://127.0.0.1:{running.server_port}/android_{name}_benchmark_model"
            monkeypatch.setitem(binaries.TOOLS, ("android", abi), url)
        yield running
        running.shutdown()
        thread.join()


def find(folder: Path, *, path: object = None, abis: str = "arm64-v8a") -> binaries.ToolBinary:
    path = None if path is None else str(path)
    return binaries.find(system="android", abis=abis.split(","), path=path, folder=folder)


def test_the_official_tool_is_fetched_once_and_its_hash_recorded(
    server: Server, tmp_path: Path
) -> None:
    binary = find(tmp_path)
    assert binary.path.read_bytes() == AARCH64
    assert binary.sha256 == hashlib.sha256(AARCH64).hexdigest()
    record = json.loads((tmp_path / "android_aarch64_benchmark_model.json").read_text())
    assert record["sha256"] == binary.sha256
    assert record["url"].startswith("http://127.0.0.1")
    server.content = AARCH64 + b"newer"  # the server's file changes daily
    assert find(tmp_path) == binary
    assert server.requests == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "android_aarch64_benchmark_model",
        "android_aarch64_benchmark_model.json",
    ]


def test_a_tool_that_changed_since_is_refused(server: Server, tmp_path: Path) -> None:
    path = find(tmp_path).path
    path.write_bytes(AARCH64 + b"!")
    with pytest.raises(
        InputError, match=r"expected SHA-256 \w+ as when it was downloaded, got \w+"
    ):
        find(tmp_path)
    path.unlink()
    assert find(tmp_path).path.read_bytes() == AARCH64
    path.with_name(f"{path.name}.json").write_text("[]")
    with pytest.raises(InputError, match="expected SHA-256 None as when it was downloaded"):
        find(tmp_path)


def test_a_tool_put_there_by_hand_is_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / "android_aarch64_benchmark_model").write_bytes(AARCH64)
    assert find(tmp_path).sha256 == hashlib.sha256(AARCH64).hexdigest()
    assert server.requests == 0


def test_a_tool_for_another_device_is_refused(server: Server, tmp_path: Path) -> None:
    server.content = program(62)
    with pytest.raises(InputError, match="got one for x86_64; delete it to download it again"):
        find(tmp_path)


@pytest.mark.parametrize("content", [b"<html>" * 99999, AARCH64[:-9], b""])
def test_what_is_no_whole_tool_is_not_kept(content: bytes, server: Server, tmp_path: Path) -> None:
    server.content = content
    with pytest.raises(InputError, match=r"expected .*, or pass --benchmark_binary=FILE") as caught:
        find(tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_offline_it_says_what_to_download_and_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    url = "http://127.0.0.1:1/android_aarch64_benchmark_model"
    monkeypatch.setitem(binaries.TOOLS, ("android", "arm64-v8a"), url)
    with pytest.raises(InputError) as caught:
        find(tmp_path)
    message = str(caught.value)
    assert url in message
    assert f"save it as {tmp_path}/android_aarch64_benchmark_model" in message
    assert "or pass --benchmark_binary=FILE" in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("abis", "name"),
    [
        ("arm64-v8a,armeabi-v7a", "android_aarch64_benchmark_model"),
        ("armeabi-v7a,armeabi", "android_arm_benchmark_model"),
    ],
)
def test_the_device_s_first_abi_decides(
    abis: str, name: str, server: Server, tmp_path: Path
) -> None:
    server.content = program(183 if "aarch64" in name else 40)
    assert find(tmp_path, abis=abis).path.name == name


def test_an_abi_without_an_official_tool_names_those_with_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no official benchmark tool for x86_64 or x86 \(there"):
        find(tmp_path, abis="x86_64,x86")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (elf(62), "expected a program for arm64-v8a, as the device runs, got one for x86_64"),
        (elf(40), "got one for arm$"),
        (elf(8, big_endian=True), "got one for machine 8"),
        (b"PK\x03\x04....", "expected a program, not an APK, got a file that starts with"),
    ],
)
def test_a_program_for_another_device_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "tool"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message):
        find(tmp_path, path=path)


def test_the_user_s_own_program_is_used(tmp_path: Path) -> None:
    for name, data in (("tool", AARCH64), ("script", b"#!/bin/sh\n")):
        (tmp_path / name).write_bytes(data)
        assert find(tmp_path, path=tmp_path / name).path == tmp_path / name
    with pytest.raises(InputError, match=r"nowhere: expected the benchmark tool's file, found no"):
        find(tmp_path, path=tmp_path / "nowhere")


def test_the_app_is_an_apk(tmp_path: Path) -> None:
    path = tmp_path / "tool.apk"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("AndroidManifest.xml", "")
    assert binaries.find(system="apk", abis=["arm64-v8a"], path=str(path)).path == path
    path.write_bytes(AARCH64)
    with pytest.raises(InputError, match="expected an APK, as target adb-apk needs, got a file"):
        binaries.find(system="apk", abis=["arm64-v8a"], path=str(path))


@pytest.mark.parametrize("machine", ["aarch64", "arm", "x86_64"])
def test_the_machine_of_this_host_s_programs_is_read(machine: str) -> None:
    numbers = {"aarch64": 183, "arm": 40, "x86_64": 62}  # e_machine of the ELF standard
    assert binaries.machine(elf(numbers[machine])) == machine
    assert binaries.machine(b"#!/bin/sh\n") is None
    assert binaries.machine(b"") is None
