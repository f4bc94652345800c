"""The benchmark tool's app on an in-test phone."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from android_bench.measurement import Options, TargetError
from android_bench.targets import adb
from android_bench.targets.tool_session import ToolSession
from shufflelite.errors import InputError
from tests.android_bench import fake_tool
from tests.android_bench.adb_device import Device
from tests.android_bench.phone import app, kill_once_there_is
from tests.android_bench.rounds import is_sound


def test_the_app_is_installed_measured_and_removed(
    device: Device, tool: Path, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    (device.root / "logcat").write_text(
        "07-14 13:14:00.000 99 99 I tflite  : Inference timings in us: Init: 1, First inference: 1,"
        " Warmup (avg): 1, Inference (avg): 1\n"
    )
    with app(device, tool, profile=True) as target:
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
    with app(device, tool) as target:
        assert isinstance(target.load(toys["int8"], warmup=0, seed=0), ToolSession)
    assert (device.root / "app").exists()


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [("crash", "the app crashed: Fatal signal 6"), ("fails", "Failed to allocate tensors")],
)
def test_an_app_that_fails_is_one_line(
    behaviour: str, message: str, device: Device, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    broken = fake_tool.write(tmp_path / "broken", behaviour=behaviour)
    with (
        pytest.raises(TargetError, match=message),
        app(device, broken) as target,
    ):
        target.load(toys["int8"], warmup=0, seed=0)
    assert not (device.root / "app").exists()


def test_an_app_that_android_kills_or_rejects_is_one_line(
    device: Device, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    slow = fake_tool.write(tmp_path / "slow", behaviour="hang")
    kill_once_there_is(device, "app.pid")
    with (
        pytest.raises(TargetError, match="its process is gone; memory may be short"),
        app(device, slow) as target,
    ):
        target.load(toys["int8"], warmup=0, seed=0)
    (device.root / "reject").write_text("Failure [INSTALL_FAILED_NO_MATCHING_ABIS: x]\n")
    with (
        pytest.raises(TargetError, match=r"expected Android to install slow\.apk, got Failure"),
        app(device, slow) as target,
    ):
        target.load(toys["int8"], warmup=0, seed=0)


def test_an_app_has_no_cores_to_choose(device: Device, tool: Path, tmp_path: Path) -> None:
    options = Options(benchmark_binary=str(tool), cores="big")
    with pytest.raises(InputError, match="Android places an app's threads"):
        adb.open_target(device.serial, options=options, apk=True)
