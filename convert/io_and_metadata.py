"""Adds input normalization, softmax and metadata to a file, as apps expect them."""

from dataclasses import replace

from convert import metadata_preprocessing
from convert.network import LoadedNetwork, WeightsOrigin
from convert.resolve_model import describe
from convert.settings import ConversionSettings
from convert.tflite_model import TfliteModel
from keras_models import registry
from keras_models.checkpoints.bundled import LICENSE
from keras_models.images.decode import Preprocessing
from shufflelite.versions import version
from tflite_file import io_ops, metadata
from tflite_file.metadata import LOGITS, PROBABILITY, Metadata

READERS = "MediaPipe Tasks and the TFLite Task Library"


def add_io_and_metadata(
    tflite: TfliteModel,
    network: LoadedNetwork,
    class_names: tuple[str, ...] | None,
    settings: ConversionSettings,
) -> TfliteModel:
    """Adds input normalization and softmax (with --scores), and metadata."""
    data, preprocessing = tflite.data, tflite.preprocessing
    if settings.quantization.scores:
        data = io_ops.append_softmax(data)
        if not _is_uniform_rgb(preprocessing):
            data = io_ops.prepend_normalization(
                data,
                preprocessing.mean,
                preprocessing.std,
                reverse=preprocessing.channel_order == "bgr",
            )
            preprocessing = replace(
                preprocessing, mean=(0.0,) * 3, std=(1.0,) * 3, channel_order="rgb"
            )
    data = metadata.add(data, _metadata(network, preprocessing, class_names, settings))
    return replace(tflite, data=data, preprocessing=preprocessing)


def compatible_readers(
    input_dtype: str, output_dtype: str, preprocessing: Preprocessing, *, scores: bool
) -> str:
    """Which readers of metadata accept a file, in a sentence; `scores`: it has a softmax."""
    if "int8" in (input_dtype, output_dtype):
        remedy = "leave --io_dtype out" if scores else "pass --scores"
        return f"{READERS} refuse int8 inputs and outputs: {remedy}"
    if not _is_declared_rgb(input_dtype, preprocessing):
        return f"{READERS} refuse it: they feed RGB and scale all channels alike: pass --scores"
    if not _is_uniform_rgb(preprocessing):
        return "MediaPipe Tasks refuses it: it scales all channels alike: pass --scores"
    if not scores:
        return f"{READERS} accept it, but show logits as scores: pass --scores"
    return f"{READERS} accept it as it is"


def _is_uniform_rgb(preprocessing: Preprocessing) -> bool:
    """Whether the input is RGB with one mean and std: then int8 and uint8 inputs hold pixels."""
    has_one_scale = len({*preprocessing.mean}) == len({*preprocessing.std}) == 1
    return preprocessing.channel_order == "rgb" and has_one_scale


def _is_declared_rgb(input_dtype: str, preprocessing: Preprocessing) -> bool:
    """Whether the metadata may declare RGB; other files would get wrong inputs silently.

    Readers copy pixels into uint8 inputs unchanged, whatever normalization the metadata has.
    """
    is_rgb = preprocessing.channel_order == "rgb"
    return _is_uniform_rgb(preprocessing) or (is_rgb and input_dtype != "uint8")


def _metadata(
    network: LoadedNetwork,
    preprocessing: Preprocessing,
    class_names: tuple[str, ...] | None,
    settings: ConversionSettings,
) -> Metadata:
    model, weights = settings.model, network.weights
    summary = describe(model.name, model.options, model.input_resolution, model.classes)
    input_dtype, _ = settings.quantization.io_dtypes
    return Metadata(
        name=summary,
        description=f"Classifies pictures: {summary}. Paper: {registry.find(model.name).paper}. "
        f"Computes in {settings.quantization.precision.value}. Weights: {_origin(weights)}.",
        author="ShuffleLite",
        version=version("shufflelite"),
        license=LICENSE if weights.origin == "bundled" else None,
        image=metadata_preprocessing.describe(preprocessing, model.input_resolution),
        is_rgb=_is_declared_rgb(input_dtype, preprocessing),
        height=model.input_resolution,
        width=model.input_resolution,
        mean=preprocessing.mean,
        std=preprocessing.std,
        output=PROBABILITY if settings.quantization.scores else LOGITS,
        class_names=class_names,
    )


def _origin(weights: WeightsOrigin) -> str:
    """Where the weights come from; without a path, so that two machines make the same file."""
    origin = weights.origin if weights.origin in registry.NAMED_WEIGHTS else "a file"
    origin += f", of {weights.source}" if weights.source else ""
    return origin + (f", SHA-256 {weights.sha256}" if weights.sha256 else "")
