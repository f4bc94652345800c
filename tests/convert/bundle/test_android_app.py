"""The Android project that a bundle becomes; its Kotlin, where a compiler is there."""

import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from convert.bundle import android_app
from convert.bundle.android_app import ASSETS, PROJECT, VECTORS, Picture
from convert.settings import Precision, Quantization
from convert.verification import runner
from keras_models.accuracy import probabilities
from keras_models.images import decode
from keras_models.images.decode import Preprocessing
from shufflelite.errors import InputError
from tests.convert.accuracy.colours import write_bundle
from tests.tflite_file.test_metadata import METADATA
from tflite_file import metadata
from tflite_file.io_ops import append_softmax

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

NAMES = tuple(f"class {i}" for i in range(10))
CODE = "app/src/main/kotlin/org/shufflelite/app"
Ends = Literal["int8", "uint8", "float32"]
Files = Callable[[Quantization], bytes]


def make_app(
    folder: Path,
    files: Files,
    *,
    ends: Ends = "int8",
    preprocessing: Preprocessing | None = None,
    scores: bool = False,
    app: Path | None = None,
) -> Path:
    """An app of the small toy, whose pictures have 16 x 16 pixels."""
    file = files(Quantization(precision=Precision.INT8, io_dtype=ends))
    if scores:
        file = metadata.add(append_softmax(file), METADATA)
    preprocessing = preprocessing or Preprocessing()
    bundle = folder / "bundle"
    write_bundle(bundle, file, precision="int8", names=NAMES, preprocessing=preprocessing)
    app = app or folder / "app"
    android_app.write(app, bundle)
    return app


def contents(folder: Path) -> Mapping[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def properties(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return {key: value for key, _, value in (line.partition("=") for line in lines)}


def test_an_app_is_the_project_with_the_bundle_and_vectors(tmp_path: Path, files: Files) -> None:
    made = contents(make_app(tmp_path, files))
    project = contents(PROJECT)
    assert made["README.md"] != project.pop("README.md")
    assert {name: made[name] for name in project} == project
    added = {name for name in made if name not in project}
    bundle = {f"{ASSETS}/{name}" for name in ("model.tflite", "labels.txt", "network.properties")}
    assert bundle <= added
    assert all(name.startswith(f"{VECTORS}/") for name in added - bundle - {"README.md"})
    for name in ("model.tflite", "labels.txt"):
        assert made[f"{ASSETS}/{name}"] == (tmp_path / "bundle" / name).read_bytes()


def test_vectors_are_what_the_file_answers_to_the_pictures(tmp_path: Path, files: Files) -> None:
    seen = Preprocessing((120.0, 110.0, 100.0), (60.0, 70.0, 80.0), "bgr", 0.8, "bicubic")
    app = make_app(tmp_path, files, preprocessing=seen)
    classify = runner.classifier_of((app / ASSETS / "model.tflite").read_bytes(), seen)
    for name, drawn in android_app.PICTURES.items():
        vector = app / VECTORS / name
        expected = properties(vector / "expected.properties")
        shape = int(expected["height"]), int(expected["width"]), 4
        argb = np.fromfile(vector / "argb", np.uint8).reshape(shape)
        image = Image.fromarray(argb[..., [1, 2, 3, 0]])
        page = Image.new("RGBA", image.size, "white")
        seen_rgb = Image.alpha_composite(page, image).convert("RGB")
        turns = {1: 0, 3: 180, 6: 270, 8: 90}
        if drawn.orientation == 7:
            seen_rgb = seen_rgb.transpose(Image.Transpose.TRANSVERSE)
        else:
            seen_rgb = seen_rgb.rotate(turns[drawn.orientation], expand=True)
        pixels = decode.resize_and_crop(seen_rgb, resolution=16, preprocessing=seen)
        scores = probabilities(classify(pixels[None])[0])
        assert [int(n) for n in expected["classes"].split(",")] == list(
            np.argsort(-scores, kind="stable")[:5]
        )
        np.testing.assert_allclose(
            [float(n) for n in expected["scores"].split(",")], np.sort(scores)[::-1][:5], atol=1e-6
        )


def test_scores_of_a_file_that_gives_them_are_its_own(tmp_path: Path, files: Files) -> None:
    app = make_app(tmp_path, files, ends="float32", scores=True)
    assert properties(app / ASSETS / android_app.NETWORK)["gives_scores"] == "true"
    for name in android_app.PICTURES:
        expected = properties(app / VECTORS / name / "expected.properties")
        output = np.fromfile(app / VECTORS / name / "output", np.float32)
        assert output.sum() == pytest.approx(1, abs=1e-5)
        scores = [float(score) for score in expected["scores"].split(",")]
        np.testing.assert_allclose(scores, np.sort(output)[::-1][:5])


def test_in_an_app_that_is_there_only_the_bundle_is_replaced(tmp_path: Path, files: Files) -> None:
    app = make_app(tmp_path / "first", files, ends="int8")
    own = {f"{CODE}/MainActivity.kt": b"mine", "notes.txt": b"mine", f"{ASSETS}/../a.png": b"mine"}
    for name, content in own.items():
        (app / name).write_bytes(content)
    before = contents(app)
    make_app(tmp_path / "second", files, ends="uint8", app=app)
    after = contents(app)
    assert before.keys() == after.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert f"{ASSETS}/model.tflite" in changed
    assert all(name.startswith((ASSETS, VECTORS)) for name in changed)
    fresh = contents(make_app(tmp_path / "third", files, ends="uint8"))
    assert {name: after[name] for name in changed} == {name: fresh[name] for name in changed}


def test_the_readme_is_about_the_network_of_the_app(tmp_path: Path, files: Files) -> None:
    app = make_app(tmp_path, files)
    first, second = tmp_path / "bundle", tmp_path / "second_net"
    readme = (app / "README.md").read_text()
    assert readme.startswith("# An Android app with bundle\n\n")
    assert "`bundle`: 10 classes, pictures of 16 x 16 pixels" in readme
    assert "DIR" not in readme
    shutil.copytree(first, second)
    android_app.write(app, second)
    assert (app / "README.md").read_text() == readme.replace(
        "with bundle", "with second_net"
    ).replace("`bundle`", "`second_net`")
    (app / "README.md").write_text("mine")
    android_app.write(app, first)
    assert (app / "README.md").read_text() == "mine"


def test_a_bundle_without_class_names_takes_those_of_the_one_before_away(
    tmp_path: Path, files: Files
) -> None:
    app = make_app(tmp_path, files)
    (tmp_path / "bundle" / "labels.txt").unlink()
    android_app.write(app, tmp_path / "bundle")
    assert sorted(path.name for path in (app / ASSETS).iterdir()) == [
        "model.tflite",
        "network.properties",
    ]


@pytest.mark.parametrize("place", ["thesis", "thesis/text.tex", "bundle", "bundle/app", "."])
def test_what_is_no_app_is_left_alone(place: str, tmp_path: Path, files: Files) -> None:
    make_app(tmp_path, files)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text.tex").write_text("years of work")
    before = contents(tmp_path)
    for call in (android_app.check, android_app.write):
        with pytest.raises(InputError, match=r"^Expected --android_app [^\n]*$"):
            call(tmp_path / place, tmp_path / "bundle")
    assert contents(tmp_path) == before


def test_an_empty_folder_becomes_an_app(tmp_path: Path, files: Files) -> None:
    (tmp_path / "app").mkdir()
    assert (make_app(tmp_path, files) / "settings.gradle.kts").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["app", "bundle"]


def test_clutter_of_builds_is_not_copied(
    tmp_path: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    shutil.copytree(PROJECT, project)
    for name in (".gradle/cache.bin", "app/build/app.apk", "local.properties"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_bytes(b"clutter")
    monkeypatch.setattr(android_app, "PROJECT", project)
    made = contents(make_app(tmp_path, files))
    assert b"clutter" not in made.values()
    assert "app/build.gradle.kts" in made


def test_kotlin_reads_the_facts_that_are_written(tmp_path: Path, files: Files) -> None:
    app = make_app(tmp_path, files)
    code = (PROJECT / CODE / "Network.kt").read_text(encoding="utf-8")
    read = set(re.findall(r'(?:text|numbers)\("(\w+)"\)', code))
    ends = set(re.findall(r'tensor\("(\w+)"\)', code))
    parts = set(re.findall(r"\$name\.(\w+)", code))
    read |= {f"{end}.{part}" for end in ends for part in parts}
    assert read == properties(app / ASSETS / android_app.NETWORK).keys()


def test_the_project_s_files_are_well_formed_and_name_what_there_is() -> None:
    for path in PROJECT.rglob("*.xml"):
        ET.parse(path)
    catalog = tomllib.loads((PROJECT / "gradle/libs.versions.toml").read_text(encoding="utf-8"))
    entries = {**catalog["libraries"], **catalog["plugins"]}
    assert {entry["version"]["ref"] for entry in entries.values()} == catalog["versions"].keys()
    scripts = "".join(path.read_text(encoding="utf-8") for path in PROJECT.rglob("*.gradle.kts"))
    used = set(re.findall(r"libs\.([\w.]+)", scripts))
    named = set(catalog["libraries"]) | {f"plugins.{name}" for name in catalog["plugins"]}
    assert used == {name.replace("-", ".") for name in named}
    main = PROJECT / "app/src/main"
    resources = {
        *(f"layout.{path.stem}" for path in (main / "res/layout").iterdir()),
        *re.findall(r'@\+(id/\w+)"', (main / "res/layout/main.xml").read_text(encoding="utf-8")),
    }
    code = "".join(path.read_text(encoding="utf-8") for path in (PROJECT / CODE).iterdir())
    referenced = {f"{kind}.{name}" for kind, name in re.findall(r"\bR\.(\w+)\.(\w+)", code)}
    assert referenced == {name.replace("/", ".") for name in resources}
    strings = {s.get("name") for s in ET.parse(main / "res/values/strings.xml").getroot()}
    xml = "".join(path.read_text(encoding="utf-8") for path in main.rglob("*.xml"))
    assert set(re.findall(r"@string/(\w+)", xml)) == strings


# The app's unit test, run where there are a JDK and a Kotlin compiler.

MAIN = """
package org.junit

annotation class Test // all that the app's test has of JUnit

fun main() {
    val test = Class.forName("org.shufflelite.app.VectorsTest")
    val methods = test.methods.filter { it.isAnnotationPresent(Test::class.java) }
    for (method in methods) {
        try {
            method.invoke(test.getDeclaredConstructor().newInstance())
            println("passed: ${method.name}")
        } catch (error: java.lang.reflect.InvocationTargetException) {
            println("failed: ${method.name}: ${error.cause}")
        }
    }
}
"""
UNIT_TESTS = {
    "the vectors are there, and of this network",
    "a picture becomes the same input, byte for byte",
    "an output gives the same classes and scores",
}
WITHOUT_ANDROID = ("Network", "Picture", "Resize", "Values")


def kotlin_home() -> Path | None:
    """The folder of a Kotlin compiler: KOTLIN_HOME, or that of `kotlinc`."""
    found = shutil.which("kotlinc")
    named = os.environ.get("KOTLIN_HOME") or (found and Path(found).resolve().parents[1])
    return Path(named) if named and Path(named, "lib/kotlin-compiler.jar").is_file() else None


KOTLIN = kotlin_home()
needs_kotlin = pytest.mark.skipif(
    KOTLIN is None or shutil.which("java") is None,
    reason="the app's own code needs java, and kotlinc or KOTLIN_HOME",
)


@pytest.fixture(scope="module")
def unit_test(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], list[str]]:
    """Runs the app's unit test in an app; its lines."""
    assert KOTLIN is not None
    folder = tmp_path_factory.mktemp("classes")
    (folder / "Main.kt").write_text(MAIN)
    library = KOTLIN / "lib" / "kotlin-stdlib.jar"
    sources = [PROJECT / CODE / f"{name}.kt" for name in WITHOUT_ANDROID]
    sources += [*(PROJECT / "app/src/test/kotlin").rglob("*.kt"), folder / "Main.kt"]
    words = ["-Werror", "-no-stdlib", "-no-reflect", "-cp", library, "-d", folder, *sources]
    compiler = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"
    subprocess.run(
        ["java", "-cp", KOTLIN / "lib" / "*", compiler, *words], check=True, timeout=1200
    )

    def run(app: Path) -> list[str]:
        ran = subprocess.run(
            ["java", "-cp", f"{folder}:{library}", "org.junit.MainKt"],
            cwd=app / "app",
            capture_output=True,
            text=True,
            check=True,
            timeout=1200,
        )
        return ran.stdout.splitlines()

    return run


def draw(count: int, *, seed: int) -> dict[str, Picture]:
    """Pictures of a twentieth to eight times the network's side, in all orientations."""
    rng = np.random.default_rng(seed)
    return {
        f"{i}": Picture(
            *np.exp(rng.uniform(np.log(0.05), np.log(8.0), 2)),
            orientation=i % 8 + 1,
            transparent=i % 3 == 0,
        )
        for i in range(count)
    }


@needs_kotlin
@pytest.mark.slow
@pytest.mark.parametrize("ends", ["int8", "uint8", "float32"])
@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(),
        Preprocessing((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "bgr", 0.8, "bicubic"),
        Preprocessing((0.0, 0.0, 0.0), (255.0, 255.0, 255.0), crop_fraction=1.0),
    ],
)
def test_the_app_computes_what_convert_does(
    ends: Ends,
    preprocessing: Preprocessing,
    tmp_path: Path,
    files: Files,
    unit_test: Callable[[Path], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(android_app, "PICTURES", draw(64, seed=0))
    app = make_app(tmp_path, files, ends=ends, preprocessing=preprocessing)
    assert set(unit_test(app)) == {f"passed: {name}" for name in UNIT_TESTS}


@needs_kotlin
@pytest.mark.slow
def test_the_app_knows_a_file_that_gives_scores(
    tmp_path: Path, files: Files, unit_test: Callable[[Path], list[str]]
) -> None:
    app = make_app(tmp_path, files, ends="uint8", scores=True)
    assert set(unit_test(app)) == {f"passed: {name}" for name in UNIT_TESTS}


@needs_kotlin
@pytest.mark.slow
def test_the_app_s_unit_test_notices_a_byte_and_a_score(
    tmp_path: Path, files: Files, unit_test: Callable[[Path], list[str]]
) -> None:
    app = make_app(tmp_path, files)
    vector = app / VECTORS / "landscape"
    stored = bytearray((vector / "input").read_bytes())
    stored[-1] ^= 1
    (vector / "input").write_bytes(stored)
    expected = vector / "expected.properties"
    expected.write_text(expected.read_text().replace("scores=0.", "scores=0.9"))
    failed = [line for line in unit_test(app) if line.startswith("failed: ")]
    assert len(failed) == 2
    assert any("1 of 768 bytes differ" in line for line in failed)
