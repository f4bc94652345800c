"""Sweeps: settings, batches, failures, and the tables of their rows."""

import errno
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from android_bench import build_cache, bundle_info, results, sweep, tables
from android_bench.build_cache import NetworkSpec
from android_bench.measurement import Machine, TargetError
from android_bench.model_file import ModelFile
from keras_models import registry
from shufflelite import atomic, config
from shufflelite.errors import InputError
from tests.android_bench.rows import network as a_network
from tests.android_bench.rows import row
from tests.android_bench.sweeps import Bench, Scripted, grid, names

ROOT = Path(__file__).parents[2]


def test_a_grid_is_the_product_of_its_lists_in_the_order_given() -> None:
    asked = config.build(
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
        sweep.SweepSettings,
    )
    expected = [
        NetworkSpec("shufflenet_v1", side, (("groups", g), ("shuffle", False), ("width", width)))
        for side, width, g in itertools.product((224, 192), (0.5, 1.0), (1, 3, 8))
    ]
    # The third grid is in the first; and a paper's resolution is the default.
    assert sweep.networks(asked) == [*expected, NetworkSpec("efficientnet_v2_b1", 240)]


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
        ('[grid]\nmodel = "mobilenet_v1"\n', "expected 'grid' to be an array of tables: [[grid]],"),
        (
            '[[grid]]\nmodel = "mobilenet_v1"\n[convert]\nwidth = 1.0\n',
            "[convert]: 'width' belongs to a network: put it into [[grid]].",
        ),
        (
            '[[grid]]\nmodel = "mobilenet_v1"\n[convert]\nout = "x"\n',
            "[convert]: 'out' is set by the sweep itself: leave it out.",
        ),
        (
            '[[grid]]\nmodel = "mobilenet_v1"\n[measure]\nbatch = 1\n',
            "[measure]: expected 'batch' to be at least 2, got 1.",
        ),
        *(
            (
                f'[[grid]]\nmodel = "mobilenet_v1"\n[measure]\nmax_seconds = {value}\n',
                f"[measure]: expected 'max_seconds' to be {expected}, got {value}.",
            )
            for value, expected in (
                ("nan", "a number"),
                ("inf", "a finite number"),
                ("-1.0", "at least 0"),
            )
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


def test_the_former_name_of_a_batch_still_works() -> None:
    measured = {"heat": 4}
    settings = config.build({"grid": [], "measure": measured}, sweep.SweepSettings)
    assert settings.measure.batch == 4


@pytest.mark.parametrize("count", [0, 1, 6, 7, 8, 14, 15, 34])
@pytest.mark.parametrize("size", [2, 3, 8])
def test_batches_begin_with_the_reference_and_hold_each_other_model_once(
    count: int, size: int
) -> None:
    reference, *others = (ModelFile(str(index), Path(), 0, "", {}) for index in range(count + 1))
    found = sweep.batches(reference, others, size=size)
    assert all(batch[0] is reference and len(batch) <= size for batch in found)
    assert [model for batch in found for model in batch[1:]] == others
    assert len(found) == max(1, -(-count // (size - 1)))


def test_each_network_is_converted_and_measured_once_and_ratios_are_to_the_first(
    bench: Bench,
) -> None:
    target = Scripted()
    done = bench.run(grid(2.0, 1.0, 4.0, 6.0, 8.0, batch=3), target)
    assert not done.failures
    assert [row.ratio for row in done.rows] == [1.0, 0.5, 2.0, 3.0, 4.0]
    assert {row.ratio_to for row in done.rows} == {"mobilenet_v1_x2.0_32"}
    assert list(done.models.values()) == names(done.rows)
    assert target.most_at_once == 3
    assert not target.open
    # Each batch is whole in the file, so that a row's reference is the one before it.
    assert [row.ratio for row in results.read(bench.out)] == [1.0, 0.5, 2.0, 1.0, 3.0, 4.0]
    assert done.rows[0].network == bundle_info.BundleInfo(
        "mobilenet_v1", {"width": 2.0}, 32, 1000, "int8", 10, 1000, None, None
    )


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
    make = build_cache.made_pictures

    def too_large(resolution: int) -> bytes:
        if resolution == 64:
            raise MemoryError
        return make(resolution)

    monkeypatch.setattr(build_cache, "made_pictures", too_large)
    asked = sweep.SweepSettings(grid=(sweep.Grid("mobilenet_v1", (64, 32), {"width": 2.0}),))
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
    assert not bench.cache.exists()


def test_all_names_are_told_before_the_first_model_is_measured(bench: Bench) -> None:
    target = Scripted()
    told = []

    def ready(names: Sequence[str]) -> None:
        told.extend(names)
        raise InputError("nothing to compare with")

    with pytest.raises(InputError, match="nothing to compare with"):
        bench.run(grid(2.0, 0.1, 1.0), target, ready=ready)
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
    table = tables.sweep_table(done.rows, sweep.notes(grid(1.0)))
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
    done = bench.run(grid(2.0, 1.0, 4.0, batch=2), *devices, names="adb:a adb:b ssh:c")
    assert [(one.target, one.ratio) for one in done.rows] == [
        (name, ratio) for name in ("adb:a", "ssh:c") for ratio in (1.0, 0.5, 2.0)
    ]
    assert done.failures == {f"mobilenet_v1_x{w}_32 on adb:b": "gone" for w in (2.0, 1.0, 4.0)}
    written = results.read(bench.out)
    assert sorted(one.target for one in written) == ["adb:a"] * 4 + ["ssh:c"] * 4
    assert None not in results.references(written)


def test_a_table_leaves_out_what_no_row_has_and_quotes_what_would_break_it() -> None:
    plain = row("base", network=None)
    shown = tables.sweep_table([plain, row("a|b\nc", network=None, ratio=2.0)], [])
    lines = shown.splitlines()
    assert lines[0] == (
        "| model | size kB | operators | partitions | host ms | host ratio (p5-p95) |"
    )
    assert lines[3] == r"| a\|b c | 1235 | 4 | 1 | 4.00 | 2.00 (1.96-2.04) |"
    named = a_network("net", options={"width": 0.5, "squeeze_excite": True, "variant": "megvii"})
    assert tables.network_label(row(network=named)) == "net squeeze_excite variant=megvii"
