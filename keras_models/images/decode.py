"""Pictures from files and .npz archives, as the uint8 pixels that a network's input needs."""

import contextlib
import hashlib
import os
import random
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from keras_models.images import lists
from keras_models.images.lists import PictureList
from shufflelite.display import one_line
from shufflelite.errors import InputError

INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
CHANNEL_ORDERS = ("rgb", "bgr")

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a network's input: a fact about the network's weights.

    Attributes:
        mean: Subtracted from each channel, in pixel units 0..255 and in `channel_order`.
        std: Divides each channel afterwards; likewise.
        channel_order: Order of the channels that the network expects, "rgb" or "bgr".
        crop_fraction: A picture's shorter side becomes round(size / crop_fraction) pixels, of
            which the central `size` are kept.
        interpolation: Resampling filter, "bilinear" or "bicubic", widened when it shrinks.
    """

    mean: Triple = (127.5, 127.5, 127.5)
    std: Triple = (127.5, 127.5, 127.5)
    channel_order: str = "rgb"
    crop_fraction: float = 0.875
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise InputError(
                f"Expected three means and three positive stds, got {self.mean} and {self.std}."
            )
        if self.channel_order not in CHANNEL_ORDERS:
            raise InputError(
                f"Expected channel_order to be one of {', '.join(CHANNEL_ORDERS)}, "
                f"got {self.channel_order!r}."
            )
        if not 0 < self.crop_fraction <= 1:
            raise InputError(f"Expected crop_fraction in (0, 1], got {self.crop_fraction}.")
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

    def shorter_side(self, size: int) -> int:
        """What a picture's shorter side is resized to for an input of `size`, in pixels."""
        return round(size / self.crop_fraction)

    @property
    def input_range(self) -> tuple[float, float]:
        """The least and the greatest value of an input: those of black and white pixels."""
        black, white = (
            [(pixel - m) / s for m, s in zip(self.mean, self.std, strict=True)]
            for pixel in (0, 255)
        )
        return min(black), max(white)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Decoded pictures: `pixels` is uint8 RGB, (n, size, size, 3), `labels` int64, (n,)."""

    pixels: np.ndarray
    labels: np.ndarray | None
    files: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    class_names: tuple[str, ...] | None = None


class _UnreadableError(InputError):
    """One picture cannot be decoded; the message is the reason, without the file's name."""


def read_pictures(
    pictures: PictureList,
    *,
    size: int,
    preprocessing: Preprocessing,
    warn: Callable[[str], None],
    limit: int | None = None,
    seed: int = 0,
) -> Pictures:
    """Decodes `pictures`, resized and cropped to `size`.

    Args:
        pictures: What to read; the result keeps its order.
        size: Height and width of the network's input.
        preprocessing: Says how to resize and crop.
        warn: Gets one line for each picture that cannot be decoded and is left out.
        limit: Read a random subset of this many pictures; the same `seed` picks the same ones.
        seed: Seed of that choice.
    """
    chosen = _subset(len(pictures.files), limit=limit, seed=seed)
    files = [pictures.files[index] for index in chosen]
    pixels = np.empty((len(files), size, size, 3), np.uint8)
    kept: list[int] = []
    skipped: list[str] = []

    def attempt(file: Path) -> np.ndarray | _UnreadableError:
        try:
            return _load(file, size=size, preprocessing=preprocessing)
        except _UnreadableError as error:
            return error

    with _bombs_are_errors(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for index, result in zip(chosen, pool.map(attempt, files), strict=True):
            file = pictures.files[index]
            if isinstance(result, _UnreadableError):
                warn(f"skipped {file}: {result}")
                skipped.append(str(file))
            else:
                pixels[len(kept)] = result
                kept.append(index)
    if not kept:
        raise InputError(f"None of the {len(files)} pictures can be decoded; first: {skipped[0]}.")
    labels = pictures.labels
    return Pictures(
        pixels=pixels[: len(kept)],
        labels=None if labels is None else np.array([labels[i] for i in kept], np.int64),
        files=tuple(str(pictures.files[i]) for i in kept),
        skipped=tuple(skipped),
        class_names=pictures.class_names,
    )


def read_npz(path: str | Path, *, size: int, limit: int | None = None, seed: int = 0) -> Pictures:
    """Reads decoded pictures: uint8 `images`, (n, size, size, 3), and maybe `labels`, (n,)."""
    expected = f"uint8 'images' of shape (n, {size}, {size}, 3)"
    try:
        # NumPy leaves a file open that it opened itself and cannot read.
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            if "images" not in archive:
                found = ", ".join(sorted(archive)) or "nothing"
                raise InputError(f"{path}: expected {expected}, found {found}.")
            images = np.asarray(archive["images"])  # bytes, where the member is no array
            labels = np.asarray(archive["labels"]) if "labels" in archive else None
    except InputError:
        raise
    # NumPy gives a bare array for .npy, hence AttributeError and TypeError.
    except Exception as error:
        found = one_line(error)
        raise InputError(f"{path}: expected an .npz file with {expected} ({found}).") from error
    if images.dtype != np.uint8 or images.shape[1:] != (size, size, 3) or not len(images):
        raise InputError(
            f"{path}: expected {expected}, got {images.dtype} {images.shape}; store pixels before "
            "any normalization, at the network's resolution."
        )
    if labels is not None and (
        labels.shape != images.shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0
    ):
        raise InputError(
            f"{path}: expected {len(images)} integer 'labels' >= 0, "
            f"got {labels.dtype} {labels.shape}."
        )
    chosen = _subset(len(images), limit=limit, seed=seed)
    return Pictures(
        pixels=images[chosen],
        labels=None if labels is None else labels[chosen].astype(np.int64),
        files=tuple(f"{path}[{index}]" for index in chosen),
    )


def read_source(
    source: str | Path,
    *,
    size: int,
    preprocessing: Preprocessing,
    warn: Callable[[str], None],
    limit: int | None = None,
    seed: int = 0,
    labels_from_folders: bool = False,
) -> Pictures:
    """Reads a folder, csv or .npz; see `lists.find`, `read_pictures` and `read_npz`."""
    if Path(source).suffix.lower() == ".npz":
        return read_npz(source, size=size, limit=limit, seed=seed)
    return read_pictures(
        lists.find(source, labels_from_folders=labels_from_folders),
        size=size,
        preprocessing=preprocessing,
        warn=warn,
        limit=limit,
        seed=seed,
    )


def load_picture(path: str | Path, *, size: int, preprocessing: Preprocessing) -> np.ndarray:
    """Decodes one picture to uint8 RGB, (size, size, 3)."""
    try:
        with _bombs_are_errors():
            return _load(Path(path), size=size, preprocessing=preprocessing)
    except _UnreadableError as error:
        raise InputError(f"{path}: {error}") from error


def digest(pixels: np.ndarray) -> str:
    """Returns the SHA-256 of the shape and bytes of `pixels`."""
    sha256 = hashlib.sha256(repr(pixels.shape).encode())
    sha256.update(np.ascontiguousarray(pixels).data)
    return sha256.hexdigest()


def _subset(count: int, *, limit: int | None, seed: int) -> list[int]:
    if limit is None or limit >= count:
        return list(range(count))
    if limit < 1:
        raise InputError(f"Expected a limit of at least 1 picture, got {limit}.")
    return sorted(random.Random(seed).sample(range(count), limit))


@contextlib.contextmanager
def _bombs_are_errors() -> Iterator[None]:
    """Turns Pillow's warning of huge pictures into an error, and silences its other warnings.

    Filters belong to the process, not to a thread, so this is entered outside of the pool.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _load(path: Path, *, size: int, preprocessing: Preprocessing) -> np.ndarray:
    try:
        with Image.open(path) as image:
            image.load()
            rgb = _to_rgb(ImageOps.exif_transpose(image))
    except _UnreadableError:
        raise
    # Pillow's decoders raise nearly anything on damaged files, from SyntaxError to struct.error.
    except Exception as error:
        raise _UnreadableError(f"cannot be decoded ({one_line(error)})") from error
    return resize_and_crop(rgb, size=size, preprocessing=preprocessing)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _eight_bit_grey(image)
    elif image.mode == "F":
        raise _UnreadableError("floating-point samples have no defined white; save it as 8 bits")
    if image.has_transparency_data:
        # What hides behind transparent pixels is arbitrary, often black; cut-outs and drawings
        # are made to be seen on a white page.
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _eight_bit_grey(image: Image.Image) -> Image.Image:
    """Scales 16-bit grey; Pillow's own conversion clips at 255 and leaves a white picture."""
    samples = np.asarray(image).astype(np.int64)
    if samples.min() < 0 or samples.max() > 65535:
        raise _UnreadableError("32-bit samples have no defined white; save it as 8 or 16 bits")
    return Image.fromarray(np.round(samples / 257).astype(np.uint8))


def resize_and_crop(image: Image.Image, *, size: int, preprocessing: Preprocessing) -> np.ndarray:
    """Resizes the shorter side, then crops centrally, with torchvision's rounding."""
    width, height = image.size
    shorter = preprocessing.shorter_side(size)
    resized_width = shorter * width // min(width, height)
    resized_height = shorter * height // min(width, height)
    left = round((resized_width - size) / 2)
    top = round((resized_height - size) / 2)
    # Only the crop is computed: of a long panorama the resized picture would not fit in memory.
    box = (
        left * width / resized_width,
        top * height / resized_height,
        (left + size) * width / resized_width,
        (top + size) * height / resized_height,
    )
    resample = INTERPOLATIONS[preprocessing.interpolation]
    # Of a tall picture Pillow 13 resizes the columns first, earlier ones the rows, as all do of a
    # wide one: laid on its side, it gives the bytes of 13 in all of them.
    if height - size > max(0, 2 * (width - size)):
        lying = image.transpose(Image.Transpose.TRANSPOSE)
        pixels = np.asarray(lying.resize((size, size), resample, box=(*box[1::-1], *box[:1:-1])))
        return np.ascontiguousarray(pixels.transpose(1, 0, 2))
    return np.asarray(image.resize((size, size), resample, box=box))
