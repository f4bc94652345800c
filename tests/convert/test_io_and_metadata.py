"""How files begin and end for apps: pixels in, scores out, and what clients make of both."""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from convert import classify, export, pipeline
from convert.accuracy import models
from convert.calibration_data import Inputs
from convert.conversion import resolve
from convert.io_and_metadata import add_io_and_metadata, compatible_readers
from convert.lowering import lower
from convert.network import LoadedNetwork, WeightsOrigin, create
from convert.quantization import quantize
from convert.resolve_model import complete
from convert.settings import ConversionSettings, Model, Precision, Quantization, Verification
from convert.tflite_model import TfliteModel
from convert.verification import runner, verify
from keras_models import accuracy, registry
from keras_models.checkpoints import bundled, native
from keras_models.checkpoints.load import model_arrays
from keras_models.checkpoints.random_weights import randomize
from keras_models.images import decode
from keras_models.images.decode import Preprocessing
from shufflelite.progress import Progress
from tests.convert.accuracy.colours import write_bundle
from tests.tflite_file import client
from tflite_file import io_ops

pytestmark = pytest.mark.usefixtures("tensorflow_as_it_was")

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.png"))
TORCH = Preprocessing((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
BGR = Preprocessing((0.0,) * 3, (1.0,) * 3, "bgr")
INT8 = Quantization(precision=Precision.INT8)
IO = [dataclasses.replace(INT8, io_dtype=dtype) for dtype in ("int8", "uint8", "float32")]
FLOAT = [
    Quantization(precision=precision)
    for precision in (Precision.FLOAT32, Precision.FLOAT16, Precision.DYNAMIC, Precision.INT16X8)
]


def outputs(data: bytes, inputs: np.ndarray) -> np.ndarray:
    """What a file gives for inputs as it takes them, dequantized."""
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    source, result = runner.io_tensors(interpreter)
    found = []
    for x in inputs:
        interpreter.set_tensor(source.index, x[None])
        interpreter.invoke()
        values = interpreter.get_tensor(result.index)[0]
        found.append(runner.dequantize(values, result.scale, result.zero_point))
    return np.stack(found)


def load(files: Sequence[Path], seen: Preprocessing) -> np.ndarray:
    return np.stack(
        [decode.load_picture(file, resolution=32, preprocessing=seen) for file in files]
    )


def describe(settings: Quantization) -> str:
    return f"{settings.precision.value}-{settings.io_dtype}"


def softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return odds / odds.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("settings", [*IO, *FLOAT], ids=describe)
def test_probabilities_are_the_softmax_of_the_logits(
    settings: Quantization, files: Callable[[Quantization], bytes], fresh: Inputs
) -> None:
    plain = files(settings)
    (dtype,) = {runner.io_tensors(runner.load(plain))[0].dtype}
    x = fresh.values if dtype != "int8" else (fresh.values.astype(int) - 128).astype(np.int8)
    x = next(fresh.batches(len(fresh))) if dtype == "float32" else x
    expected = softmax(outputs(plain, x))
    given = io_ops.append_softmax(plain)
    found = outputs(given, x)
    result = runner.io_tensors(runner.load(given))[1]
    if result.dtype == "float32":
        np.testing.assert_allclose(found, expected, atol=1e-6)
    else:  # half a step, and the kernel's own table
        assert result.scale == 1 / 256
        np.testing.assert_allclose(found, expected, atol=0.6 / 256)
    audit = verify.audit(given)
    before = verify.audit(plain)
    assert audit.delegate_partitions == (before.delegate_partitions or 1)  # of int16: this one
    assert audit.loads_in_tflite_runtime in (True, None)
    assert list(Interpreter(model_content=given).get_signature_list().values()) == [
        {"inputs": ["image"], "outputs": ["probability"]}
    ]


@pytest.mark.parametrize(
    ("seen", "settings"),
    [
        *((TORCH, settings) for settings in (*IO, FLOAT[0], FLOAT[-1])),
        (BGR, IO[1]),
        (BGR, FLOAT[0]),
    ],
)
def test_a_file_that_takes_pixels_gives_what_it_gave_for_its_own_inputs(
    seen: Preprocessing, settings: Quantization, small: Any, pictures: Callable[..., np.ndarray]
) -> None:
    inputs = Inputs("pictures", pictures(20, 16, seed=3), seen)
    ready = quantize.apply(small.deployed, inputs, settings, seen)
    plain = export.to_tflite(ready, settings, inputs)
    source = runner.io_tensors(runner.load(plain))[0]
    expected = outputs(plain, runner.quantize(next(inputs.batches(20)), source))
    changed = io_ops.prepend_normalization(
        plain, seen.mean, seen.std, reverse=seen.channel_order == "bgr"
    )
    least = {"int8": -128, "uint8": 0, "float32": 0}[source.dtype]
    pixels = (inputs.values.astype(int) + least).astype(source.dtype)
    found = outputs(changed, pixels)
    if settings.precision is Precision.INT8:  # a pixel in the middle between two steps goes on
        assert np.mean(found == expected) > 0.8  # either side
    assert verify.sqnr_db(expected, found) > 30
    audit = verify.audit(changed)
    before = verify.audit(plain)
    assert audit.delegate_partitions == (before.delegate_partitions or 1)  # of int16: this one
    assert audit.requantizations == before.requantizations
    assert audit.loads_in_tflite_runtime in (True, None)
    if settings.precision is Precision.INT8:
        assert audit.float_operators == {}


@functools.cache
def bundled_network(name: str) -> tuple[Model, LoadedNetwork, Any, Any, Inputs]:
    """A bundled network, its deployment form, float and fake-quantized, and pictures for it."""
    model = complete(Model(name, weights="bundled"))
    network = create(model, seed=0, warn=pytest.fail)
    deployed, seen = lower(network.model, integer=True), network.preprocessing
    inputs = Inputs("examples", load(EXAMPLES, seen), seen)
    calibrated = quantize.calibrate(deployed, inputs, INT8, seen)
    ready = quantize.fake_quantize(calibrated.rounded, calibrated.ranges)
    return model, network, deployed, ready, inputs


@functools.cache
def exported(name: str, ends: tuple[str, str], precision: Precision) -> bytes:
    """The file of a bundled network, from its input to logits."""
    _, _, deployed, ready, inputs = bundled_network(name)
    form = ready if precision is Precision.INT8 else deployed
    scores = ends == ("uint8", "float32")
    io_dtype = None if scores or precision is Precision.FLOAT32 else ends[0]
    settings = Quantization(precision=precision, io_dtype=io_dtype, scores=scores)
    assert settings.io_dtypes == ends
    return export.to_tflite(form, settings, inputs)


@pytest.mark.slow
@pytest.mark.skipif(len(bundled.every()) < 2, reason="no bundled weights")
@pytest.mark.parametrize(
    ("name", "settings", "scores"),
    [
        *(("shufflenet_v2", settings, scores) for settings in IO for scores in (False, True)),
        ("shufflenet_v2", INT8, True),
        ("shufflenet_v2", Quantization(), True),
        ("augshufflenet", INT8, True),
    ],
)
def test_a_client_that_knows_the_rules_alone_classifies_as_we_do(
    name: str, settings: Quantization, scores: bool, tmp_path: Path
) -> None:
    model, network, deployed, _, _ = bundled_network(name)
    settings = dataclasses.replace(settings, scores=scores)
    plain = exported(name, settings.io_dtypes, settings.precision)
    made = TfliteModel(plain, network.preprocessing, deployed)
    names = network.class_names
    assert names
    file = add_io_and_metadata(made, network, names, ConversionSettings(model, settings))
    path = write_bundle(tmp_path / "x", file.data, names=names, preprocessing=file.preprocessing)
    (form,) = models.read_all([str(path)])
    assert form.gives_scores is scores
    assert len(EXAMPLES) == 10
    answers = classify.classify(form, EXAMPLES)
    (path.parent.parent / "alone.tflite").write_bytes(file.data)
    (alone,) = models.read_all([str(path.parent.parent / "alone.tflite")])
    assert (alone.class_names, alone.gives_scores) == (names, scores)
    assert classify.classify(alone, EXAMPLES) == answers
    ours = form.make()(load(EXAMPLES, file.preprocessing))
    for picture, answer, logits in zip(EXAMPLES, answers, ours, strict=True):
        with Image.open(picture) as image:
            theirs = client.classify(file.data, image)
        assert theirs[0] == (answer.label, pytest.approx(answer.score / 100, abs=1 / 256))
        expected = np.exp(logits) if scores else softmax(logits)
        of_class = dict(theirs)
        np.testing.assert_allclose([of_class[name] for name in names], expected, atol=1 / 256)
        best = [names[i] for i in np.argsort(-logits, kind="stable")[:5]]
        assert [label for label, _ in theirs[:5]] == best


def of(weights: WeightsOrigin, seen: Preprocessing) -> LoadedNetwork:
    return LoadedNetwork(None, {}, seen, weights, None, 0, 0)


OURS = Model("mobilenet_v1", {"width": 0.25}, resolution=16, num_classes=10, weights="bundled")


@pytest.mark.parametrize("seen", [Preprocessing(), TORCH, BGR], ids=["alike", "torch", "bgr"])
@pytest.mark.parametrize("settings", IO, ids=describe)
def test_readers_are_told_that_it_is_rgb_where_they_are_right(
    seen: Preprocessing, settings: Quantization, small: Any, files: Callable[[Quantization], bytes]
) -> None:
    """They put pixels into uint8 inputs as they are: what scales channels by itself is refused."""
    made = TfliteModel(files(settings), seen, small.deployed)
    file = add_io_and_metadata(
        made, of(WeightsOrigin("random"), seen), None, ConversionSettings(OURS, settings)
    )
    told = client.metadata(file.data)
    assert (told.content, told.size, told.labels) == (2, (16, 16), None)
    assert told.outputs == ("logits",)
    assert told.mean == pytest.approx(seen.mean)
    assert told.std == pytest.approx(seen.std)
    unsaid = seen is BGR or (seen is TORCH and settings.io_dtype == "uint8")
    assert told.colours == (0 if unsaid else 1)
    assert file.preprocessing == seen


@pytest.mark.parametrize("seen", [Preprocessing(), TORCH, BGR], ids=["alike", "torch", "bgr"])
def test_a_file_of_scores_takes_rgb_that_is_scaled_alike(
    seen: Preprocessing, small: Any, files: Callable[[Quantization], bytes]
) -> None:
    settings = dataclasses.replace(INT8, scores=True)
    made = TfliteModel(files(settings), seen, small.deployed)
    names = tuple("abcdefghij")
    network = of(WeightsOrigin("bundled", "shufflelite", "ab" * 32), seen)
    file = add_io_and_metadata(made, network, names, ConversionSettings(OURS, settings))
    told = client.metadata(file.data)
    assert (told.colours, told.outputs, told.labels) == (1, ("probability",), names)
    assert len({*told.mean}) == len({*told.std}) == 1
    assert told.mean == pytest.approx(file.preprocessing.mean)
    assert file.preprocessing.crop_fraction == seen.crop_fraction
    audit = verify.audit(file.data)
    assert (audit.input.dtype, audit.output.dtype) == ("uint8", "float32")
    assert told.texts["license"] == "Apache-2.0"
    assert told.texts["author"] == "ShuffleLite"
    assert told.texts["name"] == "mobilenet_v1 width=0.25, 16 x 16, 10 classes"
    assert re.search("arxiv.org/abs/1704.04861.*bundled.* SHA-256 abab", told.texts["description"])


def test_foreign_weights_are_told_without_the_path_and_without_a_license(
    small: Any, files: Callable[[Quantization], bytes]
) -> None:
    seen = Preprocessing()
    network = of(WeightsOrigin("/home/me/weights.pth", "torchvision", "cd" * 32), seen)
    made = TfliteModel(files(INT8), seen, small.deployed)
    file = add_io_and_metadata(made, network, None, ConversionSettings(OURS, INT8))
    told = client.metadata(file.data).texts
    assert told["license"] is None
    assert "Weights: a file, of torchvision, SHA-256 cdcd" in told["description"]
    assert b"/home/me" not in file.data


@pytest.mark.parametrize(
    ("source", "result", "seen", "scores", "words"),
    [
        ("int8", "int8", Preprocessing(), False, "refuse int8 inputs and outputs: pass --scores"),
        (
            "int8",
            "int8",
            Preprocessing(),
            True,
            "refuse int8 inputs and outputs: leave --io_dtype out",
        ),
        ("uint8", "uint8", TORCH, False, "refuse it: they feed RGB and scale all channels alike"),
        ("float32", "float32", BGR, False, "refuse it: they feed RGB"),
        ("float32", "float32", TORCH, False, "MediaPipe Tasks refuses it: it scales"),
        ("uint8", "uint8", Preprocessing(), False, "accept it, but show logits as scores: pass"),
        ("uint8", "float32", Preprocessing(), True, "accept it as it is"),
    ],
)
def test_the_report_says_who_takes_the_file(
    source: str, result: str, seen: Preprocessing, scores: bool, words: str
) -> None:
    assert words in compatible_readers(source, result, seen, scores=scores)


def test_the_loss_of_a_file_of_scores_is_that_of_its_logits(
    small: Any, fresh: Inputs, files: Callable[[Quantization], bytes], tmp_path: Path
) -> None:
    found = {}
    for scores in (False, True):
        settings = Quantization(scores=scores)
        made = TfliteModel(files(Quantization()), Preprocessing(), small.deployed)
        file = add_io_and_metadata(
            made,
            of(WeightsOrigin("random"), Preprocessing()),
            None,
            ConversionSettings(OURS, settings),
        )
        path = write_bundle(tmp_path / f"{scores}", file.data, preprocessing=file.preprocessing)
        (form,) = models.read_all([str(path)])
        found[scores] = accuracy.judge(form.make()(fresh.values), np.arange(40) % 10)
    np.testing.assert_allclose(found[True].losses, found[False].losses, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found[True].ranks, found[False].ranks)


@pytest.mark.slow
def test_a_conversion_to_scores_ends_in_a_bundle_that_classifies(
    tmp_path: Path, pictures: Callable[..., np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, pixels in enumerate(pictures(6, 64, seed=5)):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    options = {"width": 0.25, "stem": "cifar"}
    network = registry.create("mobilenet_v1", input_shape=(32, 32, 3), num_classes=3, **options)
    randomize(network, seed=0)
    seen = dataclasses.replace(TORCH, channel_order="bgr", crop_fraction=0.8)
    told = native.Trained("mobilenet_v1", options, 32, 3, ("a", "b", "c"), seen, {})
    native.save(tmp_path / "w.safetensors", model_arrays(network), told)
    answers = {}
    for precision, name in ((Precision.FLOAT32, "float32"), (Precision.INT8, "int8")):
        quantization = Quantization(precision=precision, scores=True, calibration=str(folder))
        settings = ConversionSettings(
            Model("mobilenet_v1", weights=str(tmp_path / "w.safetensors")),
            quantization,
            Verification(min_sqnr_db=10.0),
            out=str(tmp_path / "out"),
        )
        place, report = pipeline.run(resolve(settings), Progress("test"))
        assert place.name == f"mobilenet_v1_x0.25_cifar_32_{name}_scores"
        assert report.passed  # of the logits
        assert report.audit.delegate_partitions == 1
        assert "accept it as it is |" in (place / "README.md").read_text()
        assert "val scores = classifier.classify(argb)" in (place / "README.md").read_text()
        (form,) = models.read_all([str(place / "model.tflite")])
        assert client.metadata((place / "model.tflite").read_bytes()).colours == 1
        answers[name] = classify.classify(form, sorted(folder.iterdir()))
    shown = np.stack(
        [
            decode.load_picture(f, resolution=32, preprocessing=seen)
            for f in sorted(folder.iterdir())
        ]
    )
    expected = softmax(network(seen.to_input(shown), training=False).numpy())
    for i, (one, other) in enumerate(zip(answers["float32"], answers["int8"], strict=True)):
        assert one.label == "abc"[expected[i].argmax()]
        assert one.score == pytest.approx(100 * expected[i].max(), abs=0.01)
        assert other.score == pytest.approx(one.score, abs=10)
