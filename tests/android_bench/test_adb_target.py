"""The real adb client and server against an in-test phone."""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from android_bench.measurement import Options
from android_bench.targets import adb
from shufflelite.errors import InputError
from tests.android_bench import adb_device, fake_tool
from tests.android_bench.adb_device import CPU, Device
from tests.android_bench.phone import client, connect, measured, opened, refused
from tests.android_bench.rounds import is_sound

HOSTILE = "a 'b' $(touch owned) \"c\"; #\\ é\n.tflite"


def test_the_real_client_pushes_runs_and_pulls(device: Device, tmp_path: Path) -> None:
    data = os.urandom(1_000_000)
    (tmp_path / "out").write_bytes(data)
    client("-s", device.serial, "push", str(tmp_path / "out"), "/data/local/tmp/x")
    assert (device.tmp / "x").read_bytes() == data
    client("-s", device.serial, "pull", "/data/local/tmp/x", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == data
    command = [os.environ["ADBUTILS_ADB_PATH"], "-s", device.serial, "shell"]
    ran = subprocess.run(
        [*command, "echo a; echo b >&2; exit 3"], capture_output=True, timeout=1200
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (3, b"a\n", b"b\n")


def test_models_are_measured_on_the_fastest_core(
    device: Device, tool: Path, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    hostile = tmp_path / HOSTILE
    shutil.copy(toys["int8"], hostile)
    with opened(device, tool) as target:
        sessions = [target.load(path, warmup=2, seed=0) for path in (toys["float"], hostile)]
        for _ in range(2):
            assert all(is_sound(session.measure(runs=4), runs=4) for session in sessions)
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
    assert facts.runtime_version.startswith("benchmark_model (TFLite), SHA-256 ")
    assert facts.notes == [
        "xnnpack ran 7 parts of the model, the CPU the rest",
        "41.0 C at the start, 41.0 C at most before and 41.0 C after a round",
    ]
    assert device.pushed == ["benchmark_model", "1.tflite", "2.tflite"]


def test_a_seed_is_noted_to_have_no_effect(
    device: Device, tool: Path, toys: Mapping[str, Path]
) -> None:
    with opened(device, tool) as target:
        notes = [target.load(toys["int8"], warmup=0, seed=seed).finish().notes for seed in (0, 7)]
    note = "the seed has no effect: the tool there fills the inputs by itself"
    assert [note in one for one in notes] == [False, True]


def test_an_old_phone_without_exit_codes_is_measured(
    new_device: Callable[[], Device], tool: Path, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    device = new_device()
    client("disconnect", device.serial)
    device.features = "cmd"
    connect(device)
    assert is_sound(measured(device, tool, toys["int8"]), runs=4)
    crashing = fake_tool.write(tmp_path / "crashing", behaviour="crash")
    assert "died of SIGABRT" in refused(device, crashing, toys["int8"])


@pytest.mark.slow
def test_a_slow_phone_is_waited_for(device: Device, tool: Path, toys: Mapping[str, Path]) -> None:
    device.delay_s = 0.3
    assert is_sound(measured(device, tool, toys["int8"]), runs=4)


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
        "xnnpack ran 7 parts of the model, the CPU the rest",
        "41.0 C at the start, 55.5 C at most before and 55.5 C after a round",
        "warm: 1 of 2 rounds began up to 14.5 C above the start, in spite of waiting",
    ]


def test_programs_run_under_an_emulator_of_the_phone(
    device: Device, tool: Path, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    emulator = tmp_path / "emulator"
    emulator.write_text(f'#!/bin/sh\necho "$1 $2" >> "{tmp_path}/log"; shift; exec "$@"\n')
    emulator.chmod(0o755)
    device.prefix = [str(emulator), "core a76"]
    assert is_sound(measured(device, tool, toys["int8"]), runs=4)
    assert "core a76" in (tmp_path / "log").read_text()


def test_the_whole_run_is_free_of_output(
    device: Device, tool: Path, toys: Mapping[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    measured(device, tool, toys["int8"])
    assert capfd.readouterr() == ("", "")
