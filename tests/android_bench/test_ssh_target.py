"""The real OpenSSH client against a real OpenSSH server on this host."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import pytest

from android_bench.measurement import Options, Round, TargetError
from android_bench.targets import remote_target, ssh
from android_bench.targets.remote_target import ShellTarget
from shufflelite.errors import InputError
from tests.android_bench import fake_tool, rounds
from tests.android_bench.generations import EXPECTED, FAST, Ran, measure
from tests.android_bench.rounds import is_sound
from tests.android_bench.ssh_server import Server, Wire

ROOT = Path(__file__).parents[2]
HOSTILE = "a 'b' $(touch owned) \"c\"; #\\ é\n.tflite"


def of_folder(folder: str) -> list[str]:
    """Command lines of the processes that hold a path of the folder."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if folder in line:
                lines.append(line)
    return lines


def assert_clean(folder: str) -> None:
    end = time.monotonic() + 5  # a killed process takes a moment
    while of_folder(folder) and time.monotonic() < end:
        time.sleep(0.05)
    assert of_folder(folder) == []
    assert not Path(folder).exists()


@contextlib.contextmanager
def opened(tool: Path | str, where: str = "board", **options: object) -> Iterator[ShellTarget]:
    all_options = Options(benchmark_binary=str(tool), **options)  # type: ignore[arg-type]
    target = ssh.open_target(where, options=all_options)
    folder = ""
    try:
        target.make_folder()
        folder = target.folder
        yield target
    finally:
        folder = target.folder or folder
        target.close()
        assert_clean(folder)


def measured(tool: Path | str, model: Path, *, runs: int = 4, **options: object) -> Round:
    with opened(tool, **options) as target:
        return rounds.measured(target, model, runs=runs)


def refused(tool: Path, model: Path, **options: object) -> str:
    """The one line that says why it could not be measured."""
    with pytest.raises((TargetError, InputError)) as caught:
        measured(tool, model, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_models_are_measured(
    wire: Wire, tool: Path, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    hostile = tmp_path / HOSTILE
    shutil.copy(toys["int8"], hostile)
    with opened(tool, profile=True, delegate="xnnpack") as target:
        sessions = [target.load(path, warmup=1, seed=0) for path in (toys["float"], hostile)]
        assert all(is_sound(session.measure(runs=4), runs=4) for session in sessions)
        facts = sessions[1].finish()
        machine = target.machine()
        for session in sessions:
            session.close()
        assert [path.name for path in Path(target.folder).iterdir()] == ["benchmark_model"]
    assert (facts.delegate, facts.delegate_partitions) == ("xnnpack", 7)
    assert len(facts.profile) == 81
    assert machine.fingerprint is not None
    assert os.uname().release in machine.fingerprint
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("generation", "delegate"),
    [
        pytest.param(*one, marks=[] if one in FAST else pytest.mark.slow)
        for one in EXPECTED
        if one[1] != "nnapi"
    ],
)
def test_a_board_s_tool_is_read_right(
    generation: str, delegate: str | None, wire: Wire, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    tool = fake_tool.write(tmp_path / "tool", generation=generation)
    expected = EXPECTED[generation, delegate]
    if isinstance(expected, Ran):
        with opened(tool, delegate=delegate) as target:
            assert measure(target, toys["int8"], runs=expected.runs) == expected
    else:
        assert expected in refused(tool, toys["int8"], delegate=delegate)


@pytest.mark.slow
def test_the_board_s_own_litert_benchmark_is_used(
    wire: Wire, toys: Mapping[str, Path], unrunnable: Path, server: Server
) -> None:
    program = Path(sys.executable).parent / "litert-benchmark"
    if not program.exists():
        pytest.skip("needs litert-benchmark of ai-edge-litert 2.3")
    with pytest.raises(InputError, match="has no litert-benchmark in its PATH; install it"):
        ssh.open_target("board", options=Options(benchmark_binary="litert-benchmark"))
    config = server.folder / "authorized_keys"
    plain = config.read_text()
    environment = f'environment="PATH={program.parent}:/usr/bin:/bin" '
    try:
        config.write_text(environment + plain)
        with (server.folder / "sshd_config").open("a") as file:
            file.write("PermitUserEnvironment yes\n")
        server.process.send_signal(signal.SIGHUP)
        for _ in range(600):  # until it has started anew
            if (server.folder / "log").read_text().count("Server listening") > 1:
                break
            time.sleep(0.1)
        with opened("litert-benchmark") as target:
            assert is_sound(rounds.measured(target, toys["heavy"], runs=4), runs=4)
            assert target.version == metadata.version("ai-edge-litert")
            with pytest.raises(TargetError, match=r"the tool failed: .*Error: .* \(exit code 1\)"):
                target.load(unrunnable, warmup=0, seed=0)
    finally:
        config.write_text(plain)


@pytest.mark.slow
def test_a_slow_wire_is_waited_for(wire: Wire, tool: Path, toys: Mapping[str, Path]) -> None:
    wire.delay_s = 0.03
    assert is_sound(measured(tool, toys["int8"]), runs=4)


def test_a_broken_connection_that_comes_back_costs_nothing(
    wire: Wire, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    slow = fake_tool.write(tmp_path / "slow", behaviour="slow")
    with opened(slow) as target:
        session = target.load(toys["int8"], warmup=0, seed=0)
        cut = threading.Timer(1.0, wire.cut, kwargs={"away_s": 1.0})
        cut.start()
        assert is_sound(session.measure(runs=20), runs=4)
        cut.join()
        assert len(of_folder(f"{target.folder}/1.tflite")) == 0  # the run that was cut off
        cut = threading.Timer(0.0, wire.cut, kwargs={"away_s": 1.0})
        cut.start()
        cut.join()  # closing comes upon a broken connection


def test_a_board_that_stays_away_is_one_line(
    wire: Wire, tool: Path, toys: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_target, "RETURN_S", 1.0)
    target = ssh.open_target("board", options=Options(benchmark_binary=str(tool)))
    session = target.load(toys["int8"], warmup=0, seed=0)
    folder = target.folder
    wire.cut(away_s=3600)
    with pytest.raises(TargetError, match="expected it back within 1 s; ssh:board: "):
        session.measure(runs=1)
    session.close()
    with pytest.raises(TargetError, match=f"{folder} stays on the device: remove it"):
        target.close()
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("stranger", "Permission denied .* ssh-copy-id"),
        ("changed", "its key has changed: find out why, then ssh-keygen -R changed"),
        ("unknown", r"Host key verification failed; connect once by hand \(ssh unknown\)"),
        ("absent", "Connection refused; start its SSH server"),
        ("no-such-host.invalid", "Could not resolve .* check the name"),
        ("-oProxyCommand=touch owned", r"expected ssh:\[USER@\]HOST\[:PORT\]"),
        ("me@-oProxyCommand=x", r"expected ssh:\[USER@\]HOST\[:PORT\]"),
        ("", r"expected ssh:\[USER@\]HOST\[:PORT\]"),
    ],
)
def test_a_board_that_does_not_let_us_in_is_one_line(
    where: str, message: str, wire: Wire, tool: Path
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        ssh.open_target(where, options=Options(benchmark_binary=str(tool)))
    assert "\n" not in str(caught.value)


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
    wire: Wire,
    toys: Mapping[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote_target, "RUN_S", 3.0)
    program = fake_tool.write(tmp_path / "tool", behaviour=behaviour)
    assert message in refused(program, toys["int8"])


def test_a_program_for_other_processors_is_refused(
    wire: Wire, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF\x01\x01\x01" + bytes(9) + b"\x02\x00\xf3\x00" + bytes(64))
    with pytest.raises(InputError, match="got one for riscv"):
        measured(program, toys["int8"])
    program.write_bytes(b"\x01\x02\x03\x04" * 64)
    assert "is it for this system and processor?" in refused(program, toys["int8"])


def test_a_full_disk_is_named(
    wire: Wire, tool: Path, toys: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with opened(tool) as target:
        push = target.shell.push
        with pytest.raises(TargetError, match=r"no space left for int8\.tflite .*; free some"):
            push(toys["int8"], "/dev/full")


INTERRUPTED = """
import sys
from pathlib import Path
from android_bench.measurement import Options
from android_bench.targets import ssh
from shufflelite import cli

def main(argv):
    target = ssh.open_target(argv[1], options=Options(benchmark_binary=argv[2]))
    try:
        session = target.load(Path(argv[3]), warmup=0, seed=0)
        print(target.folder, flush=True)
        session.measure(runs=100)
        session.close()
    finally:
        target.close()
    return 0

cli.run(main, name="bench")
"""


@pytest.mark.parametrize(
    "how", ["once", *(pytest.param(how, marks=pytest.mark.slow) for how in ("often", "killed"))]
)
def test_ctrl_c_leaves_nothing_behind(
    how: str, wire: Wire, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    slow = fake_tool.write(tmp_path / "slow", behaviour="slow")
    command = [sys.executable, "-c", INTERRUPTED, "board", str(slow), str(toys["int8"])]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as bench:
        assert bench.stdout is not None
        folder = bench.stdout.readline().strip()
        end = time.monotonic() + 30
        while not of_folder(f"{folder}/1.tflite"):  # it runs
            assert time.monotonic() < end
            time.sleep(0.05)
        for _ in range(30 if how == "often" else 1):
            bench.send_signal(signal.SIGKILL if how == "killed" else signal.SIGINT)
            time.sleep(0.05)
        _, stderr = bench.communicate(timeout=1200)
    if how == "killed":  # no program can clean up then; but its connection ends
        end = time.monotonic() + 10  # the tool runs longer
        while of_folder("ControlPath=/tmp/shufflelite-ssh-") and time.monotonic() < end:
            time.sleep(0.1)
        assert of_folder("ControlPath=/tmp/shufflelite-ssh-") == []
        left = [*Path("/tmp").glob("shufflelite-ssh-*"), *(tmp_path / "tmp").iterdir()]
        for path in (folder, *left):
            shutil.rmtree(path)
        return
    assert stderr == "bench: interrupted; no file was left half-written\n"
    assert bench.returncode == 130
    assert_clean(folder)
