"""What real benchmark tools printed and wrote, and their figures as read off by eye.

`outputs.tar.xz` holds the output of four tools: the classic one of TF 2.20 (x86-64 and aarch64),
that of LiteRT's head of August 2026 and LiteRT's CompiledModel tool 2.2.0, each run here on our
files.  The first line of a text tells its flags and exit code.  `reported/` has the lines of older
tools in which users' reports differ.  `expected.tsv` has a line for each file: times in us as
printed, memory in MB, `cpu` the operators that no delegate took.
"""

import re
import tarfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("tool_outputs")


@cache
def samples() -> Mapping[str, bytes]:
    """All files, by name."""
    with tarfile.open(FOLDER / "outputs.tar.xz") as archive:
        return {
            member.name: file.read()
            for member in archive
            if (file := archive.extractfile(member)) is not None
        }


@cache
def expected() -> Mapping[str, Mapping[str, str]]:
    """The figures of each file by name; `kind` is what the file is."""
    lines = (FOLDER / "expected.tsv").read_text().split("\n")
    rows = (line.split("\t") for line in lines if line)
    return {
        name: {"kind": kind} | dict(word.partition("=")[::2] for word in words)
        for name, kind, *words in rows
    }


def text(name: str) -> str:
    """What a tool printed, without the line of its flags."""
    return re.sub(r"\A# .*\n", "", samples()[name].decode(errors="replace"))
