"""Labelled pictures, in memory where they fit, and read again each time where they do not."""

import collections
import hashlib
import math
import os
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_models.images import class_names, decode, lists
from keras_models.images.decode import Preprocessing
from keras_models.images.lists import PictureList
from shufflelite.errors import InputError

Batch = tuple[np.ndarray, np.ndarray]  # uint8 (b, h, w, 3), int64 (b,)
SYNTHETIC_CLASSES = 10
MOST_CLASSES = 1_000_000  # a larger label is no class, and would take as much memory


@dataclass(frozen=True, eq=False)
class Split:
    """Pictures with labels; `read` makes batches of the pictures of each of several indices."""

    origin: str
    labels: np.ndarray  # int64, (n,)
    class_names: tuple[str, ...] | None
    sha256: str  # of pixels and labels, or of the files' names and sizes where they stream
    read: Callable[[Iterable[np.ndarray]], Iterator[Batch]]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """How many classes it numbers."""
        return len(self.class_names) if self.class_names else int(self.labels.max()) + 1


def load(
    source: str,
    *,
    size: int,
    preprocessing: Preprocessing,
    in_memory_gb: float,
    seed: int,
    warn: Callable[[str], None],
) -> Split:
    """Reads labelled pictures.

    Args:
      source: A folder that has a folder for each class, a csv, an .npz file, tfds:NAME/SPLIT, or
        synthetic:COUNT (drawn, ten classes).
      size: Height and width that they are decoded to.
      preprocessing: How they are resized and cropped to that size.
      in_memory_gb: The most that decoded pictures may take; files beyond are read when needed.
      seed: Of synthetic pictures.
      warn: Gets a line for each picture that is left out.

    Raises:
      InputError: nothing there that can be read, or no labels.
    """
    scheme, colon, rest = source.partition(":")
    if colon and scheme == "synthetic":
        return _synthetic(source, rest, size=size, seed=seed)
    if colon and scheme == "tfds":
        return _from_tfds(source, rest, size=size, preprocessing=preprocessing)
    if Path(source).suffix.lower() == ".npz":
        pictures = decode.read_npz(source, size=size)
        return _in_memory(source, pictures.pixels, pictures.labels, None)
    found = lists.find(source, labels_from_folders=Path(source).is_dir())
    if len(found.files) * size * size * 3 > in_memory_gb * 1e9:
        return _streamed(source, found, size=size, preprocessing=preprocessing)
    pictures = decode.read_pictures(found, size=size, preprocessing=preprocessing, warn=warn)
    return _in_memory(source, pictures.pixels, pictures.labels, pictures.class_names)


def aligned(test: Split, train: Split) -> Split:
    """Gives `test` the classes of `train`; raises InputError where they are not the same ones."""
    if train.class_names and test.class_names and test.class_names != train.class_names:
        other = sorted(set(train.class_names) ^ set(test.class_names))
        raise InputError(
            f"{test.origin}: expected the {train.classes} classes of {train.origin}, got "
            f"{test.classes}; in one of them only: {', '.join(other[:5])}."
        )
    if test.labels.max() >= train.classes:
        raise InputError(
            f"{test.origin}: expected labels below {train.classes}, the classes of "
            f"{train.origin}, got {test.labels.max()}."
        )
    return replace(test, class_names=train.class_names)


def numbered(split: Split, names: tuple[str, ...] | None, classes: int, owner: str) -> Split:
    """Gives `split` the labels that a network has for its classes.

    Args:
      split: Pictures of some or all of them.
      names: Of the network's classes, where they are known: they decide where both have some.
      classes: How many the network has.
      owner: Whose they are, for messages.

    Raises:
      InputError: a class that the network does not have, or nothing that tells which is which.
    """
    own = split.class_names
    if own is None:
        if (greatest := split.labels.max()) >= classes:
            raise InputError(
                f"{split.origin}: expected labels below {classes}, the classes of {owner}, got "
                f"{greatest}."
            )
        return replace(split, class_names=names)
    numbers = class_names.numbers(own, names, classes=classes, origin=split.origin, owner=owner)
    if names is None:
        return split

    def read(batches: Iterable[np.ndarray]) -> Iterator[Batch]:
        for pixels, labels in split.read(batches):
            yield pixels, numbers[labels]

    return replace(split, labels=numbers[split.labels], class_names=names, read=read)


def check_classes(split: Split, warn: Callable[[str], None]) -> None:
    """Checks that there is something to learn of each class.

    Args:
      split: What is trained on.
      warn: Is told of classes with a single picture.

    Raises:
      InputError: a single class, or one without pictures.
    """
    counts = np.bincount(split.labels, minlength=split.classes)

    def names(numbers: Sequence[int] | np.ndarray) -> str:
        named = [split.class_names[n] if split.class_names else str(n) for n in numbers[:5]]
        return ", ".join(named) + (", ..." if len(numbers) > 5 else "")

    if split.classes < 2:
        raise InputError(f"{split.origin}: expected at least two classes, got {names([0])} alone.")
    if len(empty := np.flatnonzero(counts == 0)):
        raise InputError(
            f"{split.origin}: expected pictures of each class, found none of {names(empty)}: add "
            "some, or remove the class."
        )
    if len(single := np.flatnonzero(counts == 1)):
        warn(f"{split.origin}: a single picture of {names(single)}, from which little is learnt")


def _in_memory(
    origin: str,
    pixels: np.ndarray,
    labels: np.ndarray | None,
    class_names: tuple[str, ...] | None,
) -> Split:
    labels = _required(labels, origin)
    sha256 = hashlib.sha256((decode.digest(pixels) + decode.digest(labels)).encode()).hexdigest()

    def read(batches: Iterable[np.ndarray]) -> Iterator[Batch]:
        for indices in batches:
            yield pixels[indices], labels[indices]

    return Split(origin, labels, class_names, sha256, read)


def _streamed(origin: str, found: PictureList, *, size: int, preprocessing: Preprocessing) -> Split:
    labels = _required(None if found.labels is None else np.array(found.labels, np.int64), origin)
    sha256 = hashlib.sha256()
    for file, label in zip(found.files, labels, strict=True):
        sha256.update(f"{file.name} {file.stat().st_size} {label}\n".encode(errors="replace"))

    def load(index: int) -> np.ndarray:
        return decode.load_picture(found.files[index], size=size, preprocessing=preprocessing)

    def read(batches: Iterable[np.ndarray]) -> Iterator[Batch]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            pending: collections.deque[tuple[np.ndarray, list[Any]]] = collections.deque()
            try:
                for indices in batches:
                    pending.append((indices, [pool.submit(load, int(i)) for i in indices]))
                    if len(pending) > 2:  # two batches ahead keep the cores busy
                        yield _collect(pending, labels)
                while pending:
                    yield _collect(pending, labels)
            finally:
                pool.shutdown(cancel_futures=True)

    return Split(origin, labels, found.class_names, sha256.hexdigest(), read)


def _collect(pending: Any, labels: np.ndarray) -> Batch:
    indices, futures = pending.popleft()
    return np.stack([future.result() for future in futures]), labels[indices]


def _required(labels: np.ndarray | None, origin: str) -> np.ndarray:
    if labels is None:
        raise InputError(
            f"{origin}: expected labels: a folder for each class, a csv with a column "
            f"{' or '.join(lists.LABEL_COLUMNS)}, or 'labels' in the .npz."
        )
    if (greatest := int(labels.max())) >= MOST_CLASSES:
        raise InputError(f"{origin}: expected labels below {MOST_CLASSES}, got {greatest}.")
    return labels


def _synthetic(origin: str, count: str, *, size: int, seed: int) -> Split:
    """Draws a class as a stripe pattern of its own direction and color, under noise."""
    if not (count.isascii() and count.isdigit() and int(count) >= SYNTHETIC_CLASSES):
        raise InputError(
            f"{origin}: expected synthetic:COUNT with at least {SYNTHETIC_CLASSES} pictures."
        )
    rng = np.random.default_rng(seed)
    labels = np.arange(int(count)) % SYNTHETIC_CLASSES
    rows, columns = np.mgrid[:size, :size] / size
    pixels = np.empty((len(labels), size, size, 3), np.uint8)
    for index, label in enumerate(labels):
        angle = math.pi * label / SYNTHETIC_CLASSES
        along = rows * math.sin(angle) + columns * math.cos(angle)
        stripes = np.sin(2 * math.pi * (3 * along + rng.uniform()))
        color = 40 + 50 * np.cos(2 * math.pi * (label / SYNTHETIC_CLASSES + np.arange(3) / 3))
        picture = 128 + stripes[..., None] * color + rng.normal(0, 40, (size, size, 3))
        pixels[index] = np.clip(picture, 0, 255)
    names = tuple(f"stripes{label}" for label in range(SYNTHETIC_CLASSES))
    return _in_memory(origin, pixels, labels, names)


def _from_tfds(origin: str, rest: str, *, size: int, preprocessing: Preprocessing) -> Split:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise InputError(
            f"{origin}: needs tensorflow_datasets: pip install tensorflow-datasets."
        ) from error
    name, _, split = rest.rpartition("/")
    if not (name and split):
        raise InputError(f"{origin}: expected tfds:NAME/SPLIT, as tfds:cifar10/train.")

    def resize(image: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(image.squeeze()).convert("RGB")
        return decode.resize_and_crop(picture, size=size, preprocessing=preprocessing)

    try:
        dataset, info = tfds.load(name, split=split, with_info=True, as_supervised=True)
        examples = [(resize(image), label) for image, label in dataset.as_numpy_iterator()]
    except Exception as error:  # any of the data sets' own, which may list all that there are
        why = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise InputError(f"{origin}: {why}") from error
    if not examples:
        raise InputError(f"{origin}: expected pictures, found none.")
    pixels, labels = zip(*examples, strict=True)
    names = tuple(info.features["label"].names)
    return _in_memory(origin, np.stack(pixels), np.array(labels, np.int64), names)
