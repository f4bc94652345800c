"""Phones whose tool prints what a real one of each generation prints."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest

from android_bench.measurement import Round, TargetError
from tests.android_bench import fake_tool
from tests.android_bench.adb_device import Device
from tests.android_bench.generations import EXPECTED, FAST, REFUSED, Ran, measure
from tests.android_bench.phone import app, opened


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    folder = tmp_path_factory.mktemp("tools")
    return {
        generation: fake_tool.write(folder / f"tool_{number}", generation=generation)
        for number, generation in enumerate(fake_tool.UNKNOWN)
    }


@pytest.mark.parametrize(("generation", "delegate"), EXPECTED)
def test_a_phone_s_tool_is_read_right(
    generation: str,
    delegate: str | None,
    device: Device,
    tools: Mapping[str, Path],
    toys: Mapping[str, Path],
) -> None:
    expected = EXPECTED[generation, delegate]
    if isinstance(expected, Ran):
        with opened(device, tools[generation], delegate=delegate) as target:
            assert measure(target, toys["int8"], runs=expected.runs) == expected
        return
    with (
        pytest.raises(REFUSED) as caught,
        opened(device, tools[generation], delegate=delegate) as t,
    ):
        t.load(toys["int8"], warmup=1, seed=0)
    assert expected in str(caught.value)
    if "has no delegate" in expected:
        assert device.pushed == []


@pytest.mark.parametrize(
    ("generation", "delegate"),
    [pytest.param(*one, marks=[] if one in FAST else pytest.mark.slow) for one in EXPECTED],
)
def test_an_app_is_read_right(
    generation: str,
    delegate: str | None,
    device: Device,
    tools: Mapping[str, Path],
    toys: Mapping[str, Path],
) -> None:
    expected = EXPECTED[generation, delegate]
    if isinstance(expected, Ran):
        with app(device, tools[generation], delegate=delegate) as target:
            ran = measure(target, toys["int8"], runs=expected.runs)
        # An app's files cannot be read, and its log has no list of the operators.
        unknown = None if expected.undelegated else expected.undelegated
        assert ran == dataclasses.replace(expected, undelegated=unknown)
        return
    with pytest.raises(REFUSED) as caught, app(device, tools[generation], delegate=delegate) as one:
        one.load(toys["int8"], warmup=1, seed=0)
    assert expected.replace("SIGABRT", "Fatal signal 6") in str(caught.value)


@pytest.mark.parametrize("delegate", [None, "xnnpack"])
def test_what_xnnpack_cannot_be_forced_on_runs_by_default(
    delegate: str | None, device: Device, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    tool = fake_tool.write(tmp_path / "tool", behaviour="dynamic")
    if delegate is not None:
        with (
            pytest.raises(TargetError, match="Failed to apply XNNPACK delegate"),
            opened(device, tool, delegate=delegate) as target,
        ):
            target.load(toys["int8"], warmup=0, seed=0)
        return
    with opened(device, tool) as target:
        session = target.load(toys["int8"], warmup=0, seed=0)
        assert session.measure(runs=4) == Round(135.807, 116.308, 151.152, 116.308, 4)
        facts = session.finish()
    # As the runtime info of that run tells: its default takes no int8 operator.
    assert (facts.delegate, facts.delegate_partitions) == ("none", 0)
    assert facts.undelegated_operators is not None
    assert sum(facts.undelegated_operators.values()) == 128
    assert any(
        "XNNPACK cannot be applied by its flag, so the tool's default ran: failed to create" in n
        for n in facts.notes
    )


def test_xnnpack_that_takes_nothing_is_no_delegate(
    device: Device, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    tool = fake_tool.write(tmp_path / "tool", behaviour="declines")
    with opened(device, tool) as target:
        facts = target.load(toys["int8"], warmup=0, seed=0).finish()
    assert (facts.delegate, facts.delegate_partitions) == ("none", 0)


@pytest.mark.parametrize("delegate", ["none", "xnnpack"])
@pytest.mark.parametrize("generation", ["head", "2.20", "old", "compiled"])
def test_the_profile_of_each_generation_is_read(
    generation: str,
    delegate: str,
    device: Device,
    tools: Mapping[str, Path],
    toys: Mapping[str, Path],
) -> None:
    if (generation, delegate) == ("compiled", "none"):
        return
    with opened(device, tools[generation], delegate=delegate, profile=True) as target:
        facts = target.load(toys["int8"], warmup=0, seed=0).finish()
    rows = {
        ("head", "none"): 128,
        ("head", "xnnpack"): 81,
        ("compiled", "xnnpack"): 142,
    }.get((generation, delegate), 141)
    assert len(facts.profile) == rows
    assert {row.delegated for row in facts.profile if row.type != "RELU"} <= {True, False}
    assert facts.delegate == delegate
    if delegate == "none":
        assert facts.undelegated_operators is not None
        assert sum(facts.undelegated_operators.values()) == rows


def test_an_app_s_profile_that_comes_late_is_waited_for(
    device: Device, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    late = fake_tool.write(tmp_path / "tool", behaviour="late")
    with app(device, late, profile=True) as target:
        facts = target.load(toys["int8"], warmup=0, seed=0).finish()
    assert len(facts.profile) == 81
    assert facts.undelegated_operators == {"RELU": 3, "AVERAGE_POOL_2D": 3}


def test_a_line_break_in_a_tensor_s_name_is_kept(
    device: Device, toys: Mapping[str, Path], tmp_path: Path
) -> None:
    tool = fake_tool.write(tmp_path / "tool", behaviour="line break")
    with app(device, tool, profile=True, delegate="none") as target:
        facts = target.load(toys["int8"], warmup=0, seed=0).finish()
    assert [row.name for row in facts.profile if "\n" in row.name] != []
    assert all(row.delegated is False for row in facts.profile)
