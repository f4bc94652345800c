"""Reads the forms of a network: what each is, and what it needs to see a picture."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convert.verification import runner, sandbox
from keras_models import registry
from keras_models.accuracy import Classifier
from keras_models.checkpoints import native, read_weights
from keras_models.checkpoints.load import load_weights
from keras_models.images import class_names
from keras_models.images.decode import Preprocessing
from shufflelite import config, model_paths
from shufflelite.display import one_line
from shufflelite.errors import InputError
from tflite_file import metadata
from tflite_file.model import read_operators

REPORT, LABELS = "report.json", "labels.txt"


@dataclass(frozen=True, eq=False)
class Form:
    """A network that can be asked for pictures."""

    name: str  # tells it from the other forms of the run
    path: Path
    size_bytes: int
    sha256: str
    runtime: str  # "Keras" or "LiteRT"
    precision: str | None  # None: nobody says
    input_dtype: str
    output_dtype: str
    resolution: int
    classes: int
    class_names: tuple[str, ...] | None
    preprocessing: Preprocessing
    make: Callable[[], Classifier]  # of logits; of a file that gives scores, their logarithms
    gives_scores: bool = False


def read_all(
    words: Sequence[str], *, preprocessing: Preprocessing | None, labels: str | None
) -> list[Form]:
    """Reads the files that `words` name: paths, comma-separated paths, and patterns.

    Args:
      words: Of --models.
      preprocessing: Of .tflite files without a report.
      labels: A file of class names, in place of those that the files have.

    Raises:
      InputError: a file that is none of ours, that is damaged, or that does not say enough; or
        forms of several networks, whose classes are not the same.
    """
    paths = model_paths.expand(words)
    forms = [
        _read(path, name=name, preprocessing=preprocessing, labels=labels)
        for path, name in zip(paths, model_paths.names(paths), strict=True)
    ]
    if preprocessing is not None and all(form.preprocessing is not preprocessing for form in forms):
        raise InputError(
            f"--mean and --std are for .tflite files without {REPORT}, of which there is none: "
            "leave them out."
        )
    _check_classes(forms)
    return forms


def _check_classes(forms: Sequence[Form]) -> None:
    first = forms[0]
    for form in forms[1:]:
        if form.classes != first.classes:
            raise InputError(
                f"{form.path}: expected the {first.classes} classes of {first.name}, got "
                f"{form.classes}."
            )
        named = [one for one in forms if one.class_names is not None]
        if form.class_names and form.class_names != named[0].class_names:
            raise InputError(
                f"{form.path}: expected the class names of {named[0].name}, got others: pass "
                "--labels where they mean the same."
            )


def _read(
    path: Path, *, name: str, preprocessing: Preprocessing | None, labels: str | None
) -> Form:
    if path.is_dir():
        inside = path / "model.tflite"
        hint = f"; it holds {inside}" if inside.exists() else ""
        raise InputError(f"{path}: expected a .tflite or .safetensors file, got a folder{hint}.")
    if not path.is_file():
        raise InputError(f"{path}: expected a .tflite or .safetensors file, found no such file.")
    if path.suffix.lower() == ".safetensors":
        return _read_weights(path, name=name, labels=labels)
    if path.suffix.lower() in (".tflite", ".lite"):
        return _read_tflite(path, name=name, preprocessing=preprocessing, labels=labels)
    raise InputError(
        f"{path}: expected a .tflite or .safetensors file; convert others first (python -m convert "
        "--model NAME --weights FILE gives the float network as a .tflite file)."
    )


def _read_weights(path: Path, *, name: str, labels: str | None) -> Form:
    arrays = read_weights(path).arrays
    told = native.describe(path)
    if told is None:
        raise InputError(
            f"{path}: expected weights that say which network they are of, as those that python -m "
            "keras_models.train writes; convert these first, and measure the .tflite file."
        )

    def make() -> Classifier:
        from keras_models.classifier import classifier_of  # brings in TensorFlow

        side = told.resolution
        model = registry.create(
            told.model,
            input_shape=(side, side, 3),
            num_classes=told.num_classes,
            **told.options,
        )
        load_weights(model, arrays, origin=str(path))
        return classifier_of(model, told.preprocessing)

    content = path.read_bytes()
    return Form(
        name=name,
        path=path,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        runtime="Keras",
        precision="float32",
        input_dtype="float32",
        output_dtype="float32",
        resolution=told.resolution,
        classes=told.num_classes,
        class_names=_class_names(labels, classes=told.num_classes) or told.class_names,
        preprocessing=told.preprocessing,
        make=make,
    )


def _read_tflite(
    path: Path, *, name: str, preprocessing: Preprocessing | None, labels: str | None
) -> Form:
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    precision, report, beside = None, path.with_name(REPORT), path.with_name(LABELS)
    with _naming(path):
        read_operators(content)  # a damaged file may crash the runtime
    if is_ours := report.is_file():
        preprocessing, precision = _told(path, report, sha256=sha256)
    elif preprocessing is None:
        raise InputError(
            f"{path}: expected {REPORT} beside it, which says how pictures become its input, found "
            "none: pass --mean and --std (and --channel_order, --crop_fraction, --interpolation)."
        )
    with _naming(path):
        if not is_ours:
            sandbox.check(content)
        told = metadata.read(content)
        interpreter = runner.load(content)
    source, result = _ends(path, interpreter)
    names = _class_names(labels, classes=result.shape[1])
    if is_ours and names is None and beside.is_file():
        names = class_names.read(beside, classes=result.shape[1])
    gives_scores = told is not None and told.output == metadata.PROBABILITY
    return Form(
        name=name,
        path=path,
        size_bytes=len(content),
        sha256=sha256,
        runtime="LiteRT",
        precision=precision,
        input_dtype=source.dtype,
        output_dtype=result.dtype,
        resolution=source.shape[1],
        classes=result.shape[1],
        class_names=names,
        preprocessing=preprocessing,
        make=lambda: _classifier(content, preprocessing, result, gives_scores),
        gives_scores=gives_scores,
    )


def _classifier(
    content: bytes, preprocessing: Preprocessing, result: runner.Tensor, gives_scores: bool
) -> Classifier:
    classifier = runner.classifier_of(content, preprocessing)
    least = result.scale / 2 or np.finfo(np.float32).tiny  # the least score whose logarithm is told

    def of_scores(pictures: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(classifier(pictures), np.float32(least)))

    return of_scores if gives_scores else classifier


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Makes one line, which names the file, of what refuses it."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{path}: {one_line(error)}") from error


def _ends(path: Path, interpreter: Any) -> tuple[runner.Tensor, runner.Tensor]:
    """Its input and output, which must be a picture and its classes."""
    source, result = runner.ends(interpreter)
    single = len(interpreter.get_input_details()) == len(interpreter.get_output_details()) == 1
    square = len(source.shape) == 4 and source.shape == (1, source.shape[1], source.shape[1], 3)
    if not (single and square and len(result.shape) == 2):
        raise InputError(
            f"{path}: expected one input (1, side, side, 3) and one output (1, classes), got "
            f"{source.shape} and {result.shape}."
        )
    return source, result


def _told(path: Path, report: Path, *, sha256: str) -> tuple[Preprocessing, str]:
    """What the bundle's report says of its file."""
    try:
        told: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        preprocessing = config.build(told["preprocessing"], Preprocessing)
        precision = str(told["settings"]["quantization"]["precision"])
        expected = told["sha256"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        why = one_line(f"{type(error).__name__}: {error}")
        raise InputError(
            f"{report}: expected the report of a conversion ({why}): convert again, or move it "
            "away and pass --mean and --std."
        ) from error
    if expected != sha256:
        raise InputError(
            f"{path}: expected the file that {report} tells of, got another (its SHA-256 differs): "
            "damaged or replaced; convert again, or move the report away and pass --mean and --std."
        )
    return preprocessing, precision


def _class_names(labels: str | None, *, classes: int) -> tuple[str, ...] | None:
    return None if labels is None else class_names.read(labels, classes=classes)
