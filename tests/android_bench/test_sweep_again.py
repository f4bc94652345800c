"""Which earlier rows a sweep reuses, and which networks it measures again."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from android_bench import measure, model_file, results, sweep, tables
from android_bench.measurement import Machine, Options
from android_bench.model_file import ModelFile
from android_bench.targets.host import HostTarget
from shufflelite import config
from shufflelite.errors import InputError
from shufflelite.progress import Progress
from tests.android_bench.rows import row
from tests.android_bench.sweeps import Bench, Scripted, grid, names

ROOT = Path(__file__).parents[2]


def test_a_second_run_converts_and_measures_nothing(bench: Bench) -> None:
    settings = grid(2.0, 1.0, 4.0, batch=2)
    first = bench.run(settings, Scripted())
    before = bench.out.read_bytes()
    again = Scripted()
    second = bench.run(settings, again)
    assert bench.converted == 3
    assert len(again.loaded) == 1  # to ask for the runtime's version
    assert bench.out.read_bytes() == before
    assert names(second.rows) == names(first.rows)
    assert [row.ratio for row in second.rows] == [row.ratio for row in first.rows]


@pytest.mark.parametrize(
    "change",
    [
        {"target": Scripted(version="1.1")},
        {"target": Scripted(cpu="another")},
        {"name": "ssh:pi@board"},
        {"delegate": "none"},
        {"rounds": 3},
        {"runs": 4},
        {"warmup": 1},
        {"seed": 1},
        {"threads": 2},
        {"runtime": "tflite-runtime"},
        {"profile": True},
    ],
)
def test_rows_of_anything_else_are_not_taken_for_what_is_asked(
    bench: Bench, change: dict[str, Any]
) -> None:
    bench.run(grid(2.0, 1.0), Scripted())
    target, name = change.pop("target", Scripted()), change.pop("name", "host")
    of_options = change.keys() & {"delegate", "threads", "runtime", "profile"}
    options = Options(**{key: change.pop(key) for key in of_options})
    bench.run(grid(2.0, 1.0, **change), target, names=name, options=options)
    assert target.loaded[-2:] == ["mobilenet_v1_x2.0_32", "mobilenet_v1_x1.0_32"]
    assert len(results.read(bench.out)) == 4


def test_rows_that_do_not_tell_what_xnnpack_took_are_not_taken(bench: Bench) -> None:
    bench.run(grid(2.0, 1.0), Scripted())
    rows = results.read(bench.out)
    bench.out.unlink()
    changes: dict[str, Any] = {"delegate_partitions": None, "undelegated_operators": None}
    results.append(bench.out, [dataclasses.replace(row, **changes) for row in rows])
    target = Scripted()
    bench.run(grid(2.0, 1.0), target)
    assert len(target.loaded) == 2
    assert len(results.read(bench.out)) == 4


def test_each_delegate_finds_its_own_rows_again(bench: Bench) -> None:
    def run(delegate: str) -> Scripted:
        target = Scripted()
        bench.run(grid(2.0, 1.0), target, names="adb", options=Options(delegate=delegate))
        return target

    assert [len(run(name).loaded) for name in ("xnnpack", "gpu")] == [2, 2]
    # One more loading: of the smallest model, to ask the runtime's version.
    assert [len(run(name).loaded) for name in ("xnnpack", "gpu", "none")] == [1, 1, 2]
    assert [row.delegate_asked for row in results.read(bench.out)] == [
        *("xnnpack", "xnnpack", "gpu", "gpu", "none", "none")
    ]


def test_a_delegate_that_takes_nothing_is_not_what_ran_and_its_rows_are_found_again(
    bench: Bench,
) -> None:
    loaded = []
    for _ in range(2):
        target = Scripted(partitions=0)
        done = bench.run(grid(2.0, 1.0), target)
        assert {(row.delegate, row.delegate_asked) for row in done.rows} == {("none", "xnnpack")}
        loaded.append(len(target.loaded))
    assert loaded == [2, 1]  # one to ask for the runtime's version
    assert ", delegate none, 1 thread" in tables.sweep_table(done.rows, [])


def test_rows_to_another_reference_are_not_taken(bench: Bench) -> None:
    bench.run(grid(2.0, 1.0), Scripted())
    done = bench.run(grid(1.0, 2.0), Scripted())
    assert [(row.model, row.ratio) for row in done.rows] == [
        ("mobilenet_v1_x1.0_32", 1.0),
        ("mobilenet_v1_x2.0_32", 2.0),
    ]


def test_rows_to_an_older_file_of_the_reference_are_not_taken() -> None:
    files = [ModelFile(name, Path(), 1, f"sha256 of {name}", {}) for name in ("base", "net")]
    machine = Machine("Some CPU", governor=None, load_average=None, instruction_set="avx2")

    def taken(*before: results.Row) -> list[str]:
        reused = sweep.reusable(
            before,
            files,
            target="host",
            machine=machine,
            plan=measure.Plan(),
            options=Options(),
        )
        return names(reused)

    assert taken(row("base"), row("net")) == ["base", "net"]
    assert taken(row("base", sha256="old"), row("net")) == []
    assert taken(row("base"), row("net"), row("base", sha256="old"), row("net")) == ["base", "net"]
    assert taken(row("net")) == []
    assert taken(row("base"), row("net", rounds=7)) == ["base"]
    other = {"instruction_set": "avx512-vnni"}
    assert taken(row("base", **other), row("net", **other)) == []
    assert taken(row("base", instruction_set="avx2"), row("net")) == ["base", "net"]


def test_an_interrupted_sweep_goes_on_where_it_stopped(bench: Bench) -> None:
    settings = grid(2.0, 1.0, 4.0, 6.0, batch=2)
    with pytest.raises(KeyboardInterrupt):
        bench.run(settings, Scripted(interrupts="mobilenet_v1_x4.0_32"))
    assert names(results.read(bench.out)) == ["mobilenet_v1_x2.0_32", "mobilenet_v1_x1.0_32"]
    target = Scripted()
    done = bench.run(settings, target)
    batches = target.loaded[1:]  # behind the question for the runtime's version
    assert batches == [f"mobilenet_v1_x{w}_32" for w in (2.0, 4.0, 2.0, 6.0)]
    assert [row.ratio for row in done.rows] == [1.0, 0.5, 2.0, 3.0]
    assert bench.converted == 4


def test_a_file_that_holds_other_things_than_rows_is_refused_before_any_work(
    bench: Bench,
) -> None:
    bench.out.write_text('{"schema": 1}\n')
    with pytest.raises(InputError, match=r"^--out: .*rows\.jsonl:1: expected"):
        bench.run(grid(2.0), Scripted())
    assert bench.converted == 0


@pytest.mark.slow
def test_real_networks_are_swept_on_this_host_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    settings = config.build(
        {
            "grid": [
                {"model": "mobilenet_v1", "resolution": 32, "options": {"width": 0.25}},
                {"model": "shufflenet_v2", "resolution": 32, "options": {"width": [0.5, 0.3]}},
            ],
            "measure": {"rounds": 2, "runs": 2, "warmup": 0},
            "claim": [
                {
                    "text": "more multiply-adds",
                    "place": "here",
                    "quantity": "multiply_adds",
                    "numerator": {
                        "model": "mobilenet_v1",
                        "resolution": 32,
                        "options": {"width": 0.25},
                    },
                    "denominator": {
                        "model": "shufflenet_v2",
                        "resolution": 32,
                        "options": {"width": 0.5},
                    },
                }
            ],
        },
        sweep.SweepSettings,
    )

    def run() -> sweep.SweepResult:
        return sweep.run(
            settings,
            targets={"host": HostTarget(runtime="litert", threads=1)},
            options=Options(),
            command="",
            cache=tmp_path / "cache",
            out=tmp_path / "rows.jsonl",
            progress=Progress("android_bench"),
        )

    first = run()
    assert [row.delegate_partitions for row in first.rows] == [1, 1]
    (reason,) = first.failures.values()
    assert "Expected a width multiplier of 0.5, 1.0, 1.5, 2.0, got 0.3" in reason
    networks = [row.network for row in first.rows]
    assert [n and (n.name, n.resolution, n.params) for n in networks] == [
        ("mobilenet_v1", 32, 470_072),
        ("shufflenet_v2", 32, 1_366_792),
    ]
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    second = run()
    assert list(second.rows) == [results.read(tmp_path / "rows.jsonl")[i] for i in range(2)]
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == stamps
    models = model_file.read_all([row.path for row in second.rows])
    assert [model.sha256 for model in models] == [row.sha256 for row in second.rows]
    table = tables.claims_table(settings.claim, second.rows, second.models, [])
    assert "| more multiply-adds | here | no figure |" in table
