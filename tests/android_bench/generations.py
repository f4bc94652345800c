"""Four generations of the benchmark tool on a device, with each delegate: what must come of it."""

from dataclasses import dataclass
from pathlib import Path

from android_bench.measurement import TargetError
from android_bench.targets.remote_target import ShellTarget
from shufflelite.errors import InputError

DELEGATES = (None, "xnnpack", "none", "gpu", "nnapi")
NO_GPU = "this version of the tool does not know --use_gpu=true"
NO_NNAPI = "this version of the tool does not know --use_nnapi=true --disable_nnapi_cpu=true"
ALL = 128  # operators of the file that the tool of the generation "head" ran


@dataclass(frozen=True)
class Ran:
    """Figures of a measurement, as in `expected.tsv`."""

    delegate: str
    partitions: int | None
    undelegated: int | None  # operators
    median_ms: float
    p5_ms: float
    p95_ms: float
    min_ms: float
    runs: int
    init_ms: float
    first_ms: float


_HEAD = Ran("xnnpack", 7, 6, 8.080, 7.643, 8.350, 7.643, 4, 6.304, 11.425)
_TF_2_20 = Ran("xnnpack", 1, 0, 0.632, 0.523, 10.881, 0.523, 7, 16.003, 0.874)
_OLD = Ran("xnnpack", 1, 0, 4.150, 4.150, 4.150, 4.150, 2, 700.5, 5.0)
_COMPILED = Ran("xnnpack", None, 0, 0.546, 0.447, 0.730, 0.447, 7, 5.175, 0.979)
EXPECTED: dict[tuple[str, str | None], Ran | str] = {
    ("head", None): _HEAD,
    ("head", "xnnpack"): _HEAD,
    ("head", "none"): Ran("none", 0, ALL, 191.160, 130.964, 195.325, 130.964, 4, 1.691, 154.201),
    ("head", "gpu"): NO_GPU,
    ("head", "nnapi"): NO_NNAPI,
    ("2.20", None): _TF_2_20,
    ("2.20", "xnnpack"): _TF_2_20,
    ("2.20", "none"): Ran("none", 0, None, 15.491, 2.156, 29.223, 2.156, 7, 6.343, 19.009),
    ("2.20", "gpu"): NO_GPU,
    ("2.20", "nnapi"): NO_NNAPI,
    ("old", None): _OLD,  # each inference is one start, so its average is what one start reports
    ("old", "xnnpack"): _OLD,
    ("old", "none"): Ran("none", 0, None, 16.1281, 16.1281, 16.1281, 16.1281, 2, 6.343, 19.009),
    ("old", "gpu"): Ran("gpu", 1, 0, 4.150, 4.150, 4.150, 4.150, 2, 700.5, 5.0),
    ("old", "nnapi"): NO_NNAPI,
    ("compiled", None): _COMPILED,
    ("compiled", "xnnpack"): _COMPILED,
    ("compiled", "none"): "benchmark_model (LiteRT CompiledModel) has no delegate 'none'. It has",
    ("compiled", "gpu"): "SIGABRT",
    ("compiled", "nnapi"): "benchmark_model (LiteRT CompiledModel) has no delegate 'nnapi'. It has",
}


def measure(target: ShellTarget, model: Path, *, runs: int) -> Ran:
    session = target.load(model, warmup=1, seed=0)
    round_ = session.measure(runs=runs)
    facts = session.finish()
    operators = facts.undelegated_operators
    session.close()
    assert facts.init_ms is not None
    assert facts.first_ms is not None
    return Ran(
        facts.delegate,
        facts.delegate_partitions,
        None if operators is None else sum(operators.values()),
        *(round_.median_ms, round_.p5_ms, round_.p95_ms, round_.min_ms, round_.runs),
        *(facts.init_ms, facts.first_ms),
    )


REFUSED = (TargetError, InputError)
FAST = (("head", None), ("old", "gpu"), ("compiled", None), ("2.20", "nnapi"))
