"""The card's code: Python's is run, every language has the file's own numbers."""

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from convert.bundle import writer
from convert.bundle.card import render
from convert.bundle.report import ConversionReport
from convert.settings import Precision, Quantization
from convert.verification import runner
from keras_models.images.decode import Preprocessing, load_picture
from tests.convert.bundle.card.cases import (
    ALIKE,
    CASES,
    CLASSES,
    IMAGENET,
    ODD,
    SIDE,
    SWIFT,
    TEMPLATES,
    Case,
)
from tests.convert.bundle.test_writer import make_report
from tflite_file import io_ops

FLOAT = Quantization()
INT8, UINT8, FLOAT_ENDS = (
    Quantization(precision=Precision.INT8, io_dtype=dtype) for dtype in ("int8", "uint8", "float32")
)
SHAPES = ((61, 43, 1), (40, 57, 6), (9, 14, 3))  # width, height, EXIF orientation
Files = Callable[[Quantization], bytes]


def report_of(data: bytes, preprocessing: Preprocessing, *, scores: bool) -> ConversionReport:
    report = make_report(data)
    source, result = runner.io_tensors(runner.load(data))
    quantization = replace(report.settings.quantization, scores=scores)
    return replace(
        report,
        settings=replace(report.settings, quantization=quantization),
        audit=replace(report.audit, input=source, output=result),
        preprocessing=preprocessing,
    )


def code_of(card: Path) -> Mapping[str, str]:
    """Language -> its code in a card."""
    return dict(re.findall(r"^```(\w+)\n(.*?)^```$", card.read_text(), re.MULTILINE | re.DOTALL))


def draw(path: Path, width: int, height: int, orientation: int) -> Path:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(path, exif=exif)
    return path


def run(code: str, folder: Path, picture: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """What the lines of Python make of a picture."""
    names: dict[str, np.ndarray] = {}
    with monkeypatch.context() as there:
        there.chdir(folder)
        there.setattr("sys.argv", ["classify.py", str(picture)])
        exec(code, names)
    return names["scores" if "scores" in names else "logits"]


@pytest.mark.parametrize(
    "settings", [FLOAT, INT8, UINT8, FLOAT_ENDS], ids=["float32", "int8", "uint8", "float_ends"]
)
def test_a_card_s_python_answers_as_the_file_does_here(
    settings: Quantization,
    tmp_path: Path,
    files: Files,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    logits = files(settings)
    for number, (seen, scores) in enumerate(itertools.product((ALIKE, IMAGENET, ODD), (0, 1))):
        data = logits
        if scores:
            reverse = seen.channel_order == "bgr"
            data = io_ops.prepend_normalization(
                io_ops.append_softmax(data), seen.mean, seen.std, reverse=reverse
            )
            seen = replace(seen, mean=(0.0,) * 3, std=(1.0,) * 3, channel_order="rgb")
        folder = tmp_path / str(number)
        writer.write(folder, data, report_of(data, seen, scores=bool(scores)), None)
        picture = draw(tmp_path / "picture.png", *SHAPES[number % len(SHAPES)])
        pixels = load_picture(picture, resolution=SIDE, preprocessing=seen)
        (expected,) = runner.classifier_of(data, seen)(pixels[None])
        code = code_of(folder / "README.md")["python"]
        found = run(code, folder, picture, monkeypatch)
        np.testing.assert_array_equal(found, expected)
        best = expected.argmax()
        assert capsys.readouterr().out.split() == [str(best), str(expected[best])]


@pytest.mark.parametrize("case", CASES)
def test_swift_has_the_numbers_of_the_file(case: Case) -> None:
    code = case.code(SWIFT)
    types = {"int8": "Int8", "uint8": "UInt8", "float32": "Float"}
    source, result = types[case.source.dtype], types[case.result.dtype]
    assert f"[{source}](repeating: 0, count: {SIDE} * {SIDE} * 3)" in code
    assert f"[{result}](repeating: 0, count: {CLASSES})" in code
    assert f"input, {len(case.stored)})" in code
    assert f"&output, {case.output.nbytes})" in code
    (read,) = re.findall(r"output\.map \{ (.*) \}", code)
    if case.result.scale:
        zero, scale = re.fullmatch(r"Float\(Int\(\$0\)( [+-] \d+)?\) \* (\S+)", read).groups()
        assert int((zero or "0").replace(" ", "")) == -case.result.zero_point
        assert np.float32(scale) == np.float32(case.result.scale)
    else:
        assert read == "$0"
    for name in ("mean", "std"):
        for numbers in re.findall(rf"let {name}: \[Float\] = \[(.*)\]", code):
            found = np.array(numbers.split(", "), np.float32)
            np.testing.assert_array_equal(found, np.float32(getattr(case.preprocessing, name)))
    assert ("rgb[i + 2 - 2 * channel]" in code) == (case.preprocessing.channel_order == "bgr")


@pytest.mark.parametrize("template", TEMPLATES)
def test_pixels_go_in_as_they_are_where_all_channels_are_alike(template: str) -> None:
    for case in CASES:
        is_plain = case.preprocessing not in (IMAGENET, ODD) and case.source.scale
        is_plain = is_plain or case.preprocessing.std == (1.0, 1.0, 1.0)
        assert ("mean" in case.code(template)) != is_plain, case


def test_no_line_of_code_is_wider_than_a_page() -> None:
    for template in TEMPLATES:
        for case in CASES:
            for line in case.code(template).splitlines():
                assert len(line) <= 100, line
                assert line == line.rstrip()
    assert {*TEMPLATES, "README.md.j2", "app.md.j2"} == {*render.environment().list_templates()}
