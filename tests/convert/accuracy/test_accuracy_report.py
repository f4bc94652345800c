"""What a measurement of accuracy tells, for machines and for people."""

import dataclasses
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image

from convert.accuracy import confusion, models, outputs, report, run
from convert.accuracy.report import AccuracyReport
from shufflelite.errors import InputError
from shufflelite.progress import Progress
from tests.convert.accuracy.colours import write_bundle


@pytest.fixture
def measured(
    tmp_path: Path,
    colours: Path,
    colour_files: Mapping[str, bytes],
    colour_weights: Callable[..., Path],
) -> AccuracyReport:
    files = [write_bundle(tmp_path / kind, data) for kind, data in colour_files.items()]
    words = [str(colour_weights("right")), *map(str, files)]
    return run.run(
        models.read_all(words),
        str(colours),
        threads=1,
        in_memory_gb=1.0,
        seed=0,
        progress=Progress("test"),
    )


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that become files."""
    figures: list[Figure] = []
    savefig = Figure.savefig

    def remember(self: Figure, *args: Any, **kwargs: Any) -> None:
        figures.append(self)
        savefig(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", remember)
    return figures


def test_json_holds_all_and_is_the_same_again(measured: AccuracyReport) -> None:
    text = report.to_json(measured)
    assert text == report.to_json(measured)
    told = json.loads(text, parse_constant=pytest.fail)  # NaN and Infinity are not JSON
    weights, right, red_only, nan = told["forms"]
    assert (told["schema"], told["pictures"], told["classes"]) == (1, 10, 3)
    assert told["class_names"] == ["red", "green", "blue"]
    assert weights["accuracy"]["top1"] == 80
    assert weights["confusion"] == [[0, 0, 3], [0, 2, 1], [1, 1, 3], [2, 1, 1], [2, 2, 2]]
    assert weights["difference"] is None
    assert right["difference"]["agreement"] == 100
    assert red_only["difference"]["points"] == -40
    assert (nan["accuracy"]["loss"], nan["undecided"], nan["confusion"]) == (None, 10, [])
    assert "      [2, 1, 1],\n" not in text.replace("        [2, 1, 1],\n", "")
    assert "        [2, 1, 1],\n" in text  # a line for each entry


def test_json_keeps_names_that_look_like_lists(measured: AccuracyReport) -> None:
    odd = dataclasses.replace(measured, data="[1,  2]", class_names=("[ 3 ]", "a|b", "é"))
    told = json.loads(report.to_json(odd))
    assert (told["data"], told["class_names"]) == ("[1,  2]", ["[ 3 ]", "a|b", "é"])


def test_the_table_is_read_by_people(measured: AccuracyReport) -> None:
    stream = io.StringIO()
    report.print_table(measured, file=stream)
    heading, *rows, foot = stream.getvalue().splitlines()
    headings = (
        "model runtime precision I/O dtype top-1 % loss difference agreement with first % undecided"
    )
    assert " ".join(heading.split()) == headings
    assert rows[0].split()[:5] == ["right.safetensors", "Keras", "float32", "float32", "80.00"]
    assert "-40.00 (" in rows[2]
    assert rows[3].split()[-1] == "10"
    assert foot.startswith("10 pictures of 3 classes: ")
    stream = io.StringIO()
    report.print_table(dataclasses.replace(measured, classes=6), file=stream)
    assert " top-5 % " in stream.getvalue()


def test_markdown_names_what_is_confused_and_the_pictures(measured: AccuracyReport) -> None:
    odd = dataclasses.replace(measured, class_names=("a|b", "green", "blue"))
    lines = report.to_markdown(odd, pictures=["1.png", "2.png", "3.png", "4.png"]).splitlines()
    assert r"| a\|b | blue | 1 | 1 | 0 | 0 |" in lines
    assert "| blue | green | 1 | 1 | 0 | 0 |" in lines
    assert "![Confusions of red_only](3.png)" in lines


def test_all_is_written_whole_and_pictures_are_the_same_again(
    measured: AccuracyReport, tmp_path: Path
) -> None:
    folder = tmp_path / "out" / "deep"
    outputs.check(folder)
    written = outputs.write(folder, measured)
    assert sorted(folder.iterdir()) == sorted(written)
    assert [path.name for path in written] == [
        "accuracy.json",
        "accuracy.md",
        "confusion_1_right.safetensors.png",
        "confusion_2_right.png",
        "confusion_3_red_only.png",
        "confusion_4_nan.png",
    ]
    assert (folder / "accuracy.json").read_text() == report.to_json(measured)
    for path in written[2:]:
        assert path.name in (folder / "accuracy.md").read_text()
        with Image.open(path) as image:
            assert image.width == 1660
    before = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in outputs.write(folder, measured)] == before
    with pytest.raises(InputError, match=r"^--out: .*accuracy\.json cannot be written in: "):
        outputs.check(folder / "accuracy.json")


def test_few_classes_are_cells_with_percentages(
    measured: AccuracyReport, drawn: list[Figure]
) -> None:
    confusion.picture(measured, measured.forms[0])
    (axes,) = drawn[0].axes
    cells = {
        (text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts
    }
    found = {at: text for at, text in cells.items() if text.isdigit()}
    assert found == {(0, 0): "75", (0, 2): "25", (1, 1): "100", (2, 1): "33", (2, 2): "67"}
    assert any("80.00 %" in text for text in cells.values())
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["red", "green", "blue"]
    (image,) = [child for child in axes.get_children() if isinstance(child, AxesImage)]
    colours = np.asarray(image.get_array())
    assert colours[1, 1, 2] > colours[1, 1, 0]  # right is blue
    assert colours[0, 2, 0] > colours[0, 2, 2]  # wrong is orange
    np.testing.assert_allclose(colours[1, 0], 1)  # nothing is white


def test_many_classes_are_dots_and_a_list_of_the_worst(
    measured: AccuracyReport, drawn: list[Figure]
) -> None:
    right = [(i, i, 10) for i in range(1000)]
    wrong = [(i, (7 * i) % 1000, 1 + i % 3) for i in range(1, 1000) if i * 6 % 1000]
    form = dataclasses.replace(
        measured.forms[0], confusion=tuple(sorted([*right, *wrong, (3, 500, 40), (9, 2, 30)]))
    )
    names = tuple(f"class {i} of a thousand, at length" for i in range(1000))
    many = dataclasses.replace(measured, classes=1000, class_names=names)
    confusion.picture(many, form)
    axes, beside = drawn[0].axes
    (dots,) = [child for child in axes.get_children() if isinstance(child, PathCollection)]
    assert len(dots.get_offsets()) == len(wrong) + 2
    listed = [text.get_text() for text in beside.texts]
    assert len(listed) == 3 * confusion.LINES
    assert listed[:3] == ["class 3 of a thousand…", "class 500 of a thousa…", "40 of 51"]
    assert listed[5] == "30 of 41"


def test_a_model_without_any_confusion_is_drawn(measured: AccuracyReport) -> None:
    for classes in (3, 1000):
        report_of = dataclasses.replace(measured, classes=classes, class_names=None)
        for entries in ((), ((1, 1, 5),)):
            form = dataclasses.replace(measured.forms[0], confusion=entries)
            assert confusion.picture(report_of, form)[:4] == b"\x89PNG"
