"""Writes the folder of an accuracy measurement."""

import re
from pathlib import Path

from convert.accuracy import confusion
from convert.accuracy.report import AccuracyReport, to_json, to_markdown
from shufflelite import atomic, lock


def check(folder: Path) -> None:
    """Raises InputError if the folder cannot be written, before anything is measured."""
    atomic.check_folder(folder, flag="--out")


def write(folder: Path, report: AccuracyReport) -> list[Path]:
    """Writes JSON, Markdown and a confusion matrix of each model; returns their paths."""
    pictures = [
        f"confusion_{number}_{re.sub(r'[^A-Za-z0-9._-]+', '_', model.name)}.png"
        for number, model in enumerate(report.forms, start=1)
    ]
    files = {
        "accuracy.json": to_json(report).encode(),
        "accuracy.md": to_markdown(report, pictures=pictures).encode(errors="backslashreplace"),
    }
    for name, model in zip(pictures, report.forms, strict=True):
        files[name] = confusion.picture(report, model)
    with lock.exclusive(folder / ".lock"):  # they belong together
        for name, content in files.items():
            atomic.write(folder / name, content)
    return [folder / name for name in files]
