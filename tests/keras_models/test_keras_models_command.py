"""The command that lists, shows and compares networks."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from keras_models import registry
from tests.forkserver import LIGHT, TENSORFLOW, run

ROOT = Path(__file__).parents[2]


def show(*words: str, search: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **({"PYTHONPATH": str(search)} if search else {})}
    command = [sys.executable, "-m", "keras_models", *words]
    modules = LIGHT if search else TENSORFLOW
    return run(command, modules=modules, cwd=ROOT, env=env, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["--list"], 0),
        (["--list", "--json"], 0),
        (["--model=shuflenet_v2"], 1),
        ([], 2),
        (["--list", "--model=mobilenet_v1"], 2),
        (["--model=mobilenet_v1", "0.5"], 2),
        (["--model=mobilenet_v1", "--resolution=0"], 2),
        (["--model=mobilenet_v1", "--resolution_multiplier=nan"], 2),
        (["--model=mobilenet_v1", "--option=width"], 1),
        (["--compare"], 2),
        (["--compare", "--list"], 2),
        (["--compare", "mobilenet_v1", "shuflenet_v2"], 1),
        (["--compare", "mobilenet_v1:width"], 1),
        (["--model=mobilenet_v1"], 99),  # the trap works
    ],
)
def test_tensorflow_is_loaded_to_build_a_network_only(
    words: list[str], code: int, trap: Path
) -> None:
    ran = show(*words, search=trap)
    assert ran.returncode == code
    lines = ran.stderr.splitlines()
    assert len(lines) == (code in (1, 2))
    assert all(line.startswith("keras_models: ") for line in lines)


def test_help_is_the_module_s_docstring_and_every_flag() -> None:
    printed = show("--help").stdout
    assert "python -m keras_models --model shufflenet_v2 --width 0.5" in printed
    names = "width groups stem variant option resolution resolution_multiplier num_classes layers"
    for flag in (*names.split(), "compare", "json"):
        assert f"  --{flag} " in printed


def test_list_is_a_line_for_each_published_variant_then_the_sources() -> None:
    printed = show("--list").stdout
    lines = printed.splitlines()
    expected = [(name, p) for name in registry.names() for p in registry.find(name).published]
    for line, (name, p) in zip(lines[1:], expected, strict=False):
        options = [f"{key}={str(value).lower()}" for key, value in p.options.items()]
        top1 = ["-"] if p.top1 is None else [f"{p.top1}", "%"]
        columns = [name, *options, f"{p.resolution}", f"{p.params:,}", f"{p.mmadds:,}", "M", *top1]
        assert line.split() == columns
    sources = " ".join(lines[1 + len(expected) :])
    for name in registry.names():
        entry = registry.find(name)
        assert name in sources
        assert f"{entry.note} {entry.paper}" in sources
    assert max(map(len, lines)) <= 100
    listed = json.loads(show("--list", "--json").stdout)
    assert listed["shufflenet_v2"]["published"] == [
        dataclasses.asdict(p) for p in registry.find("shufflenet_v2").published
    ]


def test_a_model_is_shown_by_the_rows_of_its_papers_table() -> None:
    command = [sys.executable, "-m", "keras_models", "--model=shufflenet_v2"]  # really started
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert lines[0] == "shufflenet_v2 width=1.0 resolution=224 num_classes=1000"
    assert max(map(len, lines)) <= 100
    rows = [re.sub("[█▏▎▍▌▋▊▉]", "", line).split() for line in lines]
    assert [row[:4] for row in rows[2:11]] == [  # Table 5: layer, repeat, output size
        ["image", "1", "1", "224x224x3"],
        ["conv1", "1", "3", "112x112x24"],
        ["max_pool", "1", "1", "56x56x24"],
        ["stage2", "4", "51", "28x28x116"],
        ["stage3", "8", "99", "14x14x232"],
        ["stage4", "4", "51", "7x7x464"],
        ["conv5", "1", "3", "7x7x1024"],
        ["global_pool", "1", "1", "1024"],
        ["classifier", "1", "1", "1000"],
    ]
    assert rows[11] == ["total", "2,278,604", "144,907,992"]
    assert rows[12] == ["published", "2,278,604", "146", "M"]
    assert rows[13] == ["deviation", "+0.00", "%", "-0.75", "%"]
    assert [line.count("█") for line in lines[2:11]] == [0, 1, 0, 4, 9, 5, 3, 0, 0]  # of 24
    assert rows[16] == ["Conv2D", "1x1", "36", "1,214,636", "131,595,968", "90.8", "%"]
    assert "Published top-1: 69.4 %." in ran.stdout


def test_networks_are_compared_in_columns() -> None:
    variants = "shufflenet_v2:width=0.5", "mobilenet_v1:width=0.25,resolution=192", "alexnet"
    ran = show("--compare", *variants, "--num_classes=1000")
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].split() == ["shufflenet_v2", "mobilenet_v1", "alexnet"]
    assert lines[6].split() == ["multiply-adds", "40,476,448", "30,212,608", "720,608,384"]
    assert lines[7].split() == ["to", "the", "first", "x", "1.00", "x", "0.75", "x", "17.80"]
    rows = {label: words for label, *words in (re.split(" {2,}", x.strip()) for x in lines)}
    assert rows["options"] == ["width=0.5", "width=0.25"]
    assert rows["resolution"] == ["224", "192", "224"]
    assert rows["parameters"] == ["1,366,792", "470,072", "60,965,224"]  # the last: published
    assert rows["multiply-adds"] == ["41 M", "34 M", "720 M"]
    assert rows["top-1"] == ["60.3 %", "47.7 %", "57.2 %"]
    assert rows["image / 2"][-1] == "-"  # AlexNet's first convolution has stride 4
    assert rows["Conv2D 5x5 grouped"] == ["-", "-", "1"]
    assert rows["DepthwiseConv2D 3x3"] == ["19", "13", "-"]
    assert rows["LocalResponseNorm"] == ["-", "-", "2"]


def test_json_has_layers_stages_and_the_published_variant_of_the_multiplied_resolution() -> None:
    words = "--width=0.25", "--resolution_multiplier=0.571", "--layers", "--json"
    shown = json.loads(show("--model=mobilenet_v1", *words).stdout)
    assert (shown["resolution"], shown["params"], shown["multiply_adds"]) == (128, 470072, 13570048)
    assert shown["options"] == {"width": 0.25}
    assert shown["published"]["params"] == shown["params"]
    assert shown["published"]["mmadds"] == round(shown["multiply_adds"] / 1e6)
    units = [f"unit{i}" for i in range(1, 14)]
    names = [stage["name"] for stage in shown["stages"]]
    assert names == ["image", "conv1", *units, "global_pool", "classifier"]
    for part in ("stages", "layers", "operators"):
        for key in ("params", "multiply_adds"):
            assert sum(one[key] for one in shown[part]) == shown[key]


def test_a_comparison_in_json_is_a_list_of_what_each_model_is() -> None:
    words = "--option=mflops=13", "--option", "padding=symmetric", "--json", "--num_classes=10"
    listed = json.loads(show("--compare", "vgg_like", "resnet_like:mflops=38", *words).stdout)
    assert [(one["model"], one["options"]["mflops"]) for one in listed] == [
        ("vgg_like", 13),
        ("resnet_like", 38),
    ]
    assert all(one["options"]["padding"] == "symmetric" for one in listed)
    assert all(one["num_classes"] == 10 and one["published"] is None for one in listed)
    assert not any("layers" in one for one in listed)


@pytest.mark.parametrize(
    "words",
    [
        ["--stem=cifar"],
        ["--num_classes=10"],
        ["--resolution=192", "--width=0.35", "--allow_any_width"],
    ],
)
def test_no_figure_is_compared_with_another_networks(words: list[str]) -> None:
    ran = show("--model=shufflenet_v2", *words, "--layers")
    assert ran.returncode == 0
    expected = "Not published with these options, this resolution and number of classes."
    assert expected in ran.stdout
    assert "deviation" not in ran.stdout
    assert "stage4_unit4_project  " in ran.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model=shufflenet_v2", "--width=3"], "Expected a width multiplier of 0.5, 1.0, 1.5,"),
        (["--model=mobilenet_v1", "--variant=megvii"], "mobilenet_v1 has no option 'variant'"),
        (["--model=mobilenet_v1", "--option=wdth=1"], "mobilenet_v1 has no option 'wdth'"),
    ],
)
def test_what_cannot_be_built_is_one_line(words: list[str], message: str) -> None:
    ran = show(*words)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith(f"keras_models: {message}")
    assert ran.stderr.count("\n") == 1
