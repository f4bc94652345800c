"""Models of a network: each is recognized, and refused where it is none."""

import dataclasses
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from convert import classify
from convert.accuracy import models
from convert.accuracy.models import EvaluatedModel
from convert.verification import runner
from keras_models.images import decode
from keras_models.images.decode import Preprocessing
from shufflelite.errors import InputError
from tests.convert.accuracy.colours import NAMES, PLAIN, write_bundle
from tests.tflite_file.test_metadata import METADATA
from tflite_file import metadata, serialize
from tflite_file.metadata import Metadata

ROOT = Path(__file__).parents[3]
OTHER = Preprocessing((10.0, 20.0, 30.0), (2.0, 3.0, 4.0))


def read(*paths: Path, labels: Path | None = None, **preprocessing: Any) -> list[EvaluatedModel]:
    return models.read_all(
        list(map(str, paths)), preprocessing=preprocessing, labels=labels and str(labels)
    )


def test_a_bundle_tells_all_of_its_file(tmp_path: Path, colour_files: Mapping[str, bytes]) -> None:
    data = colour_files["right"]
    path = write_bundle(tmp_path / "net_x1", data, names=NAMES, precision="dynamic")
    (form,) = read(path)
    assert (form.name, form.path, form.size_bytes) == ("net_x1", path, len(data))
    assert (form.runtime, form.precision) == ("LiteRT", "dynamic")
    assert (form.input_dtype, form.output_dtype) == ("float32", "float32")
    assert (form.resolution, form.classes, form.class_names) == (8, 3, NAMES)
    assert form.preprocessing == PLAIN
    assert form.sha256 == json.loads((path.parent / "report.json").read_text())["sha256"]


def test_weights_of_a_training_tell_all_of_their_network(
    colour_weights: Callable[..., Path],
) -> None:
    path = colour_weights("right", side=12)
    (form,) = read(path)
    assert (form.name, form.runtime, form.precision) == ("right", "Keras", "float32")
    assert (form.resolution, form.classes, form.class_names) == (12, 3, NAMES)
    logits = form.make()(np.full((1, 12, 12, 3), (3, 9, 6), np.uint8))
    np.testing.assert_allclose(logits, [[3, 9, 6]])


def test_a_file_without_a_report_takes_what_the_flags_say(
    tmp_path: Path, colour_files: Mapping[str, bytes], colour_weights: Callable[..., Path]
) -> None:
    path = tmp_path / "bare.tflite"
    path.write_bytes(colour_files["right"])
    message = (
        r"bare\.tflite: expected report\.json beside it, or TFLite metadata with mean, std and the "
        r"order of channels, .* found none: pass --mean and --std \(and --channel_order, --crop_fr"
    )
    with pytest.raises(InputError, match=message):
        read(path)
    weights = colour_weights("right")
    bare, other = read(path, weights, **vars(OTHER))
    assert (bare.preprocessing, other.preprocessing) == (OTHER, PLAIN)
    assert bare.precision is None
    logits = bare.make()(np.full((1, 8, 8, 3), (12, 23, 34), np.uint8))
    np.testing.assert_allclose(logits, [[1, 1, 1]])
    with pytest.raises(InputError, match=r"without report\.json, got none: leave them out"):
        read(weights, **vars(OTHER))


def described(**fields: Any) -> Metadata:
    """Metadata as other converters write it."""
    return dataclasses.replace(METADATA, class_names=None, output="outputs", **fields)


@pytest.mark.parametrize(
    ("fields", "flags", "expected"),
    [
        ({"mean": (127.0,), "std": (128.0,)}, {}, Preprocessing((127.0,) * 3, (128.0,) * 3)),
        ({"mean": OTHER.mean, "std": OTHER.std}, {}, OTHER),
        (
            {"mean": OTHER.mean, "std": OTHER.std},
            {"crop_fraction": 1.0},
            dataclasses.replace(OTHER, crop_fraction=1.0),
        ),
        ({"mean": (1.0,), "std": (2.0,)}, {"mean": OTHER.mean, "std": OTHER.std}, OTHER),
        ({"mean": (1.0,), "std": (0.0,)}, {"mean": OTHER.mean, "std": OTHER.std}, OTHER),
        ({"is_rgb": False}, {"mean": OTHER.mean, "std": OTHER.std}, OTHER),
    ],
)
def test_metadata_of_other_converters_is_read(
    fields: dict[str, Any],
    flags: dict[str, Any],
    expected: Preprocessing,
    tmp_path: Path,
    colour_files: Mapping[str, bytes],
) -> None:
    path = tmp_path / "theirs.tflite"
    path.write_bytes(metadata.add(colour_files["right"], described(**fields)))
    (form,) = read(path, **flags)
    assert (form.preprocessing, form.gives_scores, form.class_names) == (expected, False, None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mean": (), "std": ()}, "found none: pass --mean and --std"),
        ({"is_rgb": False}, "found none: pass --mean and --std"),
        ({"mean": (1.0, 2.0), "std": (1.0,)}, "its metadata: Expected three means of at most"),
        ({"mean": (1.0,), "std": (0.0,)}, "its metadata: Expected three stds of 1e-6 to 1e6"),
        ({"mean": (1.0, float("nan"), 1.0), "std": (1.0,)}, "its metadata: Expected three means"),
        ({"mean": (1.0,), "std": (1.0, float("nan"), 1.0)}, "its metadata: Expected three stds"),
        (
            {"class_names": ("a", "b")},
            "expected 3 class names in its metadata, got 2: pass --label",
        ),
    ],
)
def test_metadata_that_does_not_suffice_is_one_line(
    fields: dict[str, Any], message: str, tmp_path: Path, colour_files: Mapping[str, bytes]
) -> None:
    path = tmp_path / "theirs.tflite"
    path.write_bytes(metadata.add(colour_files["right"], dataclasses.replace(METADATA, **fields)))
    with pytest.raises(InputError, match=rf"theirs\.tflite: .*{message}"):
        read(path)


def test_damaged_metadata_is_no_matter_where_flags_say_all(
    tmp_path: Path, colour_files: Mapping[str, bytes]
) -> None:
    path = tmp_path / "theirs.tflite"
    path.write_bytes(metadata.add(colour_files["right"], METADATA).replace(b"M001", b"M999"))
    with pytest.raises(InputError, match=r"damaged metadata .*: convert again, or pass --mean and"):
        read(path)
    (form,) = read(path, **vars(OTHER))
    assert (form.preprocessing, form.class_names) == (OTHER, None)


def as_tensorflow_writes_it(activation: str | None, *, dtype: Any, optimize: bool) -> bytes:
    """A small classifier through TensorFlow's own converter; it has no metadata."""
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            tf.keras.Input((32, 32, 3)),
            layers.Conv2D(8, 3, strides=4),
            layers.GlobalAveragePooling2D(),
            layers.Dense(
                4,
                activation=activation,
                bias_initializer=tf.keras.initializers.Constant([3, 0, 0, 0]),
            ),
        ]
    )
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if optimize:
        rng = np.random.default_rng(0)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            [rng.uniform(-1, 1, (1, 32, 32, 3)).astype(np.float32)] for _ in range(8)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = dtype
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on statistics that this converter does not need
        return converter.convert()


@pytest.mark.parametrize(
    ("activation", "dtype", "optimize"),
    [
        ("softmax", tf.int8, True),
        ("softmax", tf.uint8, True),
        ("softmax", tf.float32, True),
        ("softmax", tf.float32, False),
        ("sigmoid", tf.int8, True),
        (None, tf.int8, True),
        (None, tf.float32, False),
    ],
)
def test_a_file_that_ends_in_scores_gets_no_second_softmax(
    activation: str | None, dtype: Any, optimize: bool, tmp_path: Path
) -> None:
    path = tmp_path / "plain.tflite"
    path.write_bytes(as_tensorflow_writes_it(activation, dtype=dtype, optimize=optimize))
    (form,) = read(path, mean=(127.5,) * 3, std=(127.5,) * 3)
    assert form.gives_scores is (activation is not None)
    (picture,) = sorted((ROOT / "examples").glob("cat.png"))
    (answer,) = classify.classify(form, [picture])
    pixels = decode.load_picture(picture, resolution=32, preprocessing=Preprocessing())
    interpreter = runner.load(path.read_bytes())
    source, result = runner.io_tensors(interpreter)
    x = runner.quantize(Preprocessing().to_input(pixels[None]), source)
    interpreter.set_tensor(source.index, x)
    interpreter.invoke()
    values = interpreter.get_tensor(result.index)[0]
    own = runner.dequantize(values, result.scale, result.zero_point)
    expected = own if activation else np.exp(own) / np.exp(own).sum()
    assert answer.score == pytest.approx(100 * expected.max(), abs=0.01)


def test_a_uint8_file_of_others_takes_the_pixels_themselves(tmp_path: Path) -> None:
    """Readers of metadata feed pixels, whatever normalization stands beside them."""
    path = tmp_path / "theirs.tflite"
    plain = as_tensorflow_writes_it("softmax", dtype=tf.uint8, optimize=True)
    path.write_bytes(metadata.add(plain, described(mean=(0.0,), std=(1.0,))))
    (form,) = read(path)
    source, _ = runner.io_tensors(runner.load(plain))
    stored = runner.stored_pixels(source, form.preprocessing)
    np.testing.assert_array_equal(stored, np.repeat(np.arange(256)[:, None], 3, axis=1))


def test_class_names_of_the_flag_go_over_those_of_the_files(
    tmp_path: Path, colour_files: Mapping[str, bytes], colour_weights: Callable[..., Path]
) -> None:
    path = write_bundle(tmp_path / "x", colour_files["right"], names=("r", "g", "b"))
    weights = colour_weights("right")
    with pytest.raises(InputError, match=r"right\.safetensors: expected the class names of x, got"):
        read(path, weights)
    labels = tmp_path / "names.txt"
    labels.write_text("one\ntwo\nthree\n")
    for form in read(path, weights, labels=labels):
        assert form.class_names == ("one", "two", "three")
    labels.write_text("one\ntwo\n")
    with pytest.raises(InputError, match=r"names\.txt: expected 3 class names, one a line, got 2"):
        read(path, labels=labels)


def test_a_model_without_names_goes_with_one_that_has_some(
    tmp_path: Path, colour_files: Mapping[str, bytes], colour_weights: Callable[..., Path]
) -> None:
    path = write_bundle(tmp_path / "x", colour_files["right"])
    assert [form.class_names for form in read(path, colour_weights("right"))] == [None, NAMES]


def export(function: Any, *shapes: tuple[int, ...]) -> bytes:
    specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    concrete = tf.function(function).get_concrete_function(*specs)
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()


@pytest.mark.parametrize(
    ("function", "shapes", "got"),
    [
        (lambda x: tf.reduce_mean(x, (1, 2)), [(1, 8, 6, 3)], r"\(1, 8, 6, 3\) and \(1, 3\)"),
        (lambda x: tf.reduce_mean(x, (1, 2)), [(1, 8, 8, 1)], r"\(1, 8, 8, 1\) and \(1, 1\)"),
        (lambda x: x + 1, [(1, 8, 8, 3)], r"\(1, 8, 8, 3\) and \(1, 8, 8, 3\)"),
        (
            lambda x, y: tf.reduce_mean(x + y, (1, 2)),
            [(1, 8, 8, 3), (1, 8, 8, 3)],
            r"\(1, 8, 8, 3\), \(1, 8, 8, 3\) and \(1, 3\)",
        ),
    ],
    ids=["oblong", "grey", "picture to picture", "two inputs"],
)
def test_a_file_that_does_not_classify_pictures_is_refused(
    function: Any, shapes: list[tuple[int, ...]], got: str, tmp_path: Path
) -> None:
    path = write_bundle(tmp_path / "x", export(function, *shapes))
    message = (
        r"model\.tflite: expected one input \(1, side, side, 3\) and one output .*, got " + got
    )
    with pytest.raises(InputError, match=message):
        read(path)


def spoil(path: Path, how: str) -> None:
    data, report = path.read_bytes(), path.with_name("report.json")
    if how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "zip":
        path.write_bytes(b"PK\3\4 something else")
    elif how == "flipped":
        one, two = (np.float32(number).tobytes() for number in (1, 2))
        path.write_bytes(data.replace(one, two))  # a weight
    elif how == "report":
        report.write_text("{")
    elif how == "other report":
        report.write_text('{"schema": 1}')
    elif how == "bytes report":
        report.write_bytes(b"\xff\xfe")
    elif how == "labels":
        path.with_name("labels.txt").write_text("a\nb\n")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cut", "expected a whole TFLite file, got one that points beyond its"),
        ("empty", r"expected a TFLite file \(identifier TFL3\), got an empty file"),
        ("zip", r"expected a TFLite file \(identifier TFL3\), got one that starts with b'PK"),
        ("flipped", "report.json tells of, got another .*: damaged or replaced; convert again"),
        ("report", r"report\.json: expected the report of a conversion \(not valid JSON"),
        ("other report", r"report\.json: expected the report of a conversion \(KeyError"),
        ("bytes report", r"report\.json: expected the report of a conversion \(not valid JSON"),
        ("labels", r"labels\.txt: expected 3 class names, one a line, got 2"),
    ],
)
def test_a_damaged_bundle_is_one_line(
    how: str, message: str, tmp_path: Path, colour_files: Mapping[str, bytes]
) -> None:
    path = write_bundle(tmp_path / "x", colour_files["right"], names=NAMES)
    spoil(path, how)
    with pytest.raises(InputError, match=message) as error:
        read(path)
    assert "\n" not in str(error.value)


def test_what_is_no_model_is_refused(
    tmp_path: Path, colour_files: Mapping[str, bytes], colour_weights: Callable[..., Path]
) -> None:
    path = write_bundle(tmp_path / "x", colour_files["right"])
    bare = tmp_path / "bare.safetensors"
    safetensors.numpy.save_file({"a": np.ones(2)}, bare)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(bare.read_bytes()[:20])
    (tmp_path / "weights.h5").touch()
    for word, message in (
        (path.parent, "got a folder; it holds .*model.tflite"),
        (tmp_path / "none.tflite", "found no such file"),
        (tmp_path / "weights.h5", r"expected a .tflite or .safetensors file; convert others first"),
        (bare, "expected weights that say which network they are of"),
        (cut, r"cut\.safetensors: "),
    ):
        with pytest.raises(InputError, match=message):
            read(word)


def test_models_of_other_classes_are_refused(
    tmp_path: Path, colour_files: Mapping[str, bytes]
) -> None:
    four = export(lambda x: tf.reduce_mean(tf.concat([x, x], 3), (1, 2)), (1, 8, 8, 3))
    paths = [
        write_bundle(tmp_path / "x", colour_files["right"]),
        write_bundle(tmp_path / "y", four),
    ]
    with pytest.raises(
        InputError, match=r"y/model\.tflite: expected the 3 classes of x, got 6: leave"
    ):
        read(*paths)


def test_a_file_that_crashes_the_runtime_is_one_line(
    tmp_path: Path, colour_files: Mapping[str, bytes]
) -> None:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(colour_files["right"], 0))
    graph = model.subgraphs[0]
    code = schema.OperatorCodeT(deprecatedBuiltinCode=3, builtinCode=3, version=1)  # CONV_2D
    model.operatorCodes.append(code)
    convolution = schema.OperatorT(
        opcodeIndex=len(model.operatorCodes) - 1,
        inputs=[graph.inputs[0], -1, -1],  # without a kernel
        outputs=[len(graph.tensors)],
        builtinOptionsType=schema.BuiltinOptions.Conv2DOptions,
        builtinOptions=schema.Conv2DOptionsT(strideH=1, strideW=1),
    )
    graph.tensors.append(schema.TensorT(name="x", shape=[1, 8, 8, 3]))
    graph.operators.append(convolution)
    path = write_bundle(
        tmp_path / "x", serialize.pack(model)
    )  # its report does not replace a trial
    with pytest.raises(InputError, match=r"LiteRT crashes on it \(SIG[A-Z]+\): damaged|bad_alloc"):
        read(path)


def test_a_file_that_the_runtime_refuses_is_one_line(
    tmp_path: Path, colour_files: Mapping[str, bytes]
) -> None:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(colour_files["right"], 0))
    model.subgraphs[0].operators[0].inputs = []
    path = tmp_path / "x.tflite"
    path.write_bytes(serialize.pack(model))
    with pytest.raises(InputError, match=r"x\.tflite: LiteRT refuses it: .*") as caught:
        read(path, preprocessing=PLAIN)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("report", ["[" * 100_000, "\ud800" * 9000], ids=["deep", "long"])
def test_a_report_of_any_length_is_one_short_line(
    report: str, tmp_path: Path, colour_files: Mapping[str, bytes]
) -> None:
    path = write_bundle(tmp_path / "x", colour_files["right"])
    path.with_name("report.json").write_bytes(report.encode(errors="surrogatepass"))
    with pytest.raises(InputError, match="expected the report of a conversion") as caught:
        read(path)
    assert len(str(caught.value)) < 2 * len(str(path)) + 500


@pytest.mark.parametrize(
    "image",
    [
        "The picture in RGB, its shorter side scaled to 0 (bilinear), the middle 8 x 8 of it.",
        f"The picture in RGB, its shorter side scaled to {'9' * 5000} (bilinear), the middle "
        "8 x 8 of it.",
        "The picture in RGB, its shorter side scaled to 9 (bilinear), the middle 8 x 7 of it.",
    ],
)
def test_a_sentence_that_is_not_ours_is_a_description(
    image: str, tmp_path: Path, colour_files: Mapping[str, bytes]
) -> None:
    path = tmp_path / "theirs.tflite"
    path.write_bytes(metadata.add(colour_files["right"], described(image=image)))
    (form,) = read(path)
    assert form.preprocessing.crop_fraction == 0.875
