"""Models on this machine: times, memory, delegation, and a worker that dies."""

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from android_bench import host_worker
from android_bench.measurement import Facts, TargetError
from android_bench.targets.host import HostSession, HostTarget
from tflite_file.model import count_delegation


@contextlib.contextmanager
def session(
    path: Path, *, runtime: str = "litert", threads: int = 1, delegate: str = "xnnpack"
) -> Iterator[HostSession]:
    target = HostTarget(runtime=runtime, threads=threads, delegate=delegate)
    with contextlib.closing(target.load(path, warmup=1, seed=0)) as loaded:
        yield loaded


def status(worker: HostSession, field: str) -> int:
    lines = Path(f"/proc/{worker.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def facts(path: Path, *, runtime: str = "litert", delegate: str = "xnnpack") -> Facts:
    with session(path, runtime=runtime, delegate=delegate) as worker:
        worker.measure(runs=2)
        return worker.finish()


def test_each_run_yields_its_own_time(toys: Mapping[str, Path]) -> None:
    with session(toys["float"]) as worker:
        times = worker.measure(runs=7)
    assert times.runs == 7
    assert 0 < times.min_ms <= times.p5_ms <= times.median_ms <= times.p95_ms


def test_the_worker_does_not_load_tensorflow(toys: Mapping[str, Path]) -> None:
    with session(toys["int8"]) as worker:
        maps = Path(f"/proc/{worker.process.pid}/maps").read_text()
    assert "ai_edge_litert/" in maps
    assert "/tensorflow/" not in maps


def test_threads_reach_the_runtime(toys: Mapping[str, Path]) -> None:
    with session(toys["float"], threads=1) as one, session(toys["float"], threads=3) as three:
        assert status(three, "Threads") >= status(one, "Threads") + 2


def test_peak_memory_counts_the_weights_of_this_model_alone(toys: Mapping[str, Path]) -> None:
    light, heavy = facts(toys["float"]), facts(toys["heavy"])
    assert light.peak_memory_mb is not None
    assert heavy.peak_memory_mb is not None
    assert heavy.process_peak_mb is not None
    assert heavy.peak_memory_mb - light.peak_memory_mb >= 16  # MiB of weights, packed or not
    assert light.peak_memory_mb < 16
    assert heavy.process_peak_mb > heavy.peak_memory_mb


def test_the_delegate_takes_a_float_network_whole(toys: Mapping[str, Path]) -> None:
    reported = facts(toys["float"])
    assert (reported.delegate_partitions, reported.undelegated_operators) == (1, {})


def test_without_its_delegate_the_runtime_computes_everything_itself(
    toys: Mapping[str, Path],
) -> None:
    reported = facts(toys["int8"], delegate="none")
    assert reported.delegate_partitions == 0
    assert sum(reported.undelegated_operators.values()) == 5


def test_a_profile_without_the_delegate_is_of_operators_without_it(
    toys: Mapping[str, Path],
) -> None:
    target = HostTarget(runtime="litert", threads=1, delegate="none")
    (isolated,) = target.isolated_costs([toys["int8"]])
    assert not isolated.delegated


@pytest.mark.parametrize(
    ("joined", "expected"),
    [
        (
            "XNNPack delegate failed to reshape runtimeNode number 29 (X) failed to prepare.",
            "XNNPack delegate failed to reshape runtime; Node number 29 (X) failed to prepare",
        ),
        (
            "failed to create XNNPACK runtimeNode number 2 (X) failed to prepare.failed to create"
            " XNNPACK runtimeNode number 2 (X) failed to prepare.",
            "failed to create XNNPACK runtime; Node number 2 (X) failed to prepare",
        ),
        (
            "num_scales must be 1, but got 16.Tensor 51 has invalid\n quantization parameters.",
            "num_scales must be 1, but got 16; Tensor 51 has invalid quantization parameters",
        ),
        ("kernels/conv.cc:343 3.5 != 4", "kernels/conv.cc:343 3.5 != 4"),
        ("", "MemoryError"),
    ],
)
def test_messages_that_the_runtime_joins_are_split_and_kept_once(
    joined: str, expected: str
) -> None:
    assert host_worker.reason(MemoryError(joined)) == expected


@pytest.mark.skipif(not importlib.util.find_spec("tflite_runtime"), reason="no tflite-runtime")
def test_the_old_runtime_delegates_nothing_of_an_int8_network(toys: Mapping[str, Path]) -> None:
    reported = facts(toys["int8"], runtime="tflite-runtime")
    assert reported.runtime_version == "2.14.0"
    assert reported.delegate_partitions == 0
    assert sum(reported.undelegated_operators.values()) == 5


def test_delegation_follows_each_delegate_back_to_its_inputs() -> None:
    #  0 -[CONV 0]- 1 -[RELU 1]- 2 -[CONV 2]- 3      delegates: {CONV 0} and {CONV 2, ADD 3};
    #                  \\_________________[ADD 3]- 4  RELU 1 is left outside between them.
    def node(index: int, name: str, inputs: list[int], outputs: list[int]) -> dict[str, object]:
        return {"index": index, "op_name": name, "inputs": inputs, "outputs": outputs}

    nodes = [
        node(0, "CONV_2D", [0, -1], [1]),
        node(1, "RELU", [1], [2]),
        node(2, "CONV_2D", [2, -1], [3]),
        node(3, "ADD", [3, 1], [4]),
        node(4, "DELEGATE", [0], [1]),
        node(5, "DELEGATE", [2, 1], [4]),
    ]
    assert count_delegation(nodes) == (2, {"RELU": 1})
    assert count_delegation(nodes[:4]) == (0, {"CONV_2D": 2, "RELU": 1, "ADD": 1})


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [(np.int8, -128, 127), (np.uint8, 0, 255), (np.float32, -1, 1), (np.int64, 0, 1)],
)
def test_random_inputs_reach_both_ends_of_their_range(dtype: type, low: int, high: int) -> None:
    values = host_worker.random_input((100, 100), dtype, np.random.default_rng(0))
    again = host_worker.random_input((100, 100), dtype, np.random.default_rng(0))
    assert values.dtype == dtype
    assert values.min() == pytest.approx(low, abs=1e-3)
    assert values.max() == pytest.approx(high, abs=1e-3)
    np.testing.assert_array_equal(values, again)


def test_an_operator_the_runtime_lacks_is_named(unrunnable: Path) -> None:
    with (
        pytest.raises(TargetError, match="unresolved custom op: Mystery") as caught,
        session(unrunnable),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_a_runtime_that_is_not_installed_is_named(
    toys: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tflite_runtime").mkdir()  # an empty package hides the real one, where there is one
    (tmp_path / "tflite_runtime" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with (
        pytest.raises(TargetError, match="runtime tflite-runtime cannot be imported here"),
        session(toys["float"], runtime="tflite-runtime"),
    ):
        pass
