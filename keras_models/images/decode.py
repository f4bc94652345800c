"""Pictures from files and .npz archives, as the uint8 pixels that a network's input needs."""

import contextlib
import hashlib
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from keras_models.images.formats import FORMATS
from shufflelite.display import one_line
from shufflelite.errors import InputError

INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
CHANNEL_ORDERS = ("rgb", "bgr")
LARGE = 16_000_000  # pixels; a picture with more is reduced before it is resized
WEBP_LARGEST = 50_000_000  # pixels, of 16 bytes each in libwebp and Pillow
_OVERSAMPLING = 3  # times the resolution is what reducing leaves of a large picture
_BAND = 1_000_000  # pixels
_LARGE_TURN = threading.Lock()
MIN_CROP_FRACTION = 0.01

Triple = tuple[float, float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a network's input: a fact about the network's weights.

    Attributes:
        mean: Subtracted from each channel, in pixel units 0..255 and in `channel_order`.
        std: Divides each channel afterwards; likewise.
        channel_order: Order of the channels that the network expects, "rgb" or "bgr".
        crop_fraction: A picture's shorter side becomes round(resolution / crop_fraction) pixels,
            of which the central `resolution` are kept.
        interpolation: Resampling filter, "bilinear" or "bicubic", widened when it shrinks.
    """

    mean: Triple = (127.5, 127.5, 127.5)
    std: Triple = (127.5, 127.5, 127.5)
    channel_order: str = "rgb"
    crop_fraction: float = 0.875
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or not all(-1e6 <= mean <= 1e6 for mean in self.mean):  # no NaN
            raise InputError(f"Expected three means of at most 1e6, got {self.mean}.")
        if len(self.std) != 3 or not all(1e-6 <= std <= 1e6 for std in self.std):
            raise InputError(f"Expected three stds of 1e-6 to 1e6, got {self.std}.")
        if self.channel_order not in CHANNEL_ORDERS:
            raise InputError(
                f"Expected channel_order to be one of {', '.join(CHANNEL_ORDERS)}, "
                f"got {self.channel_order!r}."
            )
        if not MIN_CROP_FRACTION <= self.crop_fraction <= 1:
            raise InputError(
                f"Expected crop_fraction in [{MIN_CROP_FRACTION}, 1], got {self.crop_fraction}."
            )
        if self.interpolation not in INTERPOLATIONS:
            raise InputError(
                f"Expected interpolation to be one of {', '.join(INTERPOLATIONS)}, "
                f"got {self.interpolation!r}."
            )

    def to_input(self, pixels: np.ndarray) -> np.ndarray:
        """Returns uint8 RGB `pixels`, (n, h, w, 3), as the network's float32 input."""
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3:
            raise ValueError(f"Expected uint8 (n, h, w, 3), got {pixels.dtype} {pixels.shape}.")
        ordered = pixels if self.channel_order == "rgb" else pixels[..., ::-1]
        return (ordered - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)

    def shorter_side(self, resolution: int) -> int:
        """The length in pixels to which a picture's shorter side is resized before the crop."""
        return round(resolution / self.crop_fraction)

    @property
    def input_range(self) -> tuple[float, float]:
        """The least and the greatest value of an input: those of black and white pixels."""
        black, white = (
            [(pixel - m) / s for m, s in zip(self.mean, self.std, strict=True)]
            for pixel in (0, 255)
        )
        return min(black), max(white)


class _UnreadableError(InputError):
    """One picture cannot be decoded; the message is the reason, without the file's name."""


def read_files(
    files: Sequence[Path],
    *,
    resolution: int,
    preprocessing: Preprocessing,
    warn: Callable[[str], None],
) -> tuple[np.ndarray, list[int]]:
    """Decodes pictures, resized and cropped to `resolution`.

    Args:
        files: The pictures' files.
        resolution: Height and width of the network's input.
        preprocessing: How to resize and crop.
        warn: Called with one line for each picture that cannot be decoded; it is skipped.

    Returns:
        uint8 RGB pixels, (n, resolution, resolution, 3), and the indices of their files.

    Raises:
        InputError: None of the pictures can be decoded.
    """
    pixels = np.empty((len(files), resolution, resolution, 3), np.uint8)
    decoded: list[int] = []

    def attempt(file: Path) -> np.ndarray | _UnreadableError:
        try:
            return _load(file, resolution=resolution, preprocessing=preprocessing)
        except _UnreadableError as error:
            return error

    with _bombs_are_errors(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for index, result in enumerate(pool.map(attempt, files)):
            if isinstance(result, _UnreadableError):
                warn(f"skipped {files[index]}: {result}")
            else:
                pixels[len(decoded)] = result
                decoded.append(index)
    if not decoded:
        raise InputError(f"None of the {len(files)} pictures can be decoded; first: {files[0]}.")
    return pixels[: len(decoded)], decoded


def read_npz(path: str | Path, *, resolution: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads uint8 `images`, (n, resolution, resolution, 3), and `labels`, (n,), if there are."""
    expected = f"uint8 'images' of shape (n, {resolution}, {resolution}, 3)"
    if Path(path).exists() and not Path(path).is_file():
        raise InputError(f"{path}: expected an .npz file, found a folder, pipe or device.")
    try:
        # NumPy leaves a file open that it opened itself and cannot read.
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            if "images" not in archive:
                members = ", ".join(sorted(archive)) or "nothing"
                raise InputError(f"{path}: expected {expected}, found {members}.")
            images = np.asarray(archive["images"])  # bytes, if the member is not an array
            labels = np.asarray(archive["labels"]) if "labels" in archive else None
    except InputError:
        raise
    # NumPy returns a bare array for .npy, hence AttributeError and TypeError.
    except Exception as error:
        raise InputError(
            f"{path}: expected an .npz file with {expected} ({one_line(error)})."
        ) from error
    shape = (resolution, resolution, 3)
    if images.dtype != np.uint8 or images.shape[1:] != shape or not len(images):
        raise InputError(
            f"{path}: expected {expected}, got {images.dtype} {images.shape}; store pixels before "
            "any normalization, at the network's resolution."
        )
    if labels is None:
        return images, None
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise InputError(
            f"{path}: expected {len(images)} integer 'labels' >= 0, "
            f"got {labels.dtype} {labels.shape}."
        )
    return images, labels.astype(np.int64)


def load_picture(path: str | Path, *, resolution: int, preprocessing: Preprocessing) -> np.ndarray:
    """Decodes one picture to uint8 RGB, (resolution, resolution, 3)."""
    try:
        with _bombs_are_errors():
            return _load(Path(path), resolution=resolution, preprocessing=preprocessing)
    except _UnreadableError as error:
        raise InputError(f"{path}: {error}") from error


def digest(pixels: np.ndarray) -> str:
    """Returns the SHA-256 of the shape and bytes of `pixels`."""
    sha256 = hashlib.sha256(repr(pixels.shape).encode())
    sha256.update(np.ascontiguousarray(pixels).data)
    return sha256.hexdigest()


@contextlib.contextmanager
def _bombs_are_errors() -> Iterator[None]:
    """Turns Pillow's warning of huge pictures into an error, and silences its other warnings.

    Filters belong to the process, not to a thread: enter this outside of the thread pool.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _load(path: Path, *, resolution: int, preprocessing: Preprocessing) -> np.ndarray:
    if path.exists() and not path.is_file():
        raise _UnreadableError("expected a file, found a folder, pipe or device")
    try:
        with Image.open(path, formats=FORMATS) as image, _in_turn(image):
            if image.format == "WEBP" and math.prod(image.size) > WEBP_LARGEST:
                raise _UnreadableError(
                    f"WebP of more than {WEBP_LARGEST / 1e6:g} million pixels takes too much "
                    "memory; save it as JPEG or PNG"
                )
            shorter = preprocessing.shorter_side(resolution)
            if math.prod(image.size) > LARGE:  # a JPEG is decoded smaller at no cost
                image.draft(None, (_OVERSAMPLING * shorter, _OVERSAMPLING * shorter))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            box = _central_box(image.size, resolution, shorter)
            rgb, box = _reduced(image, box, resolution)
    except _UnreadableError:
        raise
    # Pillow's decoders raise nearly anything on damaged files, from SyntaxError to struct.error.
    except Exception as error:
        raise _UnreadableError(f"cannot be decoded ({one_line(error)})") from error
    return _resize(rgb, box, resolution=resolution, preprocessing=preprocessing)


@contextlib.contextmanager
def _in_turn(image: Image.Image) -> Iterator[None]:
    """Lets large pictures be decoded one at a time only, since each takes up to 0.7 GB."""
    with _LARGE_TURN if math.prod(image.size) > LARGE else contextlib.nullcontext():
        yield


def _reduced(image: Image.Image, box: Box, resolution: int) -> tuple[Image.Image, Box]:
    """Returns a picture as RGB and the crop `box` in it.

    Of a large one only what the crop needs, averaged to a few times the resolution: in bands, since
    a copy as RGB takes four bytes per pixel.
    """
    if math.prod(image.size) <= LARGE:
        return _to_rgb(image), box
    scale = max(1.0, (box[2] - box[0]) / resolution)
    margin = math.ceil(2 * scale)  # as wide as a bicubic filter
    left, top = (max(0, math.floor(start) - margin) for start in box[:2])
    right, bottom = (
        min(length, math.ceil(end) + margin)
        for length, end in zip(image.size, box[2:], strict=True)
    )
    factor = max(1, int(scale / _OVERSAMPLING))
    reduced = Image.new("RGB", (-(-(right - left) // factor), -(-(bottom - top) // factor)))
    rows = factor * max(1, _BAND // (factor * (right - left)))
    for start in range(top, bottom, rows):
        band = _to_rgb(image.crop((left, start, right, min(start + rows, bottom))))
        reduced.paste(band.reduce(factor), (0, (start - top) // factor))
    x0, y0, x1, y1 = box
    return reduced, (
        (x0 - left) / factor,
        (y0 - top) / factor,
        min((x1 - left) / factor, reduced.width),
        min((y1 - top) / factor, reduced.height),
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _eight_bit_grey(image)
    elif image.mode == "F":
        raise _UnreadableError("floating-point samples have no defined white; save it as 8 bits")
    if image.has_transparency_data:
        # The color of transparent pixels is arbitrary, often black; cut-outs and drawings are
        # meant for a white page.
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _eight_bit_grey(image: Image.Image) -> Image.Image:
    """Scales 16-bit grey; Pillow's own conversion clips at 255 and leaves a white picture."""
    samples = np.asarray(image).astype(np.int32)
    if samples.min() < 0 or samples.max() > 65535:
        raise _UnreadableError("32-bit samples have no defined white; save it as 8 or 16 bits")
    return Image.fromarray(((samples + 128) // 257).astype(np.uint8))  # rounds: 257 is odd


def resize_and_crop(
    image: Image.Image, *, resolution: int, preprocessing: Preprocessing
) -> np.ndarray:
    """Resizes the shorter side, then takes a central crop, with torchvision's rounding."""
    box = _central_box(image.size, resolution, preprocessing.shorter_side(resolution))
    return _resize(image, box, resolution=resolution, preprocessing=preprocessing)


def _central_box(size: tuple[int, int], resolution: int, shorter: int) -> Box:
    """The part of a picture of this size that the crop keeps after resizing."""
    width, height = size
    resized_width = shorter * width // min(width, height)
    resized_height = shorter * height // min(width, height)
    left = round((resized_width - resolution) / 2)
    top = round((resized_height - resolution) / 2)
    return (
        left * width / resized_width,
        top * height / resized_height,
        (left + resolution) * width / resized_width,
        (top + resolution) * height / resized_height,
    )


def _resize(
    image: Image.Image, box: Box, *, resolution: int, preprocessing: Preprocessing
) -> np.ndarray:
    # Only the crop is computed: the whole resized picture of a long panorama exceeds the memory.
    width, height = image.size
    shape = (resolution, resolution)
    resample = INTERPOLATIONS[preprocessing.interpolation]
    # Pillow 13 resizes the columns of a tall picture first, earlier versions its rows; all of them
    # resize the rows of a wide one first. A transposed picture has the same bytes in all versions.
    if height - resolution > max(0, 2 * (width - resolution)):
        transposed = image.transpose(Image.Transpose.TRANSPOSE)
        pixels = np.asarray(transposed.resize(shape, resample, box=(*box[1::-1], *box[:1:-1])))
        return np.ascontiguousarray(pixels.transpose(1, 0, 2))
    return np.asarray(image.resize(shape, resample, box=box))
