"""Writes a bundle's or an app's folder, whole or not at all."""

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
from convert.settings import ConversionSettings
from shufflelite import lock
from shufflelite.atomic import clear_leftovers, runs_elsewhere, temporary_name, writer_of
from shufflelite.errors import InputError

if TYPE_CHECKING:
    from convert.bundle.report import ConversionReport

ABBREVIATIONS = {"width": "x", "groups": "g"}  # of options in a bundle's name


def folder(settings: ConversionSettings) -> Path:
    """The bundle's folder, out/MODEL_OPTIONS_RESOLUTION_PRECISION_..., by all that matters."""
    model = settings.model
    names = sorted(model.options, key=lambda name: (name not in ABBREVIATIONS, name))
    options = [_label(name, model.options[name]) for name in names if name != "allow_any_width"]
    parts = [
        model.name,
        *options,
        f"{model.input_resolution}",
        settings.quantization.precision.value,
    ]
    if settings.qat.requested:
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
    return ABBREVIATIONS.get(name, name) + f"{value:g}"


def check_writable(bundle: Path) -> None:
    """Raises InputError if the bundle could not be written, before any work is done."""
    if bundle.exists() and not (bundle / "report.json").is_file():
        raise InputError(f"{bundle} exists and is not a bundle: move it, or choose another --out.")
    try_folder(bundle, flag="out")


def try_folder(folder: Path, *, flag: str) -> None:
    """Raises InputError if `write_folder` could not write."""
    with _folder_beside(Path(os.path.realpath(folder)), flag=flag):
        pass  # only trying tells permissions, mounts and quotas


def exclusive(folder: Path, *, flag: str) -> AbstractContextManager[None]:
    """Raises InputError in a second process that wants to write the folder at the same time."""
    folder = Path(os.path.realpath(folder))
    on_busy = lock.refuse(folder, f"choose another --{flag}")
    return lock.exclusive(folder.with_name(f".{folder.name}.lock"), on_busy=on_busy)


def write(
    bundle: Path, data: bytes, report: "ConversionReport", class_names: tuple[str, ...] | None
) -> None:
    """Writes a bundle; see `write_folder`."""
    from convert.bundle.card.render import to_markdown  # late: imports TensorFlow
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
    """Writes the files to a new folder and swaps it with `folder`, which is whole at any moment.

    Args:
      folder: Replaced with all that it holds.
      files: Path in the folder -> content.
      flag: The flag that names the folder, for messages.

    Raises:
      InputError: the folder cannot be written, or the disk is full.
    """
    folder = Path(os.path.realpath(folder))
    with _folder_beside(folder, flag=flag) as partial:
        for name, content in files.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            _write_through(partial / name, content)
        _rename(partial, folder)


@contextlib.contextmanager
def _folder_beside(bundle: Path, *, flag: str) -> Iterator[Path]:
    """Makes a folder beside `bundle`; removes it on exit, with the parents it created, if empty."""
    _clear_leftovers(bundle)
    created = [p for p in bundle.parents if not p.exists()]
    folder = temporary_name(bundle.with_name(f".{bundle.name}"))
    try:
        folder.mkdir(parents=True)
        yield folder
    except OSError as error:
        raise InputError(
            f"Expected a folder that can be written for --{flag}, got {bundle.parent} "
            f"({error.strerror or error}): make room there, or choose another; an older bundle "
            "is unchanged."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: the bundle is there
            for parent in created:
                parent.rmdir()


def _clear_leftovers(bundle: Path) -> None:
    """Removes what killed runs left beside `bundle`, unless it is the only copy of the bundle."""
    if not bundle.parent.is_dir():
        return
    pattern = rf"\.{re.escape(bundle.name)}\.\d+\.\w+\.part\.old"
    for old in bundle.parent.iterdir():
        process = writer_of(old.with_suffix("")) if re.fullmatch(pattern, old.name) else None
        if process and not runs_elsewhere(process):
            if bundle.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.rename(bundle)
    clear_leftovers(bundle.parent)


def _rename(folder: Path, bundle: Path) -> None:
    """Renames `folder` to `bundle`, in one step if possible; an older bundle gets its name."""
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
    """Swaps two folders in one step; False if the system or the file system cannot."""
    at_fdcwd, rename_exchange = -100, 2
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except AttributeError:
        return False
    return renameat2(at_fdcwd, os.fsencode(one), at_fdcwd, os.fsencode(other), rename_exchange) == 0


def _write_through(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # a full disk shows here, not after the names have changed
