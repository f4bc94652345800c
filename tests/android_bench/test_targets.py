"""What each target supports, checked before anything runs."""

import os

import adbutils
import pytest

from android_bench import targets
from android_bench.measurement import Options
from shufflelite.errors import FlagError, InputError


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("hots", {}, "Unknown target 'hots'. Did you mean 'host'? Known: host, adb, adb-apk, ssh"),
        ("host:1", {}, "Unknown target 'host:1'. Did you mean 'host'?"),
        ("phone", {}, "Unknown target 'phone'. Known: host"),
        ("", {}, "Unknown target ''. Known: host"),
        ("emulated", {}, "Unknown emulated core ''. Known: a53"),
        ("emulated:a99", {}, "Unknown emulated core 'a99'"),
        (
            "host,emulated:a53",
            {},
            "expected one target; repeat the flag: --target=host --target=emulated:a53",
        ),
        ("host", {"cores": "big"}, "The target host has no --cores: leave it out."),
        ("host", {"benchmark_binary": "x"}, "has no --benchmark_binary: leave it out."),
        ("host", {"delegate": "gpu"}, "host has no delegate gpu: choose xnnpack or none."),
        ("ssh:board", {"delegate": "nnapi"}, "delegate nnapi: choose xnnpack or gpu or none."),
        ("ssh:board", {"runtime": "tflite-runtime"}, "The target ssh:board has no --runtime"),
        ("adb", {"runtime": "tflite-runtime"}, "The target adb has no --runtime"),
        ("emulated:a53", {"threads": 2}, "The target emulated:a53 has no --threads: leave it out."),
        (
            "emulated:a53",
            {"delegate": "none"},
            "The target emulated:a53 has no --delegate: leave it out.",
        ),
        ("host", {"threads": 0}, "--threads=0: expected 1 to 8 on the target host."),
        ("host", {"threads": 9}, "--threads=9: expected 1 to 8 on the target host."),
        ("adb:x", {"threads": 257}, "--threads=257: expected 1 to 256 on the target adb:x."),
    ],
)
def test_an_unsupported_option_is_refused_before_anything_runs(
    spec: str, options: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    with pytest.raises(FlagError) as caught:
        targets.check(spec, Options(**options))  # type: ignore[arg-type]
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("host", {"delegate": "none", "threads": 8, "runtime": "tflite-runtime"}),
        ("emulated:i8mm", {"profile": True}),
        ("ssh:board", {"delegate": "gpu", "threads": 256, "cores": "4-7"}),
        ("adb", {"delegate": "nnapi", "benchmark_binary": "tool"}),
    ],
)
def test_a_supported_option_is_accepted(
    spec: str, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    targets.check(spec, Options(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("port", ["abc", "", "0", "65536", "-1", "5037.0"])
def test_an_invalid_port_of_the_adb_server_is_refused(
    port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", port)
    with pytest.raises(InputError, match="ANDROID_ADB_SERVER_PORT: expected the port") as caught:
        targets.open_target("adb", options=Options())
    assert repr(port) in str(caught.value)
    targets.check("host", Options())  # which does not need it


@pytest.mark.parametrize("program", ["/nowhere/adb", os.devnull])
def test_a_missing_adb_names_what_to_install(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADBUTILS_ADB_PATH", program)

    def refused(connection: adbutils.AdbConnection) -> None:
        raise adbutils.AdbTimeout("no server")

    monkeypatch.setattr(adbutils.AdbConnection, "_create_socket", refused)
    with pytest.raises(InputError, match="install Android's platform-tools, or `pip install adbu"):
        targets.open_target("adb", options=Options())
