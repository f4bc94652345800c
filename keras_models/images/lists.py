"""Sources of pictures: lists the files of folders and csv files, with their classes."""

import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from keras_models.images.formats import EXTENSIONS
from shufflelite import limited
from shufflelite.display import one_line
from shufflelite.errors import InputError

FILE_COLUMNS = ("file", "filename", "path")
LABEL_COLUMNS = ("class_index", "label")
DELIMITERS = (",", ";", "\t")  # of csv files; spreadsheets of many languages write semicolons
SCHEMES = ("synthetic", "tfds")  # sources that are not paths: synthetic:COUNT, tfds:NAME/SPLIT


@dataclass(frozen=True)
class PictureList:
    """Picture files in a stable order, with their class indices where these are known."""

    files: tuple[Path, ...]
    labels: tuple[int, ...] | None = None
    class_names: tuple[str, ...] | None = None


def scheme(source: str) -> str:
    """Returns the one of SCHEMES that `source` starts with; "" for a path."""
    name, colon, _ = source.partition(":")
    return name if colon and name in SCHEMES else ""


def find(
    source: str | Path,
    *,
    labels_from_folders: bool = False,
    warn: Callable[[str], None] = lambda line: None,
) -> PictureList:
    """Lists the pictures of a folder, recursively, or of a csv file.

    Args:
        source: A folder, or a csv whose header names a file column and maybe a label column.
        labels_from_folders: Take each picture's class from its folder: the index of that
            folder's name among the sorted subfolders of `source`.
        warn: Called with one line about all files of a folder that are no pictures.
    """
    source = Path(source)
    if source.is_dir():
        return _find_in_folder(source, labels_from_folders=labels_from_folders, warn=warn)
    if source.suffix.lower() == ".csv" and (source.is_file() or not source.exists()):  # no pipe
        if labels_from_folders:
            raise InputError(f"{source}: labels from folders need a folder, not a csv file.")
        return _find_in_csv(source)
    found = "this kind of file" if source.exists() else "nothing of that name"
    raise InputError(f"{source}: expected a folder of pictures or a .csv file, found {found}.")


def has_class_folders(folder: Path) -> bool:
    """Whether no picture lies directly in `folder`: its subfolders are then classes."""
    return not any(
        path.suffix.lower() in EXTENSIONS and path.is_file() for path in folder.iterdir()
    )


def _find_in_folder(
    folder: Path, *, labels_from_folders: bool, warn: Callable[[str], None]
) -> PictureList:
    visible = [path.relative_to(folder) for path in _visible(folder)]
    files: list[Path] = []
    others: list[Path] = []
    for relative in visible:
        if relative.suffix.lower() in EXTENSIONS and (folder / relative).is_file():
            files.append(relative)
        elif not (folder / relative).is_dir():
            others.append(relative)
    if not files:
        found = _kinds(others) if others else "none"
        raise InputError(
            f"{folder}: expected pictures ({' '.join(sorted(EXTENSIONS))}), found {found}."
        )
    if others:
        warn(f"{folder}: left out what is no picture, or of a kind not read: {_kinds(others)}")
    paths = tuple(folder / relative for relative in files)
    if not labels_from_folders:
        return PictureList(paths)
    for relative in files:
        if len(relative.parts) != 2:
            raise InputError(
                f"{folder}: expected each picture in a folder named after its class, "
                f"found {relative.as_posix()}."
            )
    # Folders without pictures count too, or train/ and test/ could number their classes
    # differently; broken links to folders likewise.
    at_top = (path for path in visible if len(path.parts) == 1)
    names = [path.name for path in at_top if not (folder / path).is_file()]
    for name in names:
        # labels.txt has a line for each class, in UTF-8
        if name.encode(errors="replace").decode().splitlines() != [name]:
            raise InputError(
                f"{folder}: expected names of classes in one line of UTF-8, got {name!r}."
            )
    index = {name: number for number, name in enumerate(names)}
    return PictureList(paths, tuple(index[file.parts[0]] for file in files), tuple(names))


def _kinds(files: Sequence[Path]) -> str:
    """How many files there are of each ending, and which comes first."""
    counts = Counter(
        "broken link or pipe" if ending in EXTENSIONS else ending or "no ending"
        for ending in (file.suffix.lower() for file in files)
    )
    kinds = [f"{count} {ending}" for ending, count in counts.most_common(5)]
    more = ["..."] if len(counts) > 5 else []
    install = "; .heic needs pip install pillow-heif" if {".heic", ".heif"} & {*counts} else ""
    return f"{', '.join(kinds + more)} (first: {files[0].as_posix()}){install}"


def _visible(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yields what is not hidden in the folder, sorted; follows links, but not in circles."""
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries_on_disk:
        entries = sorted(entries_on_disk, key=lambda entry: entry.name)
    for entry in entries:
        if not entry.name.startswith("."):
            yield folder / entry.name
            if entry.is_dir():
                yield from _visible(folder / entry.name, (*above, real))


def _find_in_csv(path: Path) -> PictureList:
    files: list[Path] = []
    labels: list[int] = []
    missing: list[str] = []
    try:
        limited.check(path, limited.TABLE_BYTES)
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = _reader(stream, path)
            header = reader.fieldnames or []
            file_column = next(name for name in FILE_COLUMNS if name in header)
            label_column = next((name for name in LABEL_COLUMNS if name in header), None)
            for row in reader:
                files.append(path.parent / (name := (row[file_column] or "").strip()))
                if not files[-1].is_file():
                    missing.append(f"line {reader.line_num}: {name!r:.100}")
                if label_column is not None:
                    labels.append(_label(row[label_column], f"{path} line {reader.line_num}"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", error)  # without the file name, which may be long
        raise InputError(f"{path}: expected a csv file with a header ({why}).") from error
    if not files:
        raise InputError(f"{path}: expected a line for each picture, found only the header.")
    if missing:
        raise InputError(
            f"{path} {missing[0]} is not a file; {len(missing)} of its {len(files)} files are "
            "missing. Paths are relative to the csv."
        )
    return PictureList(tuple(files), None if label_column is None else tuple(labels))


def _reader(stream: TextIO, path: Path) -> "csv.DictReader[str]":
    """Reads the header, with the delimiter that yields a column of files."""
    headers = []
    for delimiter in DELIMITERS:
        stream.seek(0)
        reader = csv.DictReader(stream, delimiter=delimiter, skipinitialspace=True)
        headers.append(", ".join(reader.fieldnames or []))
        reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or []]
        if {*FILE_COLUMNS} & {*reader.fieldnames}:
            return reader
    raise InputError(
        f"{path}: expected a header with one of {', '.join(FILE_COLUMNS)}, "
        f"got {one_line(headers[0] or 'an empty file')}."
    )


def _label(text: str | None, line: str) -> int:
    if text is None or not re.fullmatch(r"\s*[0-9]{1,9}\s*", text):
        raise InputError(f"{line}: expected a label that is an integer >= 0, got {text!r:.100}.")
    return int(text)
