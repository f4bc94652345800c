"""The code of cards, compiled and run against a stand-in for the interpreter."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.convert.bundle.card.cases import CASES, CPP, JAVA, KOTLIN, picture
from tests.convert.bundle.test_android_app import KOTLIN as KOTLIN_HOME
from tests.convert.bundle.test_android_app import needs_kotlin

STAND_INS = Path(__file__).parent / "stand_ins"
pytestmark = pytest.mark.slow


def execute(*words: object) -> None:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a picture, and with what each case's network puts out."""
    (tmp_path / "rgb").write_bytes(picture().tobytes())
    alpha = np.full_like(picture()[..., :1], 255)
    (tmp_path / "argb").write_bytes(np.concatenate([alpha, picture()], axis=-1).tobytes())
    for number, case in enumerate(CASES):
        (tmp_path / f"{number}.output").write_bytes(case.output.tobytes())
    return tmp_path


def check(place: Path) -> None:
    """What went in is what `convert` puts in, and what came out is understood, to the bit."""
    for number, case in enumerate(CASES):
        assert (place / f"{number}.input").read_bytes() == case.stored, case
        found = np.fromfile(place / f"{number}.values", np.float32)
        np.testing.assert_array_equal(found, case.values, str(case))


def write_packages(place: Path, template: str, suffix: str, end: str) -> Sequence[Path]:
    files = []
    for number, case in enumerate(CASES):
        files.append(place / f"case{number}" / f"Classifier{suffix}")
        files[-1].parent.mkdir()
        files[-1].write_text(f"package case{number}{end}\n\n{case.code(template)}")
    return files


@pytest.mark.skipif(shutil.which("javac") is None, reason="Java needs javac")
def test_java_feeds_and_reads_what_convert_does(place: Path) -> None:
    files = write_packages(place, JAVA, ".java", ";")
    execute("javac", "-Xlint:all", "-Werror", "-d", place, *STAND_INS.glob("*.java"), *files)
    execute("java", "-cp", place, "Main", place, len(CASES))
    check(place)


@needs_kotlin
@pytest.mark.skipif(shutil.which("javac") is None, reason="the stand-in needs javac")
def test_kotlin_feeds_and_reads_what_convert_does(place: Path) -> None:
    assert KOTLIN_HOME is not None
    files = write_packages(place, KOTLIN, ".kt", "")
    library = KOTLIN_HOME / "lib" / "kotlin-stdlib.jar"
    execute("javac", "-d", place, *STAND_INS.glob("*.java"))
    compiler = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"
    words = ["-Werror", "-no-stdlib", "-no-reflect", "-cp", f"{place}:{library}", "-d", place]
    execute("java", "-cp", KOTLIN_HOME / "lib" / "*", compiler, *words, *files)
    execute("java", "-cp", f"{place}:{library}", "Main", place, len(CASES))
    check(place)


@pytest.mark.skipif(shutil.which("g++") is None, reason="C++ needs g++")
def test_cpp_feeds_and_reads_what_convert_does(place: Path) -> None:
    text, runs = "", []
    for number, case in enumerate(CASES):
        lines = case.code(CPP).splitlines(keepends=True)
        text += "".join(line for line in lines if line.startswith("#"))
        rest = "".join(line for line in lines if not line.startswith("#"))
        text += f"namespace case{number} {{\n{rest}\n}}\n"
        ends = f'"{case.source.dtype}", "{case.result.dtype}", {len(case.stored)}'
        runs.append(f'run<case{number}::Classifier>(folder + "{number}", {ends})')
    (place / "cases.h").write_text(f"{text}#define RUN_ALL {' && '.join(runs)}\n")
    words = ["-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{place}", f"-I{STAND_INS}"]
    execute("g++", *words, STAND_INS / "main.cc", "-o", place / "main")
    execute(place / "main", place)
    check(place)
