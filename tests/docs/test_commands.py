"""The programs accept every command in a document or a file's header.

test_guides.py runs them.
"""

import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import forkserver
from tests.docs import commands
from tests.docs.commands import DOCUMENTS, ROOT, Command

OTHERS = ("./gradlew", "gradle", "pytest")  # whose words are not ours to check


def found_wrong(folder: Path, asked: Sequence[Command]) -> list[str]:
    """What is wrong with commands, each with its place."""
    for name in ("configs", "drills", "examples"):
        (folder / name).symlink_to(ROOT / name)
    for path in DOCUMENTS:
        for name, text in commands.files(path).items():
            (folder / name).write_text(text)
    found, ours = [], []
    for command in asked:
        program, *words = command.program_and_words
        if program == "make":
            found += [
                f"{command.place}: {command.text}: there is no target {word}"
                for word in words
                if not re.search(rf"^{word}:", (ROOT / "Makefile").read_text(), re.M)
            ]
        elif program in OTHERS:
            continue
        elif command.is_python:
            ours.append(command)
        elif not (ROOT / program).is_file():
            found.append(f"{command.place}: {command.text}: expected a command")
    done = forkserver.run(
        [sys.executable, "-W", "ignore", "-m", "tests.docs.dry"],
        input=json.dumps([command.program_and_words for command in ours]),
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = json.loads(done.stdout.splitlines()[-1])
    told = zip(ours, answers, strict=True)
    return found + [f"{c.place}: {c.text}: {wrong}" for c, wrong in told if wrong]


def test_every_command_is_one_that_the_programs_take(tmp_path: Path) -> None:
    every = commands.every()
    assert {command.place.partition(":")[0] for command in every} >= {
        *("README.md", "CONTRIBUTING.md", "android_bench/app/README.md"),
        *(str(path.relative_to(ROOT)) for path in (ROOT / "docs/guides").iterdir()),
        *(str(path.relative_to(ROOT)) for path in (ROOT / "configs").iterdir()),
        *(str(path.relative_to(ROOT)) for path in (ROOT / "benchmarks").glob("*.py")),
        *("drills/fuzz.py", "drills/kills.py"),
    }
    assert found_wrong(tmp_path, every) == []
    for command in every:
        if "TF_CONFIG" in command.assigned:
            assert json.loads(command.assigned["TF_CONFIG"])["task"]["type"] == "worker"


def test_each_mistake_in_a_command_is_found(tmp_path: Path) -> None:
    wrong = {
        "python -m convert --model shufflenet_v2 --int": "flag 'int'",
        "python -m convert --model shuflenet_v2 --int8": "Did you mean 'shufflenet_v2'?",
        "python -m convert --model shufflenet_v2 --option grups=3": "no option 'grups'",
        "python -m convert --model shufflenet_v2 --width 0.7": "width",
        "python -m convert --model shufflenet_v2 --int8 --qat_epochs 1": "pass --qat_data",
        "python -m convert --config configs/absent.toml": "there is no configs/absent.toml",
        "python -m convert --config configs/shufflenet_v2_int8.toml --set model.nam=x": "'nam'",
        "python -m converts --model shufflenet_v2": "there is no module converts",
        "python -m keras_models.train --config configs/shufflenet_v2_cifar10.toml "
        "--set training.epoch=1": "Did you mean 'epochs'?",
        "python -m keras_models --compare shufflenet_v1:group=8": "group",
        "python -m android_bench --models a.tflite --target emulated:a54": "a54",
        "python -m android_bench --models a.tflite --max_regression 5%": "belongs to --baseline",
        "python -m android_bench --sweep configs/shufflenet_v2_int8.toml": "unknown key",
        "python -m convert.accuracy --models a.tflite": "--data",
        "python -m convert.classify a.tflite": "pictures",
        "python benchmarks/lowring.py --out x": "there is no file benchmarks/lowring.py",
        "python benchmarks/lowering.py --target host": "flag --out",
        "make demos": "no target demos",
        "network                shufflenet_v2": "expected a command",
    }
    found = found_wrong(tmp_path, [Command("a.md:1", text) for text in wrong])
    assert len(found) == len(wrong), found
    by_text = {text: one for text in wrong for one in found if one.startswith(f"a.md:1: {text}: ")}
    assert by_text.keys() == wrong.keys()
    for text, message in wrong.items():
        assert message in by_text[text].removeprefix(f"a.md:1: {text}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("    a \\\n        b\n    c\n", ["a b", "c"]),
        ("text:\n\n    a\n\nand\n    no block\n", ["a"]),
        ("```text\n    no\n```\n\n    a\n", ["a"]),
        ("- in a list\n  goes on\n", []),
        ("```yaml\n  - run: a\n  - run: |\n      b \\\n        c\n      d\n  - uses: x\n```\n",
         ["a", "b c", "d"]),
    ],
)  # fmt: skip
def test_commands_are_indented_blocks_and_what_workflows_run(
    text: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "ROOT", tmp_path)
    (tmp_path / "a.md").write_text(text)
    assert [command.text for command in commands.blocks(tmp_path / "a.md")] == expected
