"""The emulated cores: exact counts, and every tensor the same bits as on this machine."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from android_bench.emulated import cores, process, setup
from android_bench.host_worker import random_input
from android_bench.measurement import TargetError
from android_bench.op_profiler import profile
from android_bench.targets.emulated import EmulatedTarget
from tests.android_bench.arm_bits import expose, verify
from tflite_file.model import read_operators

NETWORKS = {
    "mobilenet_v1_x0.25": ("mobilenet_v1", "0.25"),
    "mobilenet_v1_x0.5": ("mobilenet_v1", "0.5"),
    "shufflenet_v2_x0.5": ("shufflenet_v2", "0.5"),
}
# Millions of instructions of one inference, int8, 224; measured with LiteRT 2.3.0 and XNNPACK on
# other files of the same networks, before there was this package.
REFERENCE = {
    "mobilenet_v1_x0.25": {"a53": 21.4, "a55": 11.7, "a76": 10.3, "i8mm": 10.2},
    "mobilenet_v1_x0.5": {"a53": 62.8, "a55": 28.0, "a76": 22.3, "i8mm": 19.5},
}
MULTIPLIES = {  # the instruction, and the multiply-adds that it does
    "a53": ("widening_multiply", 8),
    "a55": ("dot", 16),
    "a76": ("dot", 16),
    "i8mm": ("mmla", 32),
}


@pytest.fixture(scope="module", autouse=True)
def system(arm_system: setup.System) -> setup.System:
    return arm_system


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert not list(folder.iterdir())


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Files as `convert` makes them, with randomized weights."""
    out = tmp_path_factory.mktemp("networks")
    for model, width in NETWORKS.values():
        command = [sys.executable, "-m", "convert", "--model", model, "--width", width]
        command += ["--int8", "--out", str(out)]
        subprocess.run(command, check=True, capture_output=True, timeout=1200)
    return {name: out / f"{name}_224_int8" / "model.tflite" for name in NETWORKS}


def count(core: str, path: Path, *, runs: int = 1, seed: int = 0) -> Mapping[str, int]:
    with contextlib.closing(EmulatedTarget(core).load(path, warmup=1, seed=seed)) as session:
        return session.measure(runs=runs).instructions


def inputs(path: Path, number: int) -> list[np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    (source,) = Interpreter(str(path)).get_input_details()
    rng = np.random.default_rng(0)
    return [random_input(source["shape"], source["dtype"], rng) for _ in range(number)]


@pytest.mark.parametrize("core", cores.CORES)
def test_each_core_counts_its_own_multiplications_the_same_in_every_process(
    toys: Mapping[str, Path], core: str
) -> None:
    first = count(core, toys["int8"])
    again = count(core, toys["int8"], runs=20, seed=1)
    assert sum(abs(again[name] - first[name]) for name in first) <= 100  # 10 ppm of 10 million
    own, at_once = MULTIPLIES[core]
    assert first[own] * at_once >= 16 * 16 * (3 * 3 * 3 * 8 + 8 * 16)  # of the two convolutions
    for name in {"dot", "mmla"} - {own}:
        assert first[name] == 0


def test_facts_have_the_runtime_and_delegation_but_no_time(toys: Mapping[str, Path]) -> None:
    with contextlib.closing(EmulatedTarget("a76").load(toys["int8"], warmup=0, seed=0)) as session:
        session.measure(runs=1)
        facts = session.finish()
    assert facts.runtime_version == "2.3.0"
    assert (facts.delegate_partitions, facts.undelegated_operators) == (1, {})
    assert (facts.init_ms, facts.first_ms, facts.process_peak_mb) == (None, None, None)


def test_a_profile_counts_each_operator_exactly_and_sums_to_the_whole(
    toys: Mapping[str, Path],
) -> None:
    target = EmulatedTarget("a53", profile=True)
    with contextlib.closing(target.load(toys["int8"], warmup=1, seed=0)) as session:
        whole = sum(session.measure(runs=1).instructions.values())
        facts = session.finish()
    by_type = [(one.type, one.instructions) for one in facts.profile]
    again = profile(toys["int8"].read_bytes(), EmulatedTarget("a53"))  # in another guest
    assert [one.type for one in again] == [type_ for type_, _ in by_type]
    for one, (_, count) in zip(again, by_type, strict=True):
        assert abs(one.cost - count) <= 100
    # The law of pairs and the whole know of each other nothing; a start makes thousands.
    start = whole - sum(count for _, count in by_type)
    assert 1000 < start < 5000
    at_once = MULTIPLIES["a53"][1]
    first_convolution = by_type[0][1]
    assert first_convolution >= 16 * 16 * 3 * 3 * 3 * 8 / at_once
    assert first_convolution == max(count for _, count in by_type)
    assert all(one.delegated for one in facts.profile)


def test_the_machine_is_the_core_and_all_that_the_counts_depend_on(system: setup.System) -> None:
    machine = EmulatedTarget("a53").machine()
    assert machine.cpu == f"Cortex-A53, emulated by QEMU {system.qemu_version}"
    assert machine.fingerprint == f"emulated:a53 {system.digest}"
    assert machine.governor is None


def test_a_path_may_hold_anything(toys: Mapping[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "a, 'b' $(c) \"d\" é%n.tflite"
    path.write_bytes(toys["int8"].read_bytes())
    assert sum(count("a76", path).values()) > 0


def test_a_model_the_runtime_refuses_is_explained(unrunnable: Path) -> None:
    with pytest.raises(TargetError, match="unresolved custom op: Mystery") as caught:
        EmulatedTarget("a53").load(unrunnable, warmup=0, seed=0)
    assert "\n" not in str(caught.value)


def test_a_guest_that_is_killed_names_the_signal(toys: Mapping[str, Path]) -> None:
    with contextlib.closing(EmulatedTarget("a53").load(toys["int8"], warmup=0, seed=0)) as session:
        assert session.guest.process is not None
        os.kill(session.guest.process.pid, signal.SIGSEGV)
        for _ in range(2):
            with pytest.raises(TargetError, match="process was killed by SIGSEGV"):
                session.measure(runs=1)


def test_a_guest_that_takes_too_long_is_given_up(
    system: setup.System, toys: Mapping[str, Path]
) -> None:
    with contextlib.closing(process.Guest(cores.CORES["a53"], system.folder)) as guest:
        guest.ask("load", path=str(toys["int8"]), warmup=0, seed=0)
        with pytest.raises(TargetError, match="gave no answer in 0 s"):
            guest.ask("measure", timeout_s=0.1, runs=1_000_000)


def test_an_interrupted_start_leaves_no_process(
    system: setup.System, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[process.Guest] = []

    def interrupt(guest: process.Guest, verb: str, **arguments: object) -> None:
        started.append(guest)
        raise KeyboardInterrupt

    monkeypatch.setattr(process.Guest, "ask", interrupt)
    with pytest.raises(KeyboardInterrupt):
        process.Guest(cores.CORES["a53"], system.folder)
    assert started[0].process is not None
    assert started[0].process.returncode == -signal.SIGKILL


def test_qemu_says_why_it_cannot_start(system: setup.System) -> None:
    unknown = dataclasses.replace(cores.CORES["a53"], qemu_cpu="cortex-a0")
    with pytest.raises(TargetError, match=r"exited with 1; last output: .*CPU model 'cortex-a0'"):
        process.Guest(unknown, system.folder)


def test_a_guest_of_another_program_finds_its_packages(
    system: setup.System, tmp_path: Path
) -> None:
    """As the runtimes of `benchmarks/peers.py`."""
    (tmp_path / "runtime_of_others.py").write_text("version = '1.2'\n")
    (tmp_path / "guest_of_others.py").write_text(
        "import os, sys, platform, runtime_of_others\n"
        "from android_bench.host_worker import answer\n"
        "def start():\n"
        "    os.getpriority(os.PRIO_PROCESS, 0)\n"
        "    os.getpriority(os.PRIO_PGRP, 0)\n"
        "    return [runtime_of_others.version, platform.machine()]\n"
        "answer(sys.stdin, {'start': start}, into=os.fdopen(int(sys.argv[1]), 'w'))\n"
    )
    guest = process.Guest(
        cores.CORES["a53"], system.folder, module="guest_of_others", packages=tmp_path
    )
    with contextlib.closing(guest):
        assert guest.start == ["1.2", "aarch64"]
        assert len(guest.counted) == 1


def test_the_guest_sees_its_core_and_nothing_of_the_host(system: setup.System) -> None:
    with contextlib.closing(process.Guest(cores.CORES["a55"], system.folder)) as guest:
        fields = dict(
            line.replace("\t", "").split(": ", 1)
            for line in guest.start["cpuinfo"].splitlines()
            if line
        )
    assert (fields["CPU implementer"], fields["CPU part"]) == ("0x41", "0xd05")  # Arm, Cortex-A55
    assert fields["CPU variant"] != "0x0"  # r0 has no sdot
    assert fields["processor"] == "3"


def test_an_exposed_copy_outputs_every_tensor_that_is_computed(toys: Mapping[str, Path]) -> None:
    from ai_edge_litert.interpreter import Interpreter

    data = toys["int8"].read_bytes()
    exposed = expose(data)
    changed = [i for i, (a, b) in enumerate(zip(data, exposed, strict=False)) if a != b]
    assert changed
    assert changed[-1] - changed[0] < 4  # the offset of the list of outputs

    plain = Interpreter(model_content=data)
    plain.allocate_tensors()
    operators = [op for op in plain._get_ops_details() if op["op_name"] != "DELEGATE"]
    computed = {int(index) for op in operators for index in op["outputs"]}
    copy = Interpreter(model_content=exposed)
    copy.allocate_tensors()
    outputs = [details["index"] for details in copy.get_output_details()]
    assert outputs[0] == plain.get_output_details()[0]["index"]
    assert sorted(outputs) == sorted(computed)


@pytest.mark.parametrize("core", ["a53", "i8mm"])
def test_a_toy_is_equal_bit_by_bit(toys: Mapping[str, Path], core: str) -> None:
    verification = verify(core, toys["int8"], inputs(toys["int8"], 3))
    assert not any(tensor.differences for tensor in (*verification.tensors, *verification.outputs))
    assert [tensor.elements for tensor in verification.tensors] == [
        3 * n for n in (10, 16 * 16 * 8, 16 * 16 * 8, 16 * 16 * 16, 16)
    ]
    assert all(tensor.by_xnnpack for tensor in verification.tensors)
    assert [tensor.elements for tensor in verification.outputs] == [3 * 10]


@pytest.mark.slow
def test_qemus_wrong_matrix_products_are_seen(
    networks: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # QEMU 7.2 computes smopa wrongly, which XNNPACK takes where SME is there.
    with_sme = dataclasses.replace(cores.CORES["i8mm"], qemu_cpu="max")
    monkeypatch.setattr(cores, "CORES", {**cores.CORES, "sme": with_sme})
    path = networks["mobilenet_v1_x0.25"]
    verification = verify("sme", path, inputs(path, 1))
    if not setup.find().qemu_version.startswith("7.2."):
        pytest.skip("only QEMU 7.2 is known to be wrong")
    compared = (*verification.tensors, *verification.outputs)
    wrong = sum(tensor.differences for tensor in compared)
    assert wrong > sum(tensor.elements for tensor in compared) / 2


@pytest.mark.slow
@pytest.mark.parametrize("core", ["a53", "a55", "a76", "i8mm"])
@pytest.mark.parametrize("name", REFERENCE)
def test_counts_are_those_measured_before(
    networks: Mapping[str, Path], name: str, core: str
) -> None:
    counted = sum(count(core, networks[name]).values())
    again = sum(count(core, networks[name]).values())
    assert abs(again - counted) <= 10e-6 * counted
    assert counted == pytest.approx(REFERENCE[name][core] * 1e6, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("core", ["a53", "a76"])
def test_a_networks_operators_sum_to_the_whole(networks: Mapping[str, Path], core: str) -> None:
    path = networks["shufflenet_v2_x0.5"]
    data = path.read_bytes()
    operators = profile(data, EmulatedTarget(core))
    assert [one.type for one in operators] == [one.type for one in read_operators(data)]
    whole = sum(count(core, path).values())
    assert sum(one.cost for one in operators) == pytest.approx(whole, rel=0.005)


@pytest.mark.slow
@pytest.mark.parametrize("core", ["a53", "a76", "i8mm"])
@pytest.mark.parametrize("name", ["mobilenet_v1_x0.25", "shufflenet_v2_x0.5"])
def test_every_tensor_of_a_network_is_equal_bit_by_bit(
    networks: Mapping[str, Path], name: str, core: str
) -> None:
    verification = verify(core, networks[name], inputs(networks[name], 2))
    assert [tensor for tensor in verification.tensors if tensor.differences] == []
    assert [tensor for tensor in verification.outputs if tensor.differences] == []
    assert all(tensor.by_xnnpack for tensor in verification.tensors)
    assert (
        min(tensor.distinct for tensor in verification.tensors) > 64
    )  # none is (almost) a constant
