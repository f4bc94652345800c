"""A flag that a message names exists in each command whose code holds the message."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

from shufflelite import flags
from tests.docs.commands import ROOT
from tests.docs.dry import load

PACKAGES = ("android_bench", "convert", "keras_models", "shufflelite", "tflite_file")
COMMANDS = (
    *("android_bench", "convert", "convert.accuracy", "convert.classify"),
    *("keras_models", "keras_models.train", "keras_models.train.publish"),
)
OF_ABSL = {"help", "helpshort", "verbosity"}
NOT_PRINTED = {  # (module, command): why the command never prints the module's advice
    ("convert.accuracy.models", "convert"): "--android_app reads a bundle with its report",
    ("keras_models.images.datasets", "keras_models.train"): "it takes the classes of its pictures",
    ("keras_models.images.datasets", "keras_models.train.publish"): "the same",
    ("shufflelite.config", "convert.accuracy"): "it has no TOML file whose settings --set replaces",
    ("shufflelite.config", "convert.classify"): "the same",
    ("shufflelite.config", "keras_models"): "the same",
}
OTHER_PROGRAMS = {  # flags of pip, tar and the benchmark tool
    "android_bench.emulated.setup": {"hash", "version"},
    "android_bench.benchmark_tool.stdout_parser": {"result_json"},
}


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """The flags of each command."""
    found = {}
    for command in COMMANDS:
        found[command] = set(OF_ABSL)
        for schema in load(command).SETTINGS:
            for flag in flags.flags_of(schema):
                found[command] |= {flag.name, f"no{flag.name}", *(flag.setting.short or ())[:1]}
    return found


def source(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def messages(text: str) -> list[str]:
    """The texts of several words in a module's code, but for docstrings."""
    tree, texts = ast.parse(text), list[str]()
    parts: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            parts.add(node.value)  # a docstring
        elif isinstance(node, ast.JoinedStr):
            parts.update(node.values)
            values = (v.value if isinstance(v, ast.Constant) else "?" for v in node.values)
            texts.append("".join(values))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in parts:
            texts.append(node.value)
    return [text for text in texts if " " in text.strip()]  # one word: an argument of a program


def advised(text: str) -> Iterator[tuple[str | None, str]]:
    """Each flag that a text names, with the command it is of where the text says so."""
    for part in re.split(r"(?=python -m )", text):
        command = re.match(r"python -m ([\w.]+)", part)
        for name in re.findall(r"--(?:\[no\])?([a-z]\w*)\b(?!-)", part):
            yield command and command[1], name


def test_each_flag_that_a_message_names_exists_where_it_is_printed(
    known: dict[str, set[str]],
) -> None:
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True)
    used = {}
    for command in COMMANDS:
        main = f"{command}.__main__" if f"{command}.__main__" in graph.modules else command
        used[command] = graph.find_upstream_modules(main) | {main}
    named, wrong = 0, []
    for module in sorted(graph.modules):
        for text in messages(source(module).read_text(encoding="utf-8")):
            for of, name in advised(text):
                named += 1
                if name in OTHER_PROGRAMS.get(module, ()):
                    continue
                for command in [of] if of else (c for c in COMMANDS if module in used[c]):
                    if name not in known[command] and (module, command) not in NOT_PRINTED:
                        wrong.append(f"{module}: {text!r}: {command} has no --{name}")
    assert wrong == []
    assert named > 90


def test_each_flag_that_a_model_card_names_exists(known: dict[str, set[str]]) -> None:
    templates = sorted((ROOT / "convert/bundle/card/templates").glob("*.md.j2"))
    for template in templates:
        for of, name in advised(template.read_text(encoding="utf-8")):
            assert name in known[of or "convert"], f"{template.name}: --{name}"
    assert templates


def test_advice_of_a_flag_that_is_not_there_is_found() -> None:
    text = """def f(): raise E(f"{x}: pass --mean and --std", "--b", 'use --c')"""
    found = [pair for message in messages(text) for pair in advised(message)]
    assert found == [(None, "mean"), (None, "std"), (None, "c")]
    assert list(advised("run python -m convert --int8")) == [("convert", "int8")]
