"""The commands in documents and in the headers of files.

In Markdown an indented block holds only commands; their output, code and files stand in fences.
Other commands are a workflow's `run:` in a yaml fence, and `code` in a sentence that begins with
the name of a program.
"""

import ast
import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "android_bench/app/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
)
HEADERS = (
    *sorted((ROOT / "configs").glob("*.toml")),
    *sorted(
        path
        for folder in ("keras_models", "convert", "android_bench", "benchmarks", "drills")
        for path in (ROOT / folder).rglob("*.py")
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    ),
)
PYTHON = r"(?:\.venv/bin/)?python"
IN_A_SENTENCE = re.compile(rf"(?:[A-Z_]+=\S+ )?(?:{PYTHON} \S|make \w|\./gradlew |gradle |pytest )")
ASSIGNED = re.compile(r"[A-Z][A-Z0-9_]*=")


@dataclass(frozen=True)
class Command:
    """A command: its only line, and where it stands."""

    place: str
    text: str

    @property
    def is_python(self) -> bool:
        """Whether Python runs it."""
        return bool(re.match(PYTHON, self._words[len(self.assigned)]))

    @property
    def program_and_words(self) -> list[str]:
        """The module, the file or the program that runs, and its arguments.

        Split as a shell does, without expanding patterns, up to a redirection.
        """
        words = self._words[len(self.assigned) :]
        if ">" in words:
            words = words[: words.index(">")]
        if self.is_python:
            words = words[2:] if words[1] == "-m" else words[1:]
        return words

    @property
    def assigned(self) -> dict[str, str]:
        """The environment variables that it sets."""
        variables = {}
        for word in itertools.takewhile(ASSIGNED.match, self._words):
            name, _, value = word.partition("=")
            variables[name] = value
        return variables

    @property
    def _words(self) -> list[str]:
        return shlex.split(self.text, comments=True)


def every() -> list[Command]:
    """The commands of all documents and headers."""
    commands = [command for path in DOCUMENTS for command in (*blocks(path), *spans(path))]
    commands += [command for path in HEADERS for command in of_header(path)]
    nested = [(c.place, c.text.partition(" -- ")[2]) for c in commands]  # what a drill starts
    return commands + [Command(place, text) for place, text in nested if text]


def blocks(path: Path) -> list[Command]:
    """The commands that a Markdown file shows on lines of their own, in order."""
    return [
        Command(f"{path.relative_to(ROOT)}:{number}", text)
        for number, language, lines in _parts(path)
        if language in ("indented", "yaml")
        for text in (_joined(lines) if language == "indented" else _runs(lines))
    ]


def spans(path: Path) -> list[Command]:
    """The commands in its sentences, in backticks."""
    prose = [(number, "\n".join(lines)) for number, language, lines in _parts(path) if not language]
    return [
        Command(f"{path.relative_to(ROOT)}:{number}", " ".join(code.split()))
        for number, text in prose
        for code in re.findall(r"`([^`]+)`", text)
        if IN_A_SENTENCE.match(" ".join(code.split()))
    ]


def files(path: Path) -> dict[str, str]:
    """The TOML files that a Markdown file asks its reader to save; the first line has the name."""
    texts = {}
    for _, language, lines in _parts(path):
        named = re.fullmatch(r"# (\S+\.toml)", lines[0]) if language == "toml" else None
        if named:
            texts[named[1]] = "\n".join(lines) + "\n"
    return texts


def of_header(path: Path) -> list[Command]:
    """The commands at the head of a TOML file or a Python program."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        lines = (ast.get_docstring(ast.parse(text)) or "").splitlines()
    else:
        lines = [line[1:] for line in re.match(r"(?:#.*\n)*", text)[0].splitlines()]
    matches = (re.search(rf"({PYTHON} (?:-m )?\S.*)", line) for line in _joined(lines))
    return [
        Command(str(path.relative_to(ROOT)), re.sub(r" {2,}\(.*", "", match[1]))
        for match in matches
        if match
    ]


def _parts(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Each part of a Markdown file: line, language ("" for prose, or "indented"), lines."""
    language, start, held = "", 1, list[str]()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fence = re.match(r"```(\w*)", line)
        indented = line.startswith("    ") or (language == "indented" and not line)
        if fence:
            after = "" if _is_fenced(language) else fence[1] or "fence"
        elif _is_fenced(language):
            after = language
        else:
            begins = indented and (language == "indented" or not held or not held[-1])
            after = "indented" if begins else ""
        if after != language or fence:
            if held:
                yield start, language, held
            start, held = number + bool(fence), []
        language = after
        if not fence:
            held.append(line)
    if held:
        yield start, language, held


def _is_fenced(language: str) -> bool:
    return language not in ("", "indented")


def _joined(lines: list[str]) -> list[str]:
    """The lines, joined where a backslash continues them."""
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [line.strip() for line in text.splitlines() if line.strip()]


def _runs(lines: list[str]) -> list[str]:
    """The commands that a workflow runs."""
    commands = []
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    depth = None
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        run = re.match(r"\s*(?:- )?run: (.*)", line)
        if run:
            depth = indent if run[1] == "|" else None
            commands += [] if run[1] == "|" else [run[1]]
        elif depth is not None and line.strip() and indent > depth:
            commands.append(line.strip())
        else:
            depth = None
    return commands
