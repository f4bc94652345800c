"""Rounds of a model on a device, and what holds for each of them."""

from pathlib import Path

from android_bench.measurement import Round
from android_bench.targets.remote_target import ShellTarget


def measured(target: ShellTarget, model: Path, *, runs: int) -> Round:
    session = target.load(model, warmup=1, seed=0)
    try:
        return session.measure(runs=runs)
    finally:
        session.close()


def is_sound(round_: Round, *, runs: int) -> bool:
    ordered = 0 < round_.min_ms <= round_.p5_ms <= round_.median_ms <= round_.p95_ms
    return ordered and round_.runs == runs
