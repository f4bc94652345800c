import dataclasses
import errno
import hashlib
import itertools
import json
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from android_bench import builds, markdown, measure, model_file, network, results, sweep
from android_bench.builds import BuildError, Wanted
from android_bench.model_file import ModelFile
from android_bench.targets import Counted, Facts, Machine, Round, TargetError
from android_bench.targets.host import HostTarget
from keras_models import data, experiment, registry
from keras_models.checkpoints import atomic
from keras_models.errors import InputError
from keras_models.progress import Progress
from tests.android_bench.rows import network as a_network
from tests.android_bench.rows import row

ROOT = Path(__file__).parents[2]

# Stands in for our command: writes a bundle, logs that it was called, or does what WIDTH asks for.
CONVERT = """
import hashlib, json, os, pathlib, shutil, signal, sys, time
flags = [word.removeprefix("--").partition("=") for word in sys.argv[1:]]
options = dict(value.split("=") for name, _, value in flags if name == "option")
given = {name: value for name, _, value in flags}
with open(os.environ["LOG"], "a") as log:
    log.write(f"{os.getpid()} {given['model']} {options} {given['resolution']}\\n")
width = options.get("width")
if width == "0.1":
    sys.exit("convert: quantize: 1.0 s\\nconvert: Expected a wider network, got 0.1.")
if width == "0.2":
    print("convert: Unknown command line flag 'precison' (see --help)", file=sys.stderr)
    sys.exit(2)
if width == "0.3":
    os.kill(os.getpid(), signal.SIGKILL)
if width in ("0.4", "0.6"):
    pathlib.Path(given["out"], "half").mkdir()
    if width == "0.6":
        os.kill(os.getppid(), signal.SIGUSR1)
    time.sleep(600)
if width == "0.7":
    sys.exit(0)
name = f"{given['model']}_x{width}_{given['resolution']}"
bundle = pathlib.Path(given["out"], name)
bundle.mkdir()
shutil.copyfile(os.environ["TOY"], bundle / "model.tflite")
with open(bundle / "model.tflite", "ab") as file:
    file.write(name.encode())  # so that no two files are equal
report = {
    "settings": {"model": {"name": given["model"], "num_classes": 1000},
                 "quantization": {"precision": given["precision"]}},
    "options": {name: json.loads(value) for name, value in options.items()},
    "audit": {"input": {"shape": [1, int(given["resolution"]), 32, 3]}},
    "fidelity": {"top1": None}, "params": 10, "multiply_adds": 1000,
}
(bundle / "report.json").write_text(json.dumps(report))
"""


def quietly(steps: range, label: str) -> Iterable[int]:
    return steps


@dataclass
class Scripted:
    """A target where a model costs what the width in its folder's name says."""

    cpu: str = "scripted"
    version: str = "1.0"
    counts: bool = False
    partitions: int = 1
    dies: tuple[str, ...] = ()
    interrupts: str | None = None
    loaded: list[str] = field(default_factory=list)
    most_at_once: int = 0
    open: set[str] = field(default_factory=set)

    def machine(self) -> Machine:
        return Machine(cpu=self.cpu, governor=None, load_average=None)

    def load(self, path: Path, *, warmup: int, seed: int) -> "ScriptedSession":
        name = path.parent.name
        if name == self.interrupts:
            raise KeyboardInterrupt
        if name in self.dies:
            raise TargetError("died")
        self.loaded.append(name)
        self.open.add(name)
        self.most_at_once = max(self.most_at_once, len(self.open))
        return ScriptedSession(self, name)

    def close(self) -> None:
        pass


@dataclass
class ScriptedSession:
    target: Scripted
    name: str

    def measure(self, *, runs: int) -> Round | Counted:
        cost = float(self.name.split("_x")[1].split("_")[0])
        if self.target.counts:
            return Counted({"dot": int(cost * 100)})
        return Round(cost, cost, cost, cost, runs)

    def finish(self) -> Facts:
        return Facts(1.0, 1.0, None, None, self.target.partitions, {}, self.target.version)

    def close(self) -> None:
        self.target.open.remove(self.name)


@dataclass
class Bench:
    """A folder with the stand-in for `convert`, and a sweep's cache and rows."""

    folder: Path

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def out(self) -> Path:
        return self.folder / "rows.jsonl"

    @property
    def converted(self) -> int:
        log = Path(os.environ["LOG"])
        return len(log.read_text().splitlines()) if log.exists() else 0

    def run(self, asked: sweep.Sweep, *targets: Scripted, names: str = "host") -> sweep.Done:
        places = [
            sweep.Place(name, target) for name, target in zip(names.split(), targets, strict=True)
        ]
        return sweep.run(
            asked,
            places=places,
            cache=self.cache,
            out=self.out,
            runtime="litert",
            threads=1,
            profile=False,
            command="python -m android_bench --sweep",
            progress=Progress("android_bench"),
            track=quietly,
        )


@pytest.fixture
def bench(toys: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    folder = tmp_path / "work"
    (folder / "convert").mkdir(parents=True)
    (folder / "convert" / "__init__.py").touch()
    (folder / "convert" / "__main__.py").write_text(CONVERT)
    monkeypatch.chdir(folder)  # where `python -m convert` looks first
    monkeypatch.setenv("TOY", str(toys["int8"]))
    monkeypatch.setenv("LOG", str(folder / "log"))
    return Bench(folder)


def grid(*widths: float, model: str = "mobilenet_v1", **asked: Any) -> sweep.Sweep:
    measured = sweep.Measure(**{"rounds": 2, "runs": 3, "warmup": 0, **asked})
    return sweep.Sweep(grid=(sweep.Grid(model, 32, {"width": widths}),), measure=measured)


def names(found: Iterable[results.Row]) -> list[str]:
    return [row.model for row in found]


def test_a_grid_is_the_product_of_its_lists_in_the_order_given() -> None:
    asked = experiment.build(
        {
            "grid": [
                {
                    "model": "shufflenet_v1",
                    "resolution": [224, 192],
                    "options": {"width": [0.5, 1.0], "groups": [1, 3, 8], "shuffle": False},
                },
                {"model": "efficientnet_v2_b1"},
                {
                    "model": "shufflenet_v1",
                    "resolution": 224,
                    "options": {"groups": 3, "shuffle": False, "width": 0.5},
                },
            ]
        },
        sweep.Sweep,
    )
    expected = [
        Wanted("shufflenet_v1", side, (("groups", g), ("shuffle", False), ("width", width)))
        for side, width, g in itertools.product((224, 192), (0.5, 1.0), (1, 3, 8))
    ]
    # The third grid is in the first; and a paper's resolution is the default.
    assert sweep.networks(asked) == [*expected, Wanted("efficientnet_v2_b1", 240)]


def test_the_shipped_sweep_holds_the_networks_that_are_to_be_compared() -> None:
    found = sweep.networks(sweep.load(ROOT / "configs" / "shufflenet_vs_mobilenet.toml"))
    v1 = {
        (o["width"], o["groups"])
        for w in found
        if w.model == "shufflenet_v1"
        for o in [dict(w.options)]
    }
    assert v1 == set(itertools.product((0.5, 1.0), (1, 3, 8)))

    def published(model: str) -> set[tuple[float, int]]:
        return {(v.options["width"], v.resolution) for v in registry.find(model).published}

    def swept(model: str) -> set[tuple[float, int]]:
        return {(dict(w.options)["width"], w.resolution) for w in found if w.model == model}

    assert swept("mobilenet_v1") == published("mobilenet_v1")  # 4 widths, 4 resolutions
    assert swept("mobilenet_v2") == {v for v in published("mobilenet_v2") if v[1] == 224}
    assert swept("shufflenet_v2") == published("shufflenet_v2")
    assert swept("augshufflenet") == {(width, 224) for width in (0.5, 1.0, 1.5)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected [[grid]] or [[claim]] tables, got none."),
        ('[[grid]]\nmodel = "mobilnet_v1"\n', "Unknown model 'mobilnet_v1'. Did you mean"),
        ('[[grid]]\nname = "x"\n', "[grid 1]: unknown key 'name'."),
        ('[grid]\nmodel = "mobilenet_v1"\n', "expected 'grid' to be an array of tables: [[grid]]."),
        (
            '[[grid]]\nmodel = "mobilenet_v1"\n[convert]\nwidth = 1.0\n',
            "[convert]: 'width' belongs to a network: put it into [[grid]].",
        ),
        (
            '[[grid]]\nmodel = "mobilenet_v1"\n[convert]\nout = "x"\n',
            "[convert]: 'out' is set by the sweep itself: leave it out.",
        ),
        (
            '[[grid]]\nmodel = "mobilenet_v1"\n[measure]\nheat = 1\n',
            "[measure]: expected 'heat' >= 2, got 1.",
        ),
        *(
            (
                f'[[grid]]\nmodel = "mobilenet_v1"\n[measure]\nmax_seconds = {value}\n',
                f"[measure]: expected 'max_seconds' to be 0 or more seconds, got {value}.",
            )
            for value in ("nan", "inf", "-1")
        ),
        *(
            (
                f'[[grid]]\nmodel = "mobilenet_v1"\nresolution = [32, {value}]\n',
                f"mobilenet_v1: expected 'resolution' to be 1 to 4096, got {value}.",
            )
            for value in (0, -64, 100_000)
        ),
        (
            '[[claim]]\ntext = ""\nplace = ""\nquantity = "cost"\n'
            'numerator = { model = "alexnet", resolution = 0 }\n'
            'denominator = { model = "alexnet" }\n',
            "alexnet: expected 'resolution' to be 1 to 4096, got 0.",
        ),
        (
            '[[grid]]\nmodel = "mobilenet_v1"\nresolution = []\n',
            "[grid 1]: expected 'resolution' to be a value or a list of some, got [].",
        ),
        (
            '[[grid]]\nmodel = "mobilenet_v1"\noptions.width = []\n',
            "[grid 1]: expected 'width' to be a value or a list of some, got [].",
        ),
    ],
)
def test_a_mistake_in_a_file_is_told_before_anything_is_converted(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        sweep.load(path)
    assert str(caught.value).startswith(f"{path}")
    assert message in str(caught.value)


@pytest.mark.parametrize("count", [0, 1, 6, 7, 8, 14, 15, 34])
@pytest.mark.parametrize("size", [2, 3, 8])
def test_heats_begin_with_the_reference_and_hold_each_other_model_once(
    count: int, size: int
) -> None:
    reference, *others = (ModelFile(str(index), Path(), 0, "", {}) for index in range(count + 1))
    found = sweep.heats(reference, others, size=size)
    assert all(heat[0] is reference and len(heat) <= size for heat in found)
    assert [model for heat in found for model in heat[1:]] == others
    assert len(found) == max(1, -(-count // (size - 1)))


def test_each_network_is_converted_and_measured_once_and_ratios_are_to_the_first(
    bench: Bench,
) -> None:
    target = Scripted()
    done = bench.run(grid(2.0, 1.0, 4.0, 6.0, 8.0, heat=3), target)
    assert not done.failures
    assert [row.ratio for row in done.rows] == [1.0, 0.5, 2.0, 3.0, 4.0]
    assert {row.ratio_to for row in done.rows} == {"mobilenet_v1_x2.0_32"}
    assert list(done.models.values()) == names(done.rows)
    assert target.most_at_once == 3
    assert not target.open
    # Each heat is whole in the file, so that a row's reference is the one before it.
    assert [row.ratio for row in results.read(bench.out)] == [1.0, 0.5, 2.0, 1.0, 3.0, 4.0]
    assert done.rows[0].network == dataclasses.asdict(
        network.Network("mobilenet_v1", {"width": 2.0}, 32, 1000, "int8", 10, 1000, None, None)
    )


def test_a_second_run_converts_and_measures_nothing(bench: Bench) -> None:
    asked = grid(2.0, 1.0, 4.0, heat=2)
    first = bench.run(asked, Scripted())
    before = bench.out.read_bytes()
    again = Scripted()
    second = bench.run(asked, again)
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
    target = change.pop("target", Scripted())
    place = sweep.Place(change.pop("name", "host"), target, change.pop("delegate", "xnnpack"))
    plain = {"runtime": "litert", "threads": 1, "profile": False}
    asked = {key: change.pop(key) for key in plain.keys() & change.keys()}
    sweep.run(
        grid(2.0, 1.0, **change),
        places=[place],
        cache=bench.cache,
        out=bench.out,
        command="",
        progress=Progress("android_bench"),
        track=quietly,
        **{**plain, **asked},
    )
    assert target.loaded[-2:] == ["mobilenet_v1_x2.0_32", "mobilenet_v1_x1.0_32"]
    assert len(results.read(bench.out)) == 4


def test_each_delegate_finds_its_own_rows_again(bench: Bench) -> None:
    def run(delegate: str) -> Scripted:
        target = Scripted()
        sweep.run(
            grid(2.0, 1.0),
            places=[sweep.Place("adb", target, delegate)],
            cache=bench.cache,
            out=bench.out,
            runtime="litert",
            threads=1,
            profile=False,
            command="",
            progress=Progress("android_bench"),
            track=quietly,
        )
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
    assert ", delegate none, 1 thread" in markdown.sweep_table(done.rows, [])


def test_rows_to_another_reference_are_not_taken(bench: Bench) -> None:
    bench.run(grid(2.0, 1.0), Scripted())
    done = bench.run(grid(1.0, 2.0), Scripted())
    assert [(row.model, row.ratio) for row in done.rows] == [
        ("mobilenet_v1_x1.0_32", 1.0),
        ("mobilenet_v1_x2.0_32", 2.0),
    ]


def test_rows_to_an_older_file_of_the_reference_are_not_taken() -> None:
    files = [ModelFile(name, Path(), 1, f"sha256 of {name}", {}) for name in ("base", "net")]
    machine = Machine(cpu="Some CPU", governor=None, load_average=None)

    def taken(*before: results.Row) -> list[str]:
        found = sweep.reusable(
            before,
            files,
            machine=machine,
            plan=measure.Plan(),
            target="host",
            runtime="litert",
            threads=1,
            delegate="xnnpack",
            profile=False,
        )
        return names(found)

    assert taken(row("base"), row("net")) == ["base", "net"]
    assert taken(row("base", sha256="old"), row("net")) == []
    assert taken(row("base"), row("net"), row("base", sha256="old"), row("net")) == ["base", "net"]
    assert taken(row("net")) == []
    assert taken(row("base"), row("net", rounds=7)) == ["base"]


def test_an_interrupted_sweep_goes_on_where_it_stopped(bench: Bench) -> None:
    asked = grid(2.0, 1.0, 4.0, 6.0, heat=2)
    with pytest.raises(KeyboardInterrupt):
        bench.run(asked, Scripted(interrupts="mobilenet_v1_x4.0_32"))
    assert names(results.read(bench.out)) == ["mobilenet_v1_x2.0_32", "mobilenet_v1_x1.0_32"]
    target = Scripted()
    done = bench.run(asked, target)
    heats = target.loaded[1:]  # behind the question for the runtime's version
    assert heats == [f"mobilenet_v1_x{w}_32" for w in (2.0, 4.0, 2.0, 6.0)]
    assert [row.ratio for row in done.rows] == [1.0, 0.5, 2.0, 3.0]
    assert bench.converted == 4


def test_a_network_that_fails_costs_no_other(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    target = Scripted(dies=("mobilenet_v1_x4.0_32",))
    done = bench.run(grid(2.0, 0.1, 0.3, 0.7, 4.0, 6.0), target)
    assert names(done.rows) == ["mobilenet_v1_x2.0_32", "mobilenet_v1_x6.0_32"]
    assert done.failures.keys() == {
        *(f"mobilenet_v1 width={width} 32" for width in (0.1, 0.3, 0.7)),
        "mobilenet_v1_x4.0_32 on host",
    }
    told = capsys.readouterr().err.splitlines()
    warned = [line for line in told if "warning" in line]
    assert len(warned) == 4
    assert "mobilenet_v1 width=0.1 32: convert: Expected a wider network, got 0.1." in warned[0]
    assert "convert was killed by SIGKILL" in warned[1]
    assert "expected a whole bundle" in warned[2]
    assert warned[3].endswith("mobilenet_v1_x4.0_32 on host: died")
    assert [path for path in bench.cache.iterdir() if path.name.startswith(".")] == []


def test_a_reference_that_dies_leaves_no_ratio_to_another(bench: Bench) -> None:
    done = bench.run(grid(2.0, 1.0), Scripted(dies=("mobilenet_v1_x2.0_32",)))
    assert not done.rows
    assert not bench.out.exists()
    assert done.failures == {
        "mobilenet_v1_x2.0_32 on host": "died",
        "mobilenet_v1_x1.0_32 on host": "measured beside mobilenet_v1_x2.0_32, which failed",
    }


def test_the_first_conversion_is_told_when_it_begins(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.run(grid(2.0, 1.0), Scripted())
    first, *others = capsys.readouterr().err.splitlines()
    assert first == (
        "android_bench: converting mobilenet_v1 width=2.0 32, the first that"
        f" {bench.cache} does not hold"
    )
    assert len([line for line in others if "convert" in line]) == 2  # how long each took
    bench.run(grid(2.0, 1.0), Scripted())
    assert capsys.readouterr().err == ""


def test_pictures_that_need_too_much_memory_cost_no_other_network(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make = builds.made_pictures

    def too_large(side: int) -> bytes:
        if side == 64:
            raise MemoryError
        return make(side)

    monkeypatch.setattr(builds, "made_pictures", too_large)
    asked = sweep.Sweep(grid=(sweep.Grid("mobilenet_v1", (64, 32), {"width": 2.0}),))
    done = bench.run(asked, Scripted())
    assert names(done.rows) == ["mobilenet_v1_x2.0_32"]
    reason = "not enough memory to make its pictures"
    assert done.failures == {"mobilenet_v1 width=2.0 64": reason}
    assert f"warning: mobilenet_v1 width=2.0 64: {reason}" in capsys.readouterr().err


def test_a_disk_that_is_full_is_told_with_the_cache(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic, "write", full)  # of the pictures to calibrate on
    with pytest.raises(OSError, match="No space left") as caught:
        bench.run(grid(2.0), Scripted())
    assert caught.value.filename == str(bench.cache)
    assert list(bench.cache.iterdir()) == []


def test_all_names_are_told_before_the_first_model_is_measured(bench: Bench) -> None:
    target = Scripted()
    told = []

    def ready(names: Sequence[str]) -> None:
        told.extend(names)
        raise InputError("nothing to compare with")

    with pytest.raises(InputError, match="nothing to compare with"):
        sweep.run(
            grid(2.0, 0.1, 1.0),
            places=[sweep.Place("host", target)],
            cache=bench.cache,
            out=bench.out,
            runtime="litert",
            threads=1,
            profile=False,
            command="",
            progress=Progress("android_bench"),
            track=quietly,
            ready=ready,
        )
    assert told == ["mobilenet_v1_x2.0_32", "mobilenet_v1_x1.0_32"]
    assert not target.loaded


def test_a_wrong_flag_of_convert_ends_the_sweep(bench: Bench) -> None:
    with pytest.raises(InputError, match=r"^\[convert\]: Unknown command line flag 'precison'"):
        bench.run(grid(0.2, 1.0), Scripted())
    assert bench.converted == 1


def test_several_targets_follow_each_other_and_cores_are_counted(bench: Bench) -> None:
    host, core = Scripted(), Scripted(cpu="core", counts=True)
    done = bench.run(grid(2.0, 1.0), host, core, names="host emulated:a53")
    assert [(r.target, r.rounds, r.runs) for r in done.rows] == [
        *[("host", 2, 3)] * 2,
        *[("emulated:a53", 2, 1)] * 2,
    ]
    assert [r.instructions for r in done.rows[2:]] == [{"dot": 200}, {"dot": 100}]
    table = markdown.sweep_table(done.rows, sweep.notes(grid(1.0)))
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[:4]]
    told = [dict(zip(cells[0], line, strict=True)) for line in cells[2:]]
    assert [line["host ratio (p5-p95)"] for line in told] == ["1", "0.50 (0.50-0.50)"]
    assert [line["emulated:a53 ratio"] for line in told] == ["1.00", "0.50"]
    assert [line["width"] for line in told] == ["2", "1"]
    assert "emulated:a53 ms" not in told[0]
    assert "weights are random" in table


@dataclass
class ScriptedDevice(Scripted):
    """One on a machine of its own, which may be gone."""

    identity: str = ""
    gone: bool = False

    def machine(self) -> Machine:
        if self.gone:
            raise TargetError("gone")
        return super().machine()

    def stop(self) -> None:
        pass


def test_devices_yield_their_rows_and_one_that_is_gone_costs_no_other(bench: Bench) -> None:
    devices = [ScriptedDevice(cpu=name, identity=name, gone=name == "b") for name in "abc"]
    done = bench.run(grid(2.0, 1.0, 4.0, heat=2), *devices, names="adb:a adb:b ssh:c")
    assert [(one.target, one.ratio) for one in done.rows] == [
        (name, ratio) for name in ("adb:a", "ssh:c") for ratio in (1.0, 0.5, 2.0)
    ]
    assert done.failures == {f"mobilenet_v1_x{w}_32 on adb:b": "gone" for w in (2.0, 1.0, 4.0)}
    written = results.read(bench.out)
    assert sorted(one.target for one in written) == ["adb:a"] * 4 + ["ssh:c"] * 4
    assert None not in results.references(written)


def test_a_table_leaves_out_what_no_row_has_and_quotes_what_would_break_it() -> None:
    plain = row("base", network=None)
    shown = markdown.sweep_table([plain, row("a|b\nc", network=None, ratio=2.0)], [])
    lines = shown.splitlines()
    assert lines[0] == (
        "| model | size kB | operators | partitions | host ms | host ratio (p5-p95) |"
    )
    assert lines[3] == r"| a\|b c | 1235 | 4 | 1 | 4.00 | 2.00 (1.96-2.04) |"
    named = a_network("net", options={"width": 0.5, "squeeze_excite": True, "variant": "megvii"})
    assert markdown.label(row(network=named)) == "net squeeze_excite variant=megvii"


@pytest.fixture
def recipe() -> builds.Recipe:
    return builds.Recipe(
        flags={"precision": "int8"},
        inputs={"precision": "int8"},
        makes_pictures=False,
        versions={"tensorflow": "2.21.0", "python": "3.11.0"},
        sources="ab",
    )


def test_the_key_of_the_cache_changes_with_all_that_the_file_depends_on(
    recipe: builds.Recipe,
) -> None:
    wanted = Wanted("net", 224, (("width", 0.5),))
    variants = [
        (wanted, recipe),
        (dataclasses.replace(wanted, model="other"), recipe),
        (dataclasses.replace(wanted, resolution=192), recipe),
        (dataclasses.replace(wanted, options=(("width", 1.0),)), recipe),
        (wanted, dataclasses.replace(recipe, inputs={"precision": "float32"})),
        (wanted, dataclasses.replace(recipe, makes_pictures=True)),
        (wanted, dataclasses.replace(recipe, versions={**recipe.versions, "python": "3.12.0"})),
        (wanted, dataclasses.replace(recipe, sources="cd")),
    ]
    entries = [builds.entry(*variant, cache=Path("cache")) for variant in variants]
    assert len(set(entries)) == len(entries)
    assert builds.entry(wanted, recipe, cache=Path("cache")) == entries[0]


def test_files_count_by_their_contents_and_not_by_their_names(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "picture.png").write_bytes(b"pixels")

    def inputs(name: str) -> Any:
        return builds.recipe({"calibration": str(tmp_path / name)}).inputs["calibration"]

    assert inputs("a") == inputs("b")
    (tmp_path / "b" / "picture.png").write_bytes(b"others")
    assert inputs("a") != inputs("b")
    (tmp_path / "a" / "picture.png").rename(tmp_path / "a" / "renamed.png")
    assert inputs("a") != inputs("b")


def test_our_sources_count_and_what_python_compiles_them_to_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "some_package_of_ours"
    (package / "__pycache__").mkdir(parents=True)
    code = package / "code.py"
    code.write_text("x = 1")
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(builds, "PACKAGES", (package.name,))
    digests = [builds.recipe({}).sources]
    (package / "__pycache__" / "code.pyc").write_text("compiled")
    assert builds.recipe({}).sources == digests[0]
    code.write_text("x = 2")
    digests.append(builds.recipe({}).sources)
    code.rename(package / "renamed.py")
    digests.append(builds.recipe({}).sources)
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("flags", "made"),
    [
        ({}, True),
        ({"precision": "int16x8"}, True),
        ({"precision": "float32"}, False),
        ({"calibration": "pictures"}, False),
        ({"weights": "imagenet"}, False),
        ({"weights": "random"}, True),
    ],
)
def test_pictures_are_made_for_random_weights_alone(flags: dict[str, Any], made: bool) -> None:
    assert builds.recipe(flags).makes_pictures is made


def test_a_sweeps_weights_are_random_whatever_is_bundled() -> None:
    assert builds.recipe({}).flags["weights"] == "random"
    assert builds.recipe({"weights": "imagenet"}).flags["weights"] == "imagenet"


@pytest.mark.parametrize("side", [32, 97, 224])
def test_made_pictures_are_what_convert_reads_and_always_the_same(
    tmp_path: Path, side: int
) -> None:
    path = tmp_path / "pictures.npz"
    path.write_bytes(builds.made_pictures(side))
    pixels = data.read_npz(path, size=side).pixels
    assert pixels.shape == (builds.PICTURES, side, side, 3)
    builds.made_pictures.cache_clear()
    assert path.read_bytes() == builds.made_pictures(side)
    # As in pictures, neighbours are alike (noise: 1.13), and darks and lights are there.
    assert np.abs(np.diff(pixels.astype(float), axis=2)).mean() < 0.8 * pixels.std()
    assert pixels.min() < 64 < 192 < pixels.max()


def test_a_bundle_is_kept_with_what_it_was_made_of(bench: Bench, recipe: builds.Recipe) -> None:
    made_with = dataclasses.replace(recipe, makes_pictures=True)
    wanted = Wanted("net", 32, (("width", 2.0),))
    model = builds.build(wanted, made_with, cache=bench.cache)
    assert model == builds.entry(wanted, made_with, cache=bench.cache) / "net_x2.0_32/model.tflite"
    told = json.loads((model.parents[1] / "entry.json").read_text())
    assert (told["model"], told["resolution"], told["options"]) == ("net", 32, {"width": 2.0})
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert told["files"]["net_x2.0_32/model.tflite"] == digest
    (pictures,) = bench.cache.glob("pictures_32_*.npz")
    assert told["made_pictures"] == hashlib.sha256(pictures.read_bytes()).hexdigest()


@pytest.mark.parametrize("damage", ["flip", "truncate", "report", "remove", "entry"])
def test_a_damaged_entry_is_made_again(bench: Bench, damage: str) -> None:
    asked = grid(2.0)
    done = bench.run(asked, Scripted())
    whole = Path(done.rows[0].path).read_bytes()
    model = next(bench.cache.rglob("model.tflite"))
    if damage == "flip":
        model.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    elif damage == "truncate":
        model.write_bytes(whole[:-1])
    elif damage == "remove":
        model.unlink()
    elif damage == "report":
        (model.parent / "report.json").write_text("{}")
    else:
        (model.parents[1] / "entry.json").write_text("{")
    again = bench.run(asked, Scripted())
    assert not again.failures
    assert bench.converted == 2
    assert model.read_bytes() == whole


def test_what_a_killed_sweep_left_in_the_cache_is_removed(bench: Bench) -> None:
    dead = 2**22 + 1  # above the greatest id of a process
    left = bench.cache / f".abc.{dead}.partial"
    (left / "half").mkdir(parents=True)
    (bench.cache / f".pictures_32_ab.npz.{dead}.partial").touch()
    other = bench.cache / f".abc.{os.getppid()}.partial"  # another sweep, that still runs
    other.mkdir()
    bench.run(grid(2.0), Scripted())
    assert [path for path in bench.cache.iterdir() if path.name.startswith(".")] == [other]


def test_a_conversion_that_takes_too_long_is_ended(bench: Bench, recipe: builds.Recipe) -> None:
    with pytest.raises(BuildError, match="convert was not done after 2 s"):
        builds.build(Wanted("net", 32, (("width", 0.4),)), recipe, cache=bench.cache, timeout_s=2)
    assert_nothing_runs_or_is_left(bench)


def test_ctrl_c_ends_the_conversion_and_leaves_nothing(bench: Bench, recipe: builds.Recipe) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)  # which the conversion itself sends
    try:
        with pytest.raises(KeyboardInterrupt):
            builds.build(Wanted("net", 32, (("width", 0.6),)), recipe, cache=bench.cache)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert_nothing_runs_or_is_left(bench)


def assert_nothing_runs_or_is_left(bench: Bench) -> None:
    (line,) = Path(os.environ["LOG"]).read_text().splitlines()
    with pytest.raises(ProcessLookupError):
        os.kill(int(line.split()[0]), 0)
    assert list(bench.cache.iterdir()) == []


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
    asked = experiment.build(
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
        sweep.Sweep,
    )

    def run() -> sweep.Done:
        return sweep.run(
            asked,
            places=[sweep.Place("host", HostTarget(runtime="litert", threads=1))],
            cache=tmp_path / "cache",
            out=tmp_path / "rows.jsonl",
            runtime="litert",
            threads=1,
            profile=False,
            command="",
            progress=Progress("android_bench"),
            track=quietly,
        )

    first = run()
    assert [row.delegate_partitions for row in first.rows] == [1, 1]
    (reason,) = first.failures.values()
    assert "Expected a width multiplier of 0.5, 1.0, 1.5, 2.0, got 0.3" in reason
    told = [row.network for row in first.rows]
    assert [n and (n["name"], n["resolution"], n["params"]) for n in told] == [
        ("mobilenet_v1", 32, 470_072),
        ("shufflenet_v2", 32, 1_366_792),
    ]
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    second = run()
    assert list(second.rows) == [results.read(tmp_path / "rows.jsonl")[i] for i in range(2)]
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == stamps
    models = model_file.read_all([row.path for row in second.rows])
    assert [model.sha256 for model in models] == [row.sha256 for row in second.rows]
    table = markdown.claims_table(asked.claim, second.rows, second.models, [])
    assert "| more multiply-adds | here | no figure |" in table
