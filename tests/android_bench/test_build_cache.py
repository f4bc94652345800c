"""The cache of a sweep's files: its keys, its entries, and what is left of those cut off."""

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from android_bench import build_cache
from android_bench.build_cache import BuildError, NetworkSpec
from keras_models.images import decode
from tests.android_bench.sweeps import Bench, Scripted, grid

BUILD = """
import sys
from pathlib import Path
from android_bench import build_cache
build_cache.CONVERT = (sys.executable, "stand_in.py")
network = build_cache.NetworkSpec("net", 32, (("width", 2.0),))
spec = build_cache.build_spec({"precision": "float32"})
build_cache.build(network, spec, cache=Path(sys.argv[1]))
"""


@pytest.fixture
def spec() -> build_cache.BuildSpec:
    return build_cache.BuildSpec(
        flags={"precision": "int8"},
        inputs={"precision": "int8"},
        makes_pictures=False,
        versions={"tensorflow": "2.21.0", "python": "3.11.0"},
        sources="ab",
    )


def test_the_key_of_the_cache_changes_with_all_that_the_file_depends_on(
    spec: build_cache.BuildSpec,
) -> None:
    network = NetworkSpec("net", 224, (("width", 0.5),))
    variants = [
        (network, spec),
        (dataclasses.replace(network, model="other"), spec),
        (dataclasses.replace(network, resolution=192), spec),
        (dataclasses.replace(network, options=(("width", 1.0),)), spec),
        (network, dataclasses.replace(spec, inputs={"precision": "float32"})),
        (network, dataclasses.replace(spec, makes_pictures=True)),
        (network, dataclasses.replace(spec, versions={**spec.versions, "python": "3.12.0"})),
        (network, dataclasses.replace(spec, sources="cd")),
    ]
    entries = [build_cache.entry(*variant, cache=Path("cache")) for variant in variants]
    assert len(set(entries)) == len(entries)
    assert build_cache.entry(network, spec, cache=Path("cache")) == entries[0]


def test_files_count_by_their_contents_and_not_by_their_names(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "picture.png").write_bytes(b"pixels")

    def inputs(name: str) -> Any:
        return build_cache.build_spec({"calibration": str(tmp_path / name)}).inputs["calibration"]

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
    monkeypatch.setattr(build_cache, "ROOT", tmp_path)
    monkeypatch.setattr(build_cache, "PACKAGES", (package.name,))
    digests = [build_cache.build_spec({}).sources]
    (package / "__pycache__" / "code.pyc").write_text("compiled")
    assert build_cache.build_spec({}).sources == digests[0]
    code.write_text("x = 2")
    digests.append(build_cache.build_spec({}).sources)
    code.rename(package / "renamed.py")
    digests.append(build_cache.build_spec({}).sources)
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
    assert build_cache.build_spec(flags).makes_pictures is made


def test_a_sweeps_weights_are_random_whatever_is_bundled() -> None:
    assert build_cache.build_spec({}).flags["weights"] == "random"
    assert build_cache.build_spec({"weights": "imagenet"}).flags["weights"] == "imagenet"


@pytest.mark.parametrize("resolution", [32, 97, 224])
def test_made_pictures_are_what_convert_reads_and_always_the_same(
    tmp_path: Path, resolution: int
) -> None:
    path = tmp_path / "pictures.npz"
    path.write_bytes(build_cache.made_pictures(resolution))
    pixels, _ = decode.read_npz(path, resolution=resolution)
    assert pixels.shape == (build_cache.PICTURES, resolution, resolution, 3)
    build_cache.made_pictures.cache_clear()
    assert path.read_bytes() == build_cache.made_pictures(resolution)
    # As in pictures, neighbours are alike (noise: 1.13), and darks and lights are there.
    assert np.abs(np.diff(pixels.astype(float), axis=2)).mean() < 0.8 * pixels.std()
    assert pixels.min() < 64 < 192 < pixels.max()


def test_a_bundle_is_kept_with_what_it_was_made_of(
    bench: Bench, spec: build_cache.BuildSpec
) -> None:
    spec = dataclasses.replace(spec, makes_pictures=True)
    network = NetworkSpec("net", 32, (("width", 2.0),))
    model = build_cache.build(network, spec, cache=bench.cache)
    assert model == build_cache.entry(network, spec, cache=bench.cache) / "net_x2.0_32/model.tflite"
    content = json.loads((model.parents[1] / "entry.json").read_text())
    assert (content["model"], content["resolution"], content["options"]) == (
        "net",
        32,
        {"width": 2.0},
    )
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert content["files"]["net_x2.0_32/model.tflite"] == digest
    (pictures,) = bench.cache.glob("pictures_32_*.npz")
    assert content["made_pictures"] == hashlib.sha256(pictures.read_bytes()).hexdigest()


@pytest.mark.parametrize("damage", ["flip", "truncate", "report", "remove", "entry"])
def test_a_damaged_entry_is_made_again(bench: Bench, damage: str) -> None:
    settings = grid(2.0)
    done = bench.run(settings, Scripted())
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
    again = bench.run(settings, Scripted())
    assert not again.failures
    assert bench.converted == 2
    assert model.read_bytes() == whole


def test_what_two_processes_want_is_converted_once(bench: Bench) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", BUILD, str(bench.cache)]
    running = [subprocess.Popen(command, env=env) for _ in range(3)]
    assert [process.wait() for process in running] == [0] * 3
    assert bench.converted == 1
    assert [path.name for path in bench.cache.iterdir() if path.name.startswith(".")] == []


def test_what_a_killed_sweep_left_in_the_cache_is_removed(bench: Bench) -> None:
    dead = 2**22 + 1  # above the greatest id of a process
    left = bench.cache / f".abc.{dead}.0123abcd.part"
    (left / "half").mkdir(parents=True)
    (bench.cache / f"pictures_32_ab.npz.{dead}.0123abcd.part").touch()
    other = bench.cache / f".abc.{os.getppid()}.0123abcd.part"  # another sweep, that still runs
    other.mkdir()
    bench.run(grid(2.0), Scripted())
    assert [path for path in bench.cache.iterdir() if path.name.startswith(".")] == [other]


def test_a_conversion_that_takes_too_long_is_ended(
    bench: Bench, spec: build_cache.BuildSpec
) -> None:
    with pytest.raises(BuildError, match="convert was not done after 2 s"):
        build_cache.build(
            NetworkSpec("net", 32, (("width", 0.4),)), spec, cache=bench.cache, timeout_s=2
        )
    assert_nothing_runs_or_is_left(bench)


def test_ctrl_c_ends_the_conversion_and_leaves_nothing(
    bench: Bench, spec: build_cache.BuildSpec
) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)  # which the conversion itself sends
    try:
        with pytest.raises(KeyboardInterrupt):
            build_cache.build(NetworkSpec("net", 32, (("width", 0.6),)), spec, cache=bench.cache)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert_nothing_runs_or_is_left(bench)


def assert_nothing_runs_or_is_left(bench: Bench) -> None:
    (line,) = Path(os.environ["LOG"]).read_text().splitlines()
    with pytest.raises(ProcessLookupError):
        os.kill(int(line.split()[0]), 0)
    assert not bench.cache.exists()
