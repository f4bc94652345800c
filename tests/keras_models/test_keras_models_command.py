import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from keras_models import registry

ROOT = Path(__file__).parents[2]


def show(*words: str, search: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **({"PYTHONPATH": str(search)} if search else {})}
    command = [sys.executable, "-m", "keras_models", *words]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose tensorflow and tf_keras leave the program with 99."""
    folder = tmp_path_factory.mktemp("trap")
    for name in ("tensorflow", "tf_keras"):
        (folder / f"{name}.py").write_text("import os; os._exit(99)")
    return folder


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
    for flag in ("width", "resolution_multiplier", "num_classes", "stem", "variant", "[no]layers"):
        assert f"  --{flag}: " in printed


def test_list_is_a_line_for_each_published_variant() -> None:
    lines = show("--list").stdout.splitlines()
    expected = [(name, p) for name in registry.names() for p in registry.find(name).published]
    for line, (name, p) in zip(lines[1:], expected, strict=False):
        columns = [name, registry.find(name).paper, p.width, p.resolution, f"{p.params:,}"]
        assert line.split() == [*map(str, columns), f"{p.mmadds}", "M", f"{p.top1}", "%"]
    assert [line.split(":")[0] for line in lines[1 + len(expected) :]] == registry.names()
    listed = json.loads(show("--list", "--json").stdout)
    assert listed["shufflenet_v2"]["published"] == [
        dataclasses.asdict(p) for p in registry.find("shufflenet_v2").published
    ]


def test_a_model_is_shown_by_the_rows_of_its_papers_table() -> None:
    ran = show("--model=shufflenet_v2")
    assert (ran.returncode, ran.stderr) == (0, "")
    rows = [line.split() for line in ran.stdout.splitlines()]
    assert [row[:4] for row in rows[1:10]] == [  # Table 5: layer, repeat, output size
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
    assert rows[10] == ["total", "2,278,604", "144,907,992", "100.0", "%"]
    assert rows[11] == ["published", "2,278,604", "146", "M"]
    assert rows[12] == ["deviation", "+0.00", "%", "-0.75", "%"]
    assert rows[13][:4] == ["Published", "top-1:", "69.4", "%."]


def test_json_has_layers_stages_and_the_published_variant_of_the_multiplied_resolution() -> None:
    ran = show(
        "--model=mobilenet_v1",
        "--width=0.25",
        "--resolution_multiplier=0.571",
        "--layers",
        "--json",
    )
    shown = json.loads(ran.stdout)
    assert (shown["resolution"], shown["params"], shown["multiply_adds"]) == (128, 470072, 13570048)
    assert shown["published"]["params"] == shown["params"]
    assert shown["published"]["mmadds"] == round(shown["multiply_adds"] / 1e6)
    units = [f"unit{i}" for i in range(1, 14)]
    names = [stage["name"] for stage in shown["stages"]]
    assert names == ["image", "conv1", *units, "global_pool", "classifier"]
    for part in ("stages", "layers"):
        for key in ("params", "multiply_adds"):
            assert sum(one[key] for one in shown[part]) == shown[key]


@pytest.mark.slow
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
    assert "Not published with this width, resolution, stem and number of classes." in ran.stdout
    assert "deviation" not in ran.stdout
    assert "stage4_unit4_project  " in ran.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model=shufflenet_v2", "--width=3"], "Expected a width multiplier of 0.5, 1.0, 1.5,"),
        (["--model=mobilenet_v1", "--variant=megvii"], "mobilenet_v1 has no option 'variant'"),
    ],
)
def test_what_cannot_be_built_is_one_line(words: list[str], message: str) -> None:
    ran = show(*words)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith(f"keras_models: {message}")
    assert ran.stderr.count("\n") == 1
