"""What a file has beside its network: the ends that apps expect, and metadata."""

from dataclasses import replace

from convert.network import Network, WeightsOrigin
from convert.resolve_model import in_words
from convert.settings import Settings
from convert.tflite_model import File
from keras_models import registry
from keras_models.checkpoints.bundled import LICENSE
from keras_models.images.decode import Preprocessing
from shufflelite.versions import version
from tflite_file import io_ops, metadata
from tflite_file.metadata import LOGITS, PROBABILITY, Metadata

READERS = "MediaPipe Tasks and the TFLite Task Library"


def finish(
    file: File, network: Network, class_names: tuple[str, ...] | None, settings: Settings
) -> File:
    """Gives a file, which makes logits of what its preprocessing gives, its ends and metadata."""
    data, seen = file.data, file.preprocessing
    if settings.quantization.scores:
        data = io_ops.append_softmax(data)
        if not _takes_pixels(seen):
            reverse = seen.channel_order == "bgr"
            data = io_ops.prepend_normalization(data, seen.mean, seen.std, reverse=reverse)
            seen = replace(seen, mean=(0.0,) * 3, std=(1.0,) * 3, channel_order="rgb")
    told = _metadata(network, seen, class_names, settings)
    return replace(file, data=metadata.add(data, told), preprocessing=seen)


def readers(source: str, result: str, seen: Preprocessing, *, scores: bool) -> str:
    """Which readers of metadata take a file, and what they make of it.

    Args:
      source: Dtype of its input.
      result: Dtype of its output.
      seen: How a picture becomes its input.
      scores: Whether its output is probabilities.
    """
    if "int8" in (source, result):
        how = "leave --io_dtype out" if scores else "pass --scores"
        return f"{READERS} refuse int8 ends: {how}"
    if not _says_rgb(source, seen):
        return f"{READERS} refuse it, which feed RGB and scale all channels alike: pass --scores"
    if not _takes_pixels(seen):
        return "MediaPipe Tasks refuses it, which scales all channels alike: pass --scores"
    if not scores:
        return f"{READERS} take it, and show logits as scores: pass --scores"
    return f"{READERS} take it as it is"


def _takes_pixels(seen: Preprocessing) -> bool:
    """Whether an int8 or uint8 input is the pixel, and a float one scaled alike in all channels."""
    return seen.channel_order == "rgb" and len({*seen.mean}) == len({*seen.std}) == 1


def _says_rgb(source: str, seen: Preprocessing) -> bool:
    """Whether the file may be told to be RGB: for others its readers would be silently wrong.

    They put pixels into uint8 inputs as they are, whatever the metadata tells.
    """
    return _takes_pixels(seen) or (seen.channel_order == "rgb" and source != "uint8")


def _metadata(
    network: Network,
    seen: Preprocessing,
    class_names: tuple[str, ...] | None,
    settings: Settings,
) -> Metadata:
    model, weights = settings.model, network.weights
    words = in_words(model.name, model.options, model.side, model.classes)
    source, _ = settings.quantization.io_dtypes
    shorter = seen.shorter_side(model.side)
    return Metadata(
        name=words,
        description=f"Classifies pictures: {words}. Paper: {registry.find(model.name).paper}. "
        f"Computes in {settings.quantization.precision.value}. Weights: {_origin(weights)}.",
        author="ShuffleLite",
        version=version("shufflelite"),
        license=LICENSE if weights.origin == "bundled" else None,
        image=f"The picture in {seen.channel_order.upper()}, its shorter side scaled to {shorter} "
        f"({seen.interpolation}), the middle {model.side} x {model.side} of it.",
        is_rgb=_says_rgb(source, seen),
        height=model.side,
        width=model.side,
        mean=seen.mean,
        std=seen.std,
        output=PROBABILITY if settings.quantization.scores else LOGITS,
        class_names=class_names,
    )


def _origin(weights: WeightsOrigin) -> str:
    """Whose they are; without a path, so that two machines make the same file."""
    origin = weights.origin if weights.origin in registry.NAMED_WEIGHTS else "a file"
    told = origin + (f", of {weights.source}" if weights.source else "")
    return told + (f", SHA-256 {weights.sha256}" if weights.sha256 else "")
