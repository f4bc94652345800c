"""The real adb client and server against an in-test phone."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from importlib import util
from pathlib import Path

import pytest

from android_bench.emulated import cores, process, setup
from android_bench.targets import Options, Round, TargetError, adb, shell
from android_bench.targets.shell import ShellTarget, ToolSession
from keras_models.errors import InputError
from tests.android_bench import adb_device, benchmark_tool
from tests.android_bench.adb_device import CPU, Device

ADBS = {  # both real: the one that adbutils brings, and the system's
    "adbutils": str(Path(util.find_spec("adbutils").origin).parent / "binaries/adb"),
    "system": shutil.which("adb"),
}
ROOT = Path(__file__).parents[2]
HOSTILE = "a 'b' $(touch owned) \"c\"; #\\ é\n.tflite"


@pytest.fixture(
    scope="session", params=["adbutils", pytest.param("system", marks=pytest.mark.slow)]
)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The environment of an adb server of our own; the user's is not touched."""
    program = ADBS[request.param]
    if program is None or not Path(program).exists():
        pytest.skip(f"no adb: {request.param}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        "HOME": str(tmp_path_factory.mktemp("home")),
        "ANDROID_ADB_SERVER_PORT": str(port),
        "ADBUTILS_ADB_PATH": program,
    }
    whole = {**os.environ, **environment}
    subprocess.run([program, "start-server"], env=whole, check=True, timeout=60)
    yield environment
    subprocess.run([program, "kill-server"], env=whole, check=True, timeout=60)


@pytest.fixture(autouse=True)
def _fast(server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    monkeypatch.setattr(shell, "RETURN_S", 15.0)
    monkeypatch.setattr(shell, "COOL_DOWN_S", 0.1)
    monkeypatch.setattr(adb, "POLL_S", 0.1)


def client(*words: str) -> str:
    """Runs the real client."""
    command = [os.environ["ADBUTILS_ADB_PATH"], *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def connect(device: Device) -> Device:
    client("connect", device.serial)
    return device


@pytest.fixture
def new_device(tmp_path: Path) -> Iterator[Callable[[], Device]]:
    """Switches on phones, which leave nothing behind."""
    devices: list[Device] = []

    def start() -> Device:
        devices.append(Device(tmp_path / f"phone{len(devices)}"))
        return connect(devices[-1])

    yield start
    for device in devices:
        device.authorized = True
        with contextlib.suppress(subprocess.CalledProcessError):
            client("disconnect", device.serial)
        device.close()


@pytest.fixture
def device(new_device: Callable[[], Device]) -> Device:
    return new_device()


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    return benchmark_tool.write(tmp_path / "benchmark_model")


@contextlib.contextmanager
def opened(device: Device, tool: Path | None, **options: object) -> Iterator[ShellTarget]:
    """The target; afterwards nothing of it may be left on the device."""
    asked = Options(benchmark_binary=str(tool) if tool else None, **options)  # type: ignore[arg-type]
    target = adb.open_target(device.serial, options=asked)
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


def measured(device: Device, tool: Path, model: Path, *, runs: int = 3, **options: object) -> Round:
    with opened(device, tool, **options) as target:
        session = target.load(model, warmup=1, seed=0)
        try:
            return session.measure(runs=runs)
        finally:
            session.close()


def refused(device: Device, tool: Path, model: Path, **options: object) -> str:
    """The one line that says why it could not be measured."""
    with pytest.raises((TargetError, InputError)) as caught:
        measured(device, tool, model, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def is_sound(round_: Round, *, runs: int) -> bool:
    ordered = 0 < round_.min_ms <= round_.p5_ms <= round_.median_ms <= round_.p95_ms
    return ordered and round_.runs == runs


def test_the_real_client_pushes_runs_and_pulls(device: Device, tmp_path: Path) -> None:
    data = os.urandom(1_000_000)
    (tmp_path / "out").write_bytes(data)
    client("-s", device.serial, "push", str(tmp_path / "out"), "/data/local/tmp/x")
    assert (device.tmp / "x").read_bytes() == data
    client("-s", device.serial, "pull", "/data/local/tmp/x", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == data
    command = [os.environ["ADBUTILS_ADB_PATH"], "-s", device.serial, "shell"]
    ran = subprocess.run([*command, "echo a; echo b >&2; exit 3"], capture_output=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (3, b"a\n", b"b\n")


def test_models_are_measured_on_the_fastest_core(
    device: Device, tool: Path, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    hostile = tmp_path / HOSTILE
    shutil.copy(toys["int8"], hostile)
    with opened(device, tool) as target:
        sessions = [target.load(path, warmup=2, seed=0) for path in (toys["float"], hostile)]
        for _ in range(2):
            assert all(is_sound(session.measure(runs=5), runs=5) for session in sessions)
        machine = target.machine()
        facts = sessions[1].finish()
        for session in sessions:
            session.close()
        assert len(list((device.tmp).glob("*/*"))) == 1  # the tool
    assert machine.cpu == "Google Pixel Test (Google Tensor T)"
    assert machine.governor == "sched_pixel"
    assert machine.load_average == 0.52
    assert machine.temperature_c == 41.0
    assert machine.fingerprint == adb_device.PROPERTIES["ro.build.fingerprint"]
    assert machine.cores == (7,)
    assert set((device.root / "masks").read_text().split()) == {"80"}
    assert facts.init_ms is not None
    assert facts.init_ms > 0
    assert facts.first_ms is not None
    assert facts.peak_memory_mb is not None
    assert facts.process_peak_mb is not None
    assert facts.process_peak_mb > facts.peak_memory_mb
    assert facts.runtime_version.startswith("benchmark_model (TFLite), SHA-256 ")
    assert facts.notes == ["41.0 C at the start, 41.0 C at most before and 41.0 C after a round"]
    assert device.pushed == ["benchmark_model", "1.tflite", "2.tflite"]


@pytest.mark.parametrize("form", ["old", "compiled"])
def test_older_and_other_tools_are_understood(
    form: str, device: Device, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    other = benchmark_tool.write(tmp_path / "tool", form=form)
    with opened(device, other) as target:
        session = target.load(toys["int8"], warmup=0, seed=0)
        assert is_sound(session.measure(runs=2), runs=2)
        facts = session.finish()
    assert ("one start of the tool for each inference" in facts.notes) == (form == "old")
    assert ("CompiledModel" in facts.runtime_version) == (form == "compiled")


def test_the_profile_has_the_time_of_each_operator(
    device: Device, tool: Path, toys: Mapping[str, Path]
) -> None:
    with opened(device, tool, profile=True, delegate="none") as target:
        session = target.load(toys["float"], warmup=0, seed=0)
        session.measure(runs=1)
        facts = session.finish()
    assert [row.ms for row in facts.profile] == pytest.approx(
        [(i + 1) / 1000 for i in range(len(facts.profile))]  # as the tool for tests prints
    )
    assert facts.undelegated_operators["CONV_2D"] == 2
    assert facts.delegate_partitions == 0


def test_an_old_phone_without_exit_codes_is_measured(
    new_device: Callable[[], Device], tool: Path, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    device = new_device()
    client("disconnect", device.serial)
    device.features = "cmd"
    connect(device)
    assert is_sound(measured(device, tool, toys["int8"]), runs=3)
    crashing = benchmark_tool.write(tmp_path / "crashing", behaviour="crash")
    assert "died of SIGABRT" in refused(device, crashing, toys["int8"])


@pytest.mark.slow
def test_a_slow_phone_is_waited_for(device: Device, tool: Path, toys: Mapping[str, Path]) -> None:
    device.delay_s = 0.3
    assert is_sound(measured(device, tool, toys["int8"]), runs=3)


def once(device: Device, what: str) -> None:
    """Breaks the connection at the first command that holds `what`."""
    done = []

    def drops(command: str) -> bool:
        if what in command and not done:
            done.append(command)
            return True
        return False

    device.drops = drops


@pytest.mark.parametrize("what", ["--num_runs=3", "push 1.tflite", "mkdir", "rm -rf", "thermal"])
def test_a_broken_connection_that_comes_back_costs_nothing(
    what: str, device: Device, tool: Path, toys: Mapping[str, Path]
) -> None:
    device.away_s = 1.0
    once(device, what)
    assert is_sound(measured(device, tool, toys["int8"]), runs=3)
    assert any(what in command for command in device.commands) or what.startswith("push")


def test_what_a_restart_removes_is_pushed_again(
    device: Device, tool: Path, toys: Mapping[str, Path]
) -> None:
    with opened(device, tool) as target:
        session = target.load(toys["int8"], warmup=0, seed=0)
        shutil.rmtree(next(device.tmp.iterdir()))
        once(device, "--num_runs=3")
        assert is_sound(session.measure(runs=3), runs=3)


@pytest.mark.slow
def test_a_phone_that_stays_away_is_one_line(
    device: Device, tool: Path, toys: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "RETURN_S", 1.0)
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


def test_a_phone_that_does_not_trust_us_is_told_what_to_do(
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


def test_no_device_and_several_are_told_apart(new_device: Callable[[], Device], tool: Path) -> None:
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


def test_two_devices_run_side_by_side(
    new_device: Callable[[], Device], tool: Path, toys: Mapping[str, Path]
) -> None:
    devices = [new_device(), new_device()]
    rounds: list[Round] = []
    threads = [
        threading.Thread(target=lambda one=one: rounds.append(measured(one, tool, toys["int8"])))
        for one in devices
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert [is_sound(round_, runs=3) for round_ in rounds] == [True, True]


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
        pytest.param("hang", "expected an answer within 3 s, got none", marks=pytest.mark.slow),
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
    monkeypatch.setattr(shell, "RUN_S", 3.0)
    program = benchmark_tool.write(tmp_path / "tool", behaviour=behaviour)
    assert message in refused(device, program, toys["int8"])


def test_a_run_that_is_killed_is_no_result(
    device: Device, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    slow = benchmark_tool.write(tmp_path / "slow", behaviour="slow")
    with opened(device, slow) as target:
        session = target.load(toys["int8"], warmup=0, seed=0)
        device.drops = lambda command: bool(
            "--num_runs=100" in command and threading.Timer(1.0, device.kill_programs).start()
        )
        with pytest.raises(TargetError, match="killed by SIGKILL; memory may be short"):
            session.measure(runs=100)


@pytest.mark.parametrize("delegate", ["gpu", "nnapi", "xnnpack"])
def test_a_delegate_that_declines_is_never_a_number(
    delegate: str, device: Device, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    declining = benchmark_tool.write(tmp_path / "declining", behaviour="declines")
    message = refused(device, declining, toys["int8"], delegate=delegate)
    assert f"the delegate {delegate} took no node of the model" in message


def test_a_delegate_that_takes_all_is_one_partition(
    device: Device, tool: Path, toys: Mapping[str, Path]
) -> None:
    with opened(device, tool, delegate="xnnpack") as target:
        session = target.load(toys["int8"], warmup=0, seed=0)
        assert session.finish().delegate_partitions == 1


@pytest.mark.parametrize(
    ("cores", "mask"), [("little", "f"), ("4-6", "70"), ("0,7", "81"), ("big", "80")]
)
def test_cores_are_chosen(
    cores: str, mask: str, device: Device, tool: Path, toys: Mapping[str, Path]
) -> None:
    measured(device, tool, toys["int8"], cores=cores)
    assert set((device.root / "masks").read_text().split()) == {mask}


def test_cores_that_are_not_there_are_refused(device: Device, tool: Path) -> None:
    with pytest.raises(InputError, match=r"--cores=8: expected big, little or numbers of 0-7"):
        adb.open_target(device.serial, options=Options(benchmark_binary=str(tool), cores="8"))


def test_heat_and_throttling_are_noted(
    device: Device, tool: Path, toys: Mapping[str, Path]
) -> None:
    with opened(device, tool) as target:
        session = target.load(toys["int8"], warmup=0, seed=0)
        session.measure(runs=1)
        device.write("/sys/class/thermal/thermal_zone1/temp", "55500")
        device.write(f"{CPU}/cpu7/cpufreq/scaling_max_freq", "2000000")
        session.measure(runs=1)
        notes = session.finish().notes
    assert notes == [
        "throttled: cores 7 held to 2.00 of 2.91 GHz",
        "41.0 C at the start, 55.5 C at most before and 55.5 C after a round",
        "warm: 1 of 2 rounds began up to 14.5 C above the start, after waiting in vain",
    ]


def test_programs_run_under_an_emulator_of_the_phone(
    device: Device, tool: Path, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    emulator = tmp_path / "emulator"
    emulator.write_text(f'#!/bin/sh\necho "$1 $2" >> "{tmp_path}/log"; shift; exec "$@"\n')
    emulator.chmod(0o755)
    device.prefix = [str(emulator), "core a76"]
    assert is_sound(measured(device, tool, toys["int8"]), runs=3)
    assert "core a76" in (tmp_path / "log").read_text()


@pytest.mark.slow
def test_the_runtime_for_arm_runs_the_pushed_model(
    device: Device,
    tool: Path,
    toys: Mapping[str, Path],
    arm_system: setup.System,
    tmp_path: Path,
) -> None:
    system, core = arm_system.folder, cores.find("a76")
    cores.make_root(core, system=system / process.ROOT, into=tmp_path / "root")
    python = system / process.ROOT / "usr/bin/python3.11"
    assert python.read_bytes()[18:20] == b"\xb7\0"  # ELF's number of AArch64
    emulator = tmp_path / "emulator"
    emulator.write_text(
        f'#!/bin/sh\necho "$@" >> "{tmp_path}/log"\n'
        f'export PYTHONPATH="{system / process.SITE}" PYTHONDONTWRITEBYTECODE=1\n'
        f'exec {process.QEMU} -cpu {core.qemu_cpu} -L "{tmp_path}/root" "{python}" -S "$@"\n'
    )
    emulator.chmod(0o755)
    device.prefix = [str(emulator)]
    assert is_sound(measured(device, tool, toys["int8"]), runs=3)
    assert "--graph=" in (tmp_path / "log").read_text()


INTERRUPTED = """
import sys
from pathlib import Path
from android_bench.targets import Options, adb
from keras_models import cli

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
    slow = benchmark_tool.write(tmp_path / "slow", behaviour="slow")
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
        _, said = bench.communicate(timeout=60)
        pressed[0].join()
    assert said == "bench: interrupted; no file was left half-written\n"
    assert bench.returncode == 130
    assert_clean(device)


def apk(path: Path, tool: Path) -> Path:
    """An app that holds the tool."""
    with zipfile.ZipFile(path, "w") as file:
        file.write(tool, "main.py")
    return path


@contextlib.contextmanager
def app(device: Device, tool: Path | None, **options: object) -> Iterator[ShellTarget]:
    asked = Options(benchmark_binary=str(tool) if tool else None, **options)  # type: ignore[arg-type]
    target = adb.open_target(device.serial, options=asked, apk=True)
    try:
        yield target
    finally:
        target.close()
        assert_clean(device)


def test_the_app_is_installed_measured_and_removed(
    device: Device, tool: Path, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    (device.root / "logcat").write_text(
        "07-14 13:14:00.000 99 99 I tflite  : Inference timings in us: Init: 1, First inference: 1,"
        " Warmup (avg): 1, Inference (avg): 1\n"
    )
    with app(device, apk(tmp_path / "tool.apk", tool), profile=True) as target:
        session = target.load(toys["int8"], warmup=1, seed=0)
        assert is_sound(session.measure(runs=4), runs=4)
        facts = session.finish()
    assert not (device.root / "app").exists()
    assert "measured in an app, on cores that Android chooses" in facts.notes
    assert len(facts.profile) >= 5
    assert not (device.root / "masks").exists()


def test_an_app_that_was_there_before_stays(
    device: Device, tool: Path, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    (device.root / "app").mkdir()
    shutil.copy(tool, device.root / "app/main.py")
    with app(device, apk(tmp_path / "tool.apk", tool)) as target:
        assert isinstance(target.load(toys["int8"], warmup=0, seed=0), ToolSession)
    assert (device.root / "app").exists()


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [("crash", "the app crashed: Fatal signal 6"), ("fails", "Failed to allocate tensors")],
)
def test_an_app_that_fails_is_one_line(
    behaviour: str, message: str, device: Device, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    broken = benchmark_tool.write(tmp_path / "broken", behaviour=behaviour)
    with (
        pytest.raises(TargetError, match=message),
        app(device, apk(tmp_path / "broken.apk", broken)) as target,
    ):
        target.load(toys["int8"], warmup=0, seed=0)
    assert not (device.root / "app").exists()


def test_an_app_that_android_kills_or_rejects_is_one_line(
    device: Device, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    slow = apk(tmp_path / "a.apk", benchmark_tool.write(tmp_path / "slow", behaviour="hang"))
    device.drops = lambda command: bool(
        "am start" in command and threading.Timer(1.0, device.kill_programs).start()
    )
    with (
        pytest.raises(TargetError, match="its process is gone; memory may be short"),
        app(device, slow) as target,
    ):
        target.load(toys["int8"], warmup=0, seed=0)
    (device.root / "reject").write_text("Failure [INSTALL_FAILED_NO_MATCHING_ABIS: x]\n")
    with (
        pytest.raises(TargetError, match=r"expected Android to install a\.apk, got Failure"),
        app(device, slow) as target,
    ):
        target.load(toys["int8"], warmup=0, seed=0)


def test_an_app_has_no_cores_to_choose(device: Device, tool: Path, tmp_path: Path) -> None:
    options = Options(benchmark_binary=str(apk(tmp_path / "tool.apk", tool)), cores="big")
    with pytest.raises(InputError, match="Android places an app's threads"):
        adb.open_target(device.serial, options=options, apk=True)


def test_the_whole_run_is_free_of_output(
    device: Device, tool: Path, toys: Mapping[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    measured(device, tool, toys["int8"])
    assert capfd.readouterr() == ("", "")
