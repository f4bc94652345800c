"""Making the emulated system: what it needs, and what is left of a set-up cut off."""

import json
import os
import platform
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from android_bench.emulated import process, setup
from android_bench.measurement import TargetError
from android_bench.targets.emulated import EmulatedTarget
from shufflelite.errors import InputError

SCRIPTS = {  # what a command prints, and how it leaves
    "qemu-aarch64": "echo 'qemu-aarch64 version 7.2.9 (Debian)'; echo '-plugin'",
    "apt-get": "echo 'no network here' >&2; exit 100",
    "dpkg": "exit 1",
    "gcc": "exit 1",
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "shufflelite" / "emulated"


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Leaves these commands alone in the PATH."""

    def leave(**scripts: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        for name, script in scripts.items():
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    return leave


def without(*names: str) -> dict[str, str]:
    return {name: script for name, script in SCRIPTS.items() if name not in names}


def nothing_left(cache: Path) -> bool:
    return not cache.exists() or not list(cache.iterdir())


@pytest.mark.parametrize(("system", "machine"), [("darwin", "arm64"), ("linux", "aarch64")])
def test_another_host_is_refused(
    cache: Path, monkeypatch: pytest.MonkeyPatch, system: str, machine: str
) -> None:
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(InputError, match=rf"needs Linux on x86-64, got {system} on {machine}"):
        setup.setup(print)


@pytest.mark.parametrize("version", ["7.1.0", "6.2", "9.0.0", "10.0.2"])
def test_a_qemu_that_the_counter_does_not_know_is_refused(
    cache: Path, only: Callable[..., None], version: str
) -> None:
    only(**SCRIPTS | {"qemu-aarch64": f"echo 'qemu-aarch64 version {version} (Debian)'"})
    with pytest.raises(InputError, match=rf"expected QEMU 7\.2 to 8, .* got {version};"):
        setup.setup(print)
    assert not setup.is_ready()


def test_a_qemu_without_plugins_is_refused(cache: Path, only: Callable[..., None]) -> None:
    only(**SCRIPTS | {"qemu-aarch64": "echo 'qemu-aarch64 version 7.2.9'"})
    with pytest.raises(InputError, match="needs a qemu-aarch64 with plugins"):
        setup.setup(print)


def test_qemu_is_installed_by_root_alone(
    cache: Path, only: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    only(**without("qemu-aarch64"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(InputError, match="as root, run `apt-get install qemu-user`"):
        setup.setup(print)


def test_an_installation_that_fails_says_why(
    cache: Path, only: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    only(**without("qemu-aarch64"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(InputError, match="`apt-get update` exited with 100: no network here"):
        setup.setup(print)


@pytest.mark.parametrize("missing", ["apt-get", "dpkg", "gcc"])
def test_a_missing_tool_is_named(cache: Path, only: Callable[..., None], missing: str) -> None:
    only(**without(missing))
    with pytest.raises(InputError, match=f"needs {missing}, found none; install"):
        setup.setup(print)


@pytest.mark.parametrize("error", [InputError("no"), KeyboardInterrupt()])
def test_a_set_up_that_breaks_off_leaves_nothing_behind(
    cache: Path, only: Callable[..., None], error: BaseException
) -> None:
    def stop(line: str) -> None:
        assert list(cache.glob("*.part"))
        raise error

    only(**SCRIPTS)
    with pytest.raises(type(error)):
        setup.setup(stop)
    assert nothing_left(cache)
    assert not setup.is_ready()


@pytest.mark.skipif(not setup.KEYRING.is_file(), reason="no keys of Debian")
def test_a_download_that_fails_says_why_and_removes_what_a_killed_one_left(
    cache: Path, only: Callable[..., None]
) -> None:
    (cache / "killed.part" / "system").mkdir(parents=True)
    only(**SCRIPTS)
    with pytest.raises(
        InputError, match=r"cannot be set up: `apt-get .*: no network here"
    ) as caught:
        setup.setup(print)
    assert "\n" not in str(caught.value)
    assert nothing_left(cache)


def test_the_target_says_how_to_set_it_up(cache: Path, only: Callable[..., None]) -> None:
    only(**SCRIPTS)
    with pytest.raises(
        InputError, match="not set up: run `python -m android_bench setup emulated`"
    ):
        EmulatedTarget("a53")
    with pytest.raises(InputError, match=r"Unknown emulated core 'a35'\. Did you mean 'a\d\d'\?"):
        EmulatedTarget("a35")


def test_a_command_that_hangs_is_ended() -> None:
    with pytest.raises(TargetError, match="` did not end in 0 s"):
        process.run([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.1)


@pytest.mark.slow
def test_two_set_ups_at_once_make_one_and_the_next_downloads_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress: list[list[str]] = [[], []]
    failures: list[InputError] = []

    def work(lines: list[str]) -> None:
        try:
            setup.setup(lines.append)
        except InputError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(lines,)) for lines in progress]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        pytest.skip(str(failures[0]))
    made = setup.find()
    assert sorted(lines[-1].split(":")[0] for lines in progress) == ["already set up", "set up"]
    assert [path.name for path in cache.iterdir()] == [made.folder.name]

    manifest = json.loads((made.folder / "manifest.json").read_text())
    assert len(manifest["packages"]) == len(setup.PACKAGES)
    assert sorted(manifest["wheels"].values()) == sorted(setup.WHEELS.values())

    def refuse(command: list[str], **options: object) -> str:
        raise AssertionError(f"{command} was run")

    qemu = setup.qemu_version()
    monkeypatch.setattr(setup, "qemu_version", lambda: qemu)
    monkeypatch.setattr(process, "run", refuse)
    lines: list[str] = []
    assert setup.setup(lines.append) == made.folder
    assert lines == [f"already set up: {made.folder}"]
    shutil.rmtree(made.folder)
    assert not setup.is_ready()
