"""The one reader of pictures, for training, conversion and measurements of accuracy."""

import collections
import hashlib
import math
import os
import random
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_models.images import decode, lists
from keras_models.images.decode import Preprocessing
from shufflelite.errors import InputError

Batch = tuple[np.ndarray, np.ndarray]  # uint8 (b, h, w, 3), int64 (b,)
SYNTHETIC_CLASSES = 10
MAX_CLASSES = 1_000_000  # a larger label is a mistake, and would take as much memory


@dataclass(frozen=True, eq=False)
class StreamedPixels:
    """Pixels that are decoded from their files each time they are read."""

    files: Sequence[Path]
    resolution: int
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.files)

    def read(self, batches: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the indices and the pixels of each batch of indices."""

        def load(index: int) -> np.ndarray:
            return decode.load_picture(
                self.files[index], resolution=self.resolution, preprocessing=self.preprocessing
            )

        def collect() -> tuple[np.ndarray, np.ndarray]:
            indices, futures = pending.popleft()
            return indices, np.stack([future.result() for future in futures])

        pending: collections.deque[tuple[np.ndarray, list[Any]]] = collections.deque()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            try:
                for indices in batches:
                    pending.append((indices, [pool.submit(load, int(i)) for i in indices]))
                    if len(pending) > 2:  # two batches ahead keep the cores busy
                        yield collect()
                while pending:
                    yield collect()
            finally:
                pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures of one resolution, with their labels where these are known.

    Attributes:
      origin: The source that they were read from.
      pixels: uint8 RGB, (n, resolution, resolution, 3).
      labels: int64, (n,).
      class_names: In the order of the labels.
      sha256: Of pixels and labels; of names and sizes of the files, and labels, if streamed.
      skipped: Files that could not be decoded.
    """

    origin: str
    pixels: np.ndarray | StreamedPixels
    labels: np.ndarray | None
    class_names: tuple[str, ...] | None
    sha256: str
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def known_labels(self) -> np.ndarray:
        """The labels of pictures that were loaded with `labels_required`."""
        assert self.labels is not None
        return self.labels

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names) if self.class_names else int(self.known_labels.max()) + 1

    def read(self, batches: Iterable[np.ndarray]) -> Iterator[Batch]:
        """Yields pixels and labels of each batch of indices."""
        if isinstance(self.pixels, StreamedPixels):
            for indices, pixels in self.pixels.read(batches):
                yield pixels, self.known_labels[indices]
        else:
            for indices in batches:
                yield self.pixels[indices], self.known_labels[indices]


def load(
    source: str,
    *,
    resolution: int,
    preprocessing: Preprocessing,
    seed: int,
    warn: Callable[[str], None],
    in_memory_gb: float = math.inf,
    limit: int | None = None,
    labels_required: bool = False,
) -> Pictures:
    """Reads pictures, and their labels where these are known.

    Args:
      source: A folder of pictures, or of one folder for each class; a csv; an .npz file;
        tfds:NAME/SPLIT; or synthetic:COUNT (drawn, ten classes).
      resolution: Height and width that they are decoded to.
      preprocessing: How they are resized and cropped to that resolution.
      seed: Of synthetic pictures, and of the choice that `limit` makes.
      warn: Called with one line for each picture that is skipped.
      in_memory_gb: Decoded pictures up to this size stay in memory; files beyond it are decoded
        each time they are read.
      limit: The maximum number of pictures; of more, a random subset in the source's order.
      labels_required: Refuse pictures without labels.

    Raises:
      InputError: nothing that can be read, or no labels where they are required.
    """
    scheme, path = lists.scheme(source), Path(source)
    is_npz = path.suffix.lower() == ".npz"
    if not scheme and not is_npz:
        class_folders = path.is_dir() and (labels_required or lists.has_class_folders(path))
        listed = lists.find(source, labels_from_folders=class_folders, warn=warn)
        chosen = _subset(len(listed.files), limit=limit, seed=seed)
        files = [listed.files[index] for index in chosen]
        labels = None if listed.labels is None else np.array(listed.labels, np.int64)[chosen]
        _check_labels(labels, source, required=labels_required)
        if len(files) * resolution * resolution * 3 > in_memory_gb * 1e9:
            streamed = StreamedPixels(files, resolution, preprocessing)
            sha256 = _sha256_of_files(files, labels)
            return Pictures(source, streamed, labels, listed.class_names, sha256)
        pixels, decoded = decode.read_files(
            files, resolution=resolution, preprocessing=preprocessing, warn=warn
        )
        skipped = tuple(str(files[i]) for i in sorted({*range(len(files))} - {*decoded}))
        labels = None if labels is None else labels[decoded]
        sha256 = _sha256(pixels, labels)
        return Pictures(source, pixels, labels, listed.class_names, sha256, skipped)
    names: tuple[str, ...] | None = None
    if scheme == "synthetic":
        pixels, labels, names = _synthetic(source, resolution=resolution, seed=seed)
    elif scheme == "tfds":
        pixels, labels, names = _from_tfds(
            source, resolution=resolution, preprocessing=preprocessing, limit=limit, seed=seed
        )
    else:
        pixels, labels = decode.read_npz(path, resolution=resolution)
    _check_labels(labels, source, required=labels_required)
    if limit is not None:
        chosen = _subset(len(pixels), limit=limit, seed=seed)
        pixels, labels = pixels[chosen], None if labels is None else labels[chosen]
    return Pictures(source, pixels, labels, names, _sha256(pixels, labels))


def aligned(test: Pictures, train: Pictures) -> Pictures:
    """Gives `test` the classes of `train`; raises InputError if they have other classes."""
    if train.class_names and test.class_names and test.class_names != train.class_names:
        difference = sorted(set(train.class_names) ^ set(test.class_names))
        raise InputError(
            f"{test.origin}: expected the {train.classes} classes of {train.origin}, got "
            f"{test.classes}; in one of them only: {', '.join(difference[:5])}."
        )
    if (greatest := test.known_labels.max()) >= train.classes:
        raise InputError(
            f"{test.origin}: expected labels below {train.classes}, the classes of "
            f"{train.origin}, got {greatest}."
        )
    return replace(test, class_names=train.class_names)


def match_classes(
    pictures: Pictures, names: tuple[str, ...] | None, classes: int, owner: str
) -> Pictures:
    """Gives `pictures` the labels that a network has for their classes.

    Args:
      pictures: Pictures of some or all classes of the network.
      names: The network's class names, if known: classes are then matched by name.
      classes: The network's number of classes.
      owner: The network, for messages.

    Raises:
      InputError: a class that the network does not have, or classes of unknown order.
    """
    origin, own_names, labels = pictures.origin, pictures.class_names, pictures.labels
    if labels is None:
        return pictures
    if own_names is None:
        if (greatest := labels.max()) >= classes:
            raise InputError(
                f"{origin}: expected labels below {classes}, the number of classes of {owner}, "
                f"got {greatest}: pass labels of this network."
            )
        return replace(pictures, class_names=names)
    if names is None:
        if len(own_names) != classes:
            raise InputError(
                f"{origin}: expected the {classes} classes of {owner}, got {len(own_names)} in "
                "unknown order: pass --labels with a class name a line."
            )
        return pictures
    if unmatched := [name for name in own_names if names.count(name) != 1]:
        problem = "several of them have" if unmatched[0] in names else "none of them has"
        raise InputError(
            f"{origin}: expected the classes of {owner}, got {unmatched[0]!r}, a name that "
            f"{problem} ({len(unmatched)} of {len(own_names)} classes do not match): pass --labels "
            "with these names in the network's order."
        )
    numbers = np.array([names.index(name) for name in own_names], np.int64)
    return replace(pictures, labels=numbers[labels], class_names=names)


def check_classes(
    pictures: Pictures, warn: Callable[[str], None], classes: int | None = None
) -> None:
    """Checks that there are pictures to learn each class from.

    Args:
      pictures: The training pictures.
      warn: Called with a line on classes of a single picture.
      classes: Their number; None: that of the pictures.

    Raises:
      InputError: a single class, or a class without pictures.
    """
    classes = classes or pictures.classes
    counts = np.bincount(pictures.known_labels, minlength=classes)

    def names(numbers: Sequence[int] | np.ndarray) -> str:
        named = [pictures.class_names[n] if pictures.class_names else str(n) for n in numbers[:5]]
        return ", ".join(named) + (", ..." if len(numbers) > 5 else "")

    origin = pictures.origin
    if classes < 2:
        raise InputError(f"{origin}: expected at least two classes, got {names([0])} alone.")
    if len(empty := np.flatnonzero(counts == 0)):
        raise InputError(
            f"{origin}: expected pictures of each class, found none of {names(empty)}: add some, "
            "or remove the class."
        )
    if len(single := np.flatnonzero(counts == 1)):
        warn(f"{origin}: only one picture of {names(single)}, too few to learn from")


def _subset(count: int, *, limit: int | None, seed: int) -> list[int]:
    if limit is None or limit >= count:
        return list(range(count))
    if limit < 1:
        raise InputError(f"Expected a limit of at least 1 picture, got {limit}.")
    return sorted(random.Random(seed).sample(range(count), limit))


def _check_labels(labels: np.ndarray | None, source: str, *, required: bool) -> None:
    if labels is None:
        if required:
            raise InputError(
                f"{source}: expected labels: a folder for each class, a csv with a column "
                f"{' or '.join(lists.LABEL_COLUMNS)}, or 'labels' in the .npz."
            )
    elif (greatest := labels.max()) >= MAX_CLASSES:
        raise InputError(f"{source}: expected labels below {MAX_CLASSES}, got {greatest}.")


def _sha256(pixels: np.ndarray, labels: np.ndarray | None) -> str:
    digests = [decode.digest(array) for array in (pixels, labels) if array is not None]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _sha256_of_files(files: Sequence[Path], labels: np.ndarray | None) -> str:
    sha256 = hashlib.sha256()
    for index, file in enumerate(files):
        label = "" if labels is None else labels[index]
        line = f"{file.name} {file.stat().st_size} {label}\n"
        sha256.update(line.encode(errors="replace"))
    return sha256.hexdigest()


def _synthetic(
    source: str, *, resolution: int, seed: int
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Draws each class as stripes of its own direction and color, under noise."""
    count = source.partition(":")[2]
    if not (count.isascii() and count.isdigit() and int(count) >= SYNTHETIC_CLASSES):
        raise InputError(
            f"{source}: expected synthetic:COUNT with at least {SYNTHETIC_CLASSES} pictures."
        )
    rng = np.random.default_rng(seed)
    labels = np.arange(int(count)) % SYNTHETIC_CLASSES
    rows, columns = np.mgrid[:resolution, :resolution] / resolution
    pixels = np.empty((len(labels), resolution, resolution, 3), np.uint8)
    for index, label in enumerate(labels):
        angle = math.pi * label / SYNTHETIC_CLASSES
        across = rows * math.sin(angle) + columns * math.cos(angle)
        stripes = np.sin(2 * math.pi * (3 * across + rng.uniform()))
        color = 40 + 50 * np.cos(2 * math.pi * (label / SYNTHETIC_CLASSES + np.arange(3) / 3))
        noise = rng.normal(0, 40, (resolution, resolution, 3))
        pixels[index] = np.clip(128 + stripes[..., None] * color + noise, 0, 255)
    return pixels, labels, tuple(f"stripes{label}" for label in range(SYNTHETIC_CLASSES))


def _from_tfds(
    source: str, *, resolution: int, preprocessing: Preprocessing, limit: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise InputError(
            f"{source}: needs tensorflow_datasets: pip install tensorflow-datasets."
        ) from error
    name, _, split = source.partition(":")[2].rpartition("/")
    if not (name and split):
        raise InputError(f"{source}: expected tfds:NAME/SPLIT, as tfds:cifar10/train.")

    def resize(image: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(image.squeeze()).convert("RGB")
        return decode.resize_and_crop(picture, resolution=resolution, preprocessing=preprocessing)

    try:
        dataset, info = tfds.load(name, split=split, with_info=True, as_supervised=True)
        chosen = None if limit is None else {*_subset(len(dataset), limit=limit, seed=seed)}
        examples = [
            (resize(image), label)
            for index, (image, label) in enumerate(dataset.as_numpy_iterator())
            if chosen is None or index in chosen
        ]
    except Exception as error:  # any error of the library; some list all its data sets
        reason = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise InputError(f"{source}: {reason}") from error
    if not examples:
        raise InputError(f"{source}: expected pictures, found none.")
    pixels, labels = zip(*examples, strict=True)
    names = tuple(info.features["label"].names)
    return np.stack(pixels), np.array(labels, np.int64), names
