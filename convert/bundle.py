"""The only writer: puts a bundle's folder in its place, whole or not at all."""

import os
import shutil
from pathlib import Path

from convert.report import Report, to_json, to_markdown
from convert.settings import Settings
from keras_models.errors import InputError


def folder(settings: Settings) -> Path:
    """`out`/<model>_<variant>_<resolution>_<precision>."""
    model = settings.model
    variant = [f"x{model.width or 1.0:g}", model.stem or "", model.variant or ""]
    resolution = round(model.resolution * model.resolution_multiplier)
    parts = [model.name, *filter(None, variant), resolution, settings.quantization.precision.value]
    return Path(settings.out) / "_".join(map(str, parts))


def check_writable(bundle: Path) -> None:
    """Raises InputError where the bundle could not be written, before any work is done."""
    parent = next(p for p in bundle.absolute().parents if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"Expected a folder that can be written for --out, got {parent}.")
    if bundle.exists() and not (bundle / "report.json").is_file():
        raise InputError(f"{bundle} exists and is not a bundle: move it, or choose another --out.")


def write(bundle: Path, data: bytes, report: Report, class_names: tuple[str, ...] | None) -> None:
    """Writes the files beside `bundle` and then changes the names; an older bundle is replaced."""
    files = {
        "model.tflite": data,
        "report.json": to_json(report).encode(),
        "README.md": to_markdown(
            report, title=bundle.name, has_labels=class_names is not None
        ).encode(),
    }
    if class_names is not None:
        files["labels.txt"] = ("\n".join(class_names) + "\n").encode()
    partial = bundle.with_name(f".{bundle.name}.partial")
    replaced = bundle.with_name(f".{bundle.name}.replaced")
    created = [p for p in (bundle.parent, *bundle.parent.parents) if not p.exists()]
    partial.mkdir(parents=True, exist_ok=True)
    try:
        for name, content in files.items():
            _write_through(partial / name, content)
        shutil.rmtree(replaced, ignore_errors=True)
        if bundle.exists():
            bundle.rename(replaced)
        partial.rename(bundle)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        if replaced.exists() and not bundle.exists():
            replaced.rename(bundle)
        for parent in created:
            parent.rmdir()
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def _write_through(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # a full disk is told here, not after the names have changed
