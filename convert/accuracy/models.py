"""The models to evaluate: .tflite files and weights, with the preprocessing that each needs."""

import contextlib
import hashlib
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convert import metadata_preprocessing
from convert.verification import runner, sandbox
from keras_models import registry
from keras_models.accuracy import Classifier
from keras_models.checkpoints import native, read_weights
from keras_models.checkpoints.load import load_weights
from keras_models.images import class_names
from keras_models.images.decode import Preprocessing
from shufflelite import config, limited, model_paths
from shufflelite.display import one_line
from shufflelite.errors import InputError
from tflite_file import metadata
from tflite_file.metadata import Metadata
from tflite_file.model import output_operator

REPORT, LABELS = "report.json", "labels.txt"
SCORES = ("SOFTMAX", "LOGISTIC")  # operators whose outputs are scores


@dataclass(frozen=True, eq=False)
class EvaluatedModel:
    """A model that classifies pictures."""

    name: str  # unique in the run
    path: Path
    size_bytes: int
    sha256: str
    runtime: str  # "Keras" or "LiteRT"
    precision: str | None  # None: unknown
    input_dtype: str
    output_dtype: str
    resolution: int
    classes: int
    class_names: tuple[str, ...] | None
    preprocessing: Preprocessing
    make: Callable[[], Classifier]  # returns logits; for a file with scores, their logarithms
    gives_scores: bool = False


def read_all(
    arguments: Sequence[str],
    *,
    preprocessing: Mapping[str, Any] = types.MappingProxyType({}),
    labels: str | None = None,
) -> list[EvaluatedModel]:
    """Reads the files that `arguments` name: paths, comma-separated paths, and patterns.

    Args:
      arguments: The values of --models.
      preprocessing: Fields of `Preprocessing` that go over the metadata of .tflite files without a
        report.
      labels: A file of class names that replaces those of the files.

    Raises:
      InputError: a file is damaged or lacks information, or the files have different classes.
    """
    paths = model_paths.expand(arguments)
    models = [
        _read(path, name=name, preprocessing=preprocessing, labels=labels)
        for path, name in zip(paths, model_paths.names(paths), strict=True)
    ]
    if preprocessing and all(m.runtime == "Keras" or _has_report(m.path) for m in models):
        words = " and ".join(f"--{name}" for name in preprocessing)
        raise InputError(
            f"Expected {words} with .tflite files without {REPORT}, got none: leave them out."
        )
    _check_classes(models)
    return models


def _check_classes(models: Sequence[EvaluatedModel]) -> None:
    first = models[0]
    for model in models[1:]:
        if model.classes != first.classes:
            raise InputError(
                f"{model.path}: expected the {first.classes} classes of {first.name}, got "
                f"{model.classes}: leave it out."
            )
        named = [other for other in models if other.class_names is not None]
        if model.class_names and model.class_names != named[0].class_names:
            raise InputError(
                f"{model.path}: expected the class names of {named[0].name}, got others: pass "
                "--labels where they mean the same."
            )


def _read(
    path: Path, *, name: str, preprocessing: Mapping[str, Any], labels: str | None
) -> EvaluatedModel:
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


def _read_weights(path: Path, *, name: str, labels: str | None) -> EvaluatedModel:
    arrays = read_weights(path).arrays
    description = native.describe(path)
    if description is None:
        raise InputError(
            f"{path}: expected weights that say which network they are of, as those that python -m "
            "keras_models.train writes; convert these first, and measure the .tflite file."
        )

    def make() -> Classifier:
        from keras_models.classifier import classifier_of  # brings in TensorFlow

        resolution = description.resolution
        model = registry.create(
            description.model,
            input_shape=(resolution, resolution, 3),
            num_classes=description.num_classes,
            **description.options,
        )
        load_weights(model, arrays, origin=str(path))
        return classifier_of(model, description.preprocessing)

    content = path.read_bytes()
    return EvaluatedModel(
        name=name,
        path=path,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        runtime="Keras",
        precision="float32",
        input_dtype="float32",
        output_dtype="float32",
        resolution=description.resolution,
        classes=description.num_classes,
        class_names=_class_names(labels, classes=description.num_classes)
        or description.class_names,
        preprocessing=description.preprocessing,
        make=make,
    )


def _read_tflite(
    path: Path, *, name: str, preprocessing: Mapping[str, Any], labels: str | None
) -> EvaluatedModel:
    content = limited.read_bytes(path, limited.TFLITE_BYTES)
    sha256 = hashlib.sha256(content).hexdigest()
    precision, report, beside = None, path.with_name(REPORT), path.with_name(LABELS)
    with _naming(path):
        result_of = output_operator(content)  # a damaged file may crash the runtime
    if is_ours := _has_report(path):
        described, (known, precision) = None, _read_report(path, report, sha256=sha256)
    with _naming(path):
        sandbox.check(content)
        if not is_ours:
            described = _metadata(content, is_needed=not {"mean", "std"} <= preprocessing.keys())
        interpreter = runner.load(content)
    source, result = _io_tensors(path, interpreter)
    if not is_ours:
        known = _described(path, described, source, preprocessing)
    names = _class_names(labels, classes=result.shape[1])
    if names is None and is_ours and beside.is_file():
        names = class_names.read(beside, classes=result.shape[1])
    if names is None and described is not None:
        names = described.class_names
    if names is not None and len(names) != result.shape[1]:
        raise InputError(
            f"{path}: expected {result.shape[1]} class names in its metadata, got {len(names)}: "
            "pass --labels."
        )
    gives_scores = result_of in SCORES or (
        described is not None and described.output == metadata.PROBABILITY
    )
    return EvaluatedModel(
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
        preprocessing=known,
        make=lambda: _classifier(content, known, result, gives_scores),
        gives_scores=gives_scores,
    )


def _has_report(path: Path) -> bool:
    return path.with_name(REPORT).is_file()


def _metadata(content: bytes, *, is_needed: bool) -> Metadata | None:
    try:
        return metadata.read(content)
    except ValueError as error:
        if is_needed:
            raise ValueError(f"{error}, or pass --mean and --std") from error
        return None


def _described(
    path: Path, described: Metadata | None, source: runner.IoTensor, passed: Mapping[str, Any]
) -> Preprocessing:
    """The preprocessing that flags or metadata determine.

    Raises:
      InputError: they do not.
    """
    known = {} if described is None else metadata_preprocessing.read(described, source)
    fields = {**known, **passed}
    if not {"mean", "std"} <= fields.keys():
        raise InputError(
            f"{path}: expected {REPORT} beside it, or TFLite metadata with mean, std and the order "
            "of channels, which say how pictures become its input, found none: pass --mean and "
            "--std (and --channel_order, --crop_fraction, --interpolation)."
        )
    try:
        return Preprocessing(**fields)
    except InputError as error:
        raise InputError(f"{path}: its metadata: {error} Pass --mean and --std.") from error


def _classifier(
    content: bytes, preprocessing: Preprocessing, result: runner.IoTensor, gives_scores: bool
) -> Classifier:
    classifier = runner.classifier_of(content, preprocessing)
    lowest = result.scale / 2 or np.finfo(np.float32).tiny  # replaces scores of 0

    def of_scores(pictures: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(classifier(pictures), np.float32(lowest)))

    return of_scores if gives_scores else classifier


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turns errors into one line that names the file."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{path}: {one_line(error)}") from error


def _io_tensors(path: Path, interpreter: Any) -> tuple[runner.IoTensor, runner.IoTensor]:
    """The input and the output, which must be a picture and its classes."""
    shapes = [
        [tuple(map(int, tensor["shape"])) for tensor in tensors]
        for tensors in (interpreter.get_input_details(), interpreter.get_output_details())
    ]
    match shapes:
        case [[(1, height, width, 3)], [(_, _)]] if height == width:
            return runner.io_tensors(interpreter)
    raise InputError(
        f"{path}: expected one input (1, side, side, 3) and one output (1, classes), got "
        f"{' and '.join(', '.join(map(str, each)) or 'none' for each in shapes)}."
    )


def _read_report(path: Path, report: Path, *, sha256: str) -> tuple[Preprocessing, str]:
    """The preprocessing and the precision in the bundle's report."""
    try:
        fields = config.read_json(report)
        preprocessing = config.build(fields["preprocessing"], Preprocessing)
        precision = str(fields["settings"]["quantization"]["precision"])
        expected = fields["sha256"]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        reason = one_line(f"{kind}{error}")
        raise InputError(
            f"{report}: expected the report of a conversion ({reason}): convert again, or move it "
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
