"""The order of interleaved rounds, their ratios, and models that die in them."""

import dataclasses
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from android_bench import measure, model_file, results
from android_bench.measurement import (
    Counted,
    Facts,
    Machine,
    Options,
    Round,
    Target,
    TargetError,
)
from android_bench.targets.host import HostSession, HostTarget
from shufflelite.progress import Progress

PROGRESS = Progress("android_bench")


def run(
    target: Target,
    models: Sequence[model_file.ModelFile],
    plan: measure.Plan,
    progress: Progress = PROGRESS,
) -> measure.InterleavedRun:
    return measure.run(target, models, plan=plan, progress=progress, title="scripted")


@dataclass
class ScriptedTarget:
    """Each model takes the milliseconds of its file's name; `dies` lists (model, call) to fail."""

    dies: tuple[tuple[str, int], ...] = ()
    calls: list[str] = field(default_factory=list)
    open: set[str] = field(default_factory=set)

    def machine(self) -> Machine:
        return Machine(cpu="scripted", governor=None, load_average=None)

    def load(self, path: Path, *, warmup: int, seed: int) -> "ScriptedSession":
        self.open.add(path.stem)
        return ScriptedSession(self, path.stem)

    def close(self) -> None:
        pass


@dataclass
class ScriptedSession:
    target: ScriptedTarget
    name: str

    def measure(self, *, runs: int) -> Round:
        self.target.calls.append(self.name)
        if (self.name, self.target.calls.count(self.name)) in self.target.dies:
            raise TargetError("died")
        return Round(*4 * (float(self.name),), runs)

    def finish(self) -> Facts:
        return Facts(1.0, 1.0, None, None, "xnnpack", 1, {}, "1.0")

    def close(self) -> None:
        self.target.open.remove(self.name)


def models(*names: str) -> list[model_file.ModelFile]:
    return [model_file.ModelFile(name, Path(f"{name}.tflite"), 8, "", {}) for name in names]


@pytest.mark.parametrize(("delegate", "noted"), [("gpu", True), ("xnnpack", False), (None, False)])
def test_a_row_of_grouped_convolutions_on_a_gpu_has_a_note(
    delegate: str | None, noted: bool, tmp_path: Path
) -> None:
    plain, grouped = models("1", "2")
    grouped = dataclasses.replace(grouped, grouped_convolutions=16)
    plan = measure.Plan(rounds=2, runs=1)
    rows = results.record(
        run(ScriptedTarget(), [plain, grouped], plan),
        plan=plan,
        target="adb",
        options=Options(delegate=delegate),
        command="",
        out=tmp_path / "rows.jsonl",
    )
    assert [len(row.notes) for row in rows] == [0, noted]
    if noted:
        (note,) = rows[1].notes
        assert note.startswith("2 has 16 grouped convolutions, on which LiteRT's GPU accelerator")


def test_each_model_has_each_place_in_the_order_once() -> None:
    rounds = np.array([measure.order(5, round_=round_) for round_ in range(5)])
    for places in (*rounds, *rounds.T):
        assert sorted(places) == [0, 1, 2, 3, 4]


def test_models_take_turns_within_each_round() -> None:
    target = ScriptedTarget()
    plan = measure.Plan(rounds=3, runs=2)
    done = run(target, models("1", "2", "3"), plan)
    assert target.calls == ["1", "2", "3", "2", "3", "1", "3", "1", "2"]
    assert [len(one.rounds) for one in done.measured] == [3] * 3
    assert not target.open


def test_a_model_that_dies_is_left_out_and_the_others_go_on() -> None:
    target = ScriptedTarget(dies=(("1", 2),))
    done = run(target, models("1", "2"), measure.Plan(rounds=4))
    assert done.failures == {"1": "died"}
    assert [one.model.name for one in done.measured] == ["2"]
    assert target.calls == ["1", "2", "2", "1", "2", "2"]
    assert not target.open


def test_a_model_too_short_for_the_clock_is_left_out_and_the_others_go_on() -> None:
    done = run(ScriptedTarget(), models("0", "2"), measure.Plan(rounds=2))
    assert done.failures == {
        "0": "an inference took 0 us by the clock there: it is too short to be measured alone"
    }
    assert [one.model.name for one in done.measured] == ["2"]


def test_a_target_that_is_gone_is_why_no_model_was_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gone(target: ScriptedTarget) -> Machine:
        raise TargetError("gone")

    monkeypatch.setattr(ScriptedTarget, "machine", gone)
    done = run(ScriptedTarget(), models("1", "2"), measure.Plan())
    assert done.failures == {"1": "gone", "2": "gone"}
    assert not done.measured


def test_a_time_budget_ends_after_whole_rounds() -> None:
    target = ScriptedTarget()
    plan = measure.Plan(rounds=1000, runs=1, max_seconds=0)
    done = run(target, models("1", "2"), plan)
    assert [len(one.rounds) for one in done.measured] == [1, 1]


def timed(*medians: float) -> list[Round]:
    return [Round(m, 0.9 * m, 1.2 * m, 0.8 * m, 10) for m in medians]


def test_latency_is_the_median_of_the_rounds_and_their_least() -> None:
    latency = measure.latency(timed(2, 10, 3))
    assert dataclasses.astuple(latency) == pytest.approx((3, 2.7, 3.6, 1.6))


def test_ratio_pairs_the_rounds() -> None:
    # The machine is tenfold slower in two rounds of five, which must not show.
    base = timed(110, 1100, 110, 1100, 110)
    own = timed(165, 2200, 220, 2200, 330)
    ratio = measure.ratio(own, base)
    assert dataclasses.astuple(ratio) == pytest.approx((2, 1.6, 2.8))  # p5 at index 0.2, p95 at 3.8


def test_instructions_are_averaged_by_class_and_compared_in_all() -> None:
    rounds = [Counted({"dot": 100, "load": 50}), Counted({"dot": 102, "load": 50})]
    assert measure.instructions(rounds) == {"dot": 101, "load": 50}
    assert measure.ratio(rounds, [Counted({"dot": 300})] * 2).ratio == pytest.approx(151 / 300)


def test_a_killed_worker_names_its_signal_and_spares_the_others(
    toys: Mapping[str, Path],
) -> None:
    sessions: list[HostSession] = []

    class Remembering(HostTarget):
        def load(self, path: Path, *, warmup: int, seed: int) -> HostSession:
            sessions.append(super().load(path, warmup=warmup, seed=seed))
            return sessions[-1]

    class KillingInRound1(Progress):
        def track(self, steps: range, title: str) -> Iterable[int]:
            for step in steps:
                if title == "scripted: measuring rounds" and step == 1:
                    os.kill(sessions[0].process.pid, signal.SIGSEGV)
                yield step

    target = Remembering(runtime="litert", threads=1)
    files = model_file.read_all([str(toys["float"]), str(toys["int8"])])
    done = run(target, files, measure.Plan(rounds=3, runs=2), KillingInRound1("android_bench"))
    assert done.failures == {"float": "its worker process was killed by SIGSEGV"}
    assert [one.model.name for one in done.measured] == ["int8"]
    assert [round_.runs for round_ in done.measured[0].rounds] == [2, 2, 2]
    assert all(session.process.poll() is not None for session in sessions)
