"""The only writer: puts a bundle's folder, or an app's, in its place, whole or not at all."""

import contextlib
import ctypes
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from convert.bundle import c_array
from convert.settings import Settings
from shufflelite import lock
from shufflelite.atomic import runs_elsewhere
from shufflelite.errors import InputError

if TYPE_CHECKING:
    from convert.bundle.report import Report

SHORT = {"width": "x", "groups": "g"}  # in a bundle's name


def folder(settings: Settings) -> Path:
    """`out`/<model>_<options>_<resolution>_<precision>, and what the file is for."""
    model = settings.model
    named = sorted(model.options, key=lambda name: (name not in SHORT, name))
    options = [_label(name, model.options[name]) for name in named if name != "allow_any_width"]
    parts = [model.name, *options, f"{model.side}", settings.quantization.precision.value]
    if settings.qat.epochs:
        parts.append("qat")
    quantization = settings.quantization
    if quantization.keep_float or quantization.int16 or quantization.auto_precision:
        parts.append("mixed")
    if quantization.scores:
        parts.append("scores")
    lowering = settings.lowering
    if lowering.way == "direct":
        parts.append("direct")
    if lowering.target != "generic":
        parts.append(re.sub(r"[^\w.-]", "_", lowering.target))
    return Path(settings.out) / "_".join(parts)


def _label(name: str, value: bool | float | str) -> str:
    if isinstance(value, bool):
        return name if value else f"no_{name}"
    if isinstance(value, str):
        return re.sub(r"[^\w.-]", "_", value)
    return SHORT.get(name, name) + f"{value:g}"


def check_writable(bundle: Path) -> None:
    """Raises InputError where the bundle could not be written, before any work is done."""
    if bundle.exists() and not (bundle / "report.json").is_file():
        raise InputError(f"{bundle} exists and is not a bundle: move it, or choose another --out.")
    try_folder(bundle, flag="out")


def try_folder(folder: Path, *, flag: str) -> None:
    """Raises InputError where `write_folder` could not write."""
    with _folder_beside(Path(os.path.realpath(folder)), flag=flag):
        pass  # permissions, mounts and quotas are best known by trying


def exclusive(folder: Path, *, flag: str) -> AbstractContextManager[None]:
    """Raises InputError in a second process that wants to write the folder at the same time."""
    folder = Path(os.path.realpath(folder))
    on_busy = lock.refuse(folder, f"choose another --{flag}")
    return lock.exclusive(folder.with_name(f".{folder.name}.lock"), on_busy=on_busy)


def write(bundle: Path, data: bytes, report: "Report", class_names: tuple[str, ...] | None) -> None:
    """Writes a bundle; see `write_folder`."""
    from convert.bundle.card.render import to_markdown  # TensorFlow, for which no check waits
    from convert.bundle.report import to_json

    files = {
        "model.tflite": data,
        "report.json": to_json(report).encode(),
        "README.md": to_markdown(
            report, title=bundle.name, has_labels=class_names is not None
        ).encode(errors="backslashreplace"),  # names of files need not be UTF-8
    }
    if class_names is not None:
        files["labels.txt"] = ("\n".join(class_names) + "\n").encode()
    if report.settings.c_array:
        files |= c_array.sources(data, bundle.name)
    write_folder(bundle, files, flag="out")


def write_folder(folder: Path, files: Mapping[str, bytes], *, flag: str) -> None:
    """Writes the files beside `folder` and swaps the two: it is whole at any moment.

    Args:
      folder: What was there is gone then.
      files: Path in the folder -> content.
      flag: That named the folder, for messages.

    Raises:
      InputError: the disk is full, or does not let itself be written.
    """
    folder = Path(os.path.realpath(folder))
    with _folder_beside(folder, flag=flag) as partial:
        for name, content in files.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            _write_through(partial / name, content)
        _give_name(partial, folder)


@contextlib.contextmanager
def _folder_beside(bundle: Path, *, flag: str) -> Iterator[Path]:
    """Makes a folder beside `bundle`; it goes, and so do its parents that have no other use."""
    _clear_leftovers(bundle)
    made = [p for p in bundle.parents if not p.exists()]
    folder = bundle.with_name(f".{bundle.name}.{os.getpid()}.partial")
    try:
        folder.mkdir(parents=True)
        yield folder
    except OSError as error:
        raise InputError(
            f"Expected a folder that can be written for --{flag}, got {bundle.parent} "
            f"({error.strerror or error}): make room there, or choose another; an older bundle "
            "is as it was."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: the bundle is there
            for parent in made:
                parent.rmdir()


def _clear_leftovers(bundle: Path) -> None:
    """Removes what killed runs left beside `bundle`, but for a bundle that has no name else."""
    for left in bundle.parent.glob(f".{bundle.name}.*.partial*"):
        writer = left.name.removeprefix(f".{bundle.name}.").partition(".")[0]
        if writer.isdigit() and not runs_elsewhere(int(writer)):
            if left.suffix == ".old" and not bundle.exists():
                left.rename(bundle)
            else:
                shutil.rmtree(left, ignore_errors=True)


def _give_name(folder: Path, bundle: Path) -> None:
    """Makes `folder` the bundle, in one step where the system can; an older one gets its name."""
    if not bundle.exists():
        folder.rename(bundle)
    elif not _swap(folder, bundle):
        old = bundle.with_name(f"{folder.name}.old")
        bundle.rename(old)
        try:
            folder.rename(bundle)
        except BaseException:
            old.rename(bundle)
            raise
        old.rename(folder)


def _swap(one: Path, other: Path) -> bool:
    """Swaps the names of two folders; False where only Linux or the file system could not."""
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except AttributeError:
        return False
    return renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def _write_through(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # a full disk is told here, not after the names have changed
