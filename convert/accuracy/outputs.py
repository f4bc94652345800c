"""The only writer of a measurement's folder."""

import re
from pathlib import Path

from convert.accuracy import confusion
from convert.accuracy.report import Report, to_json, to_markdown
from shufflelite import atomic, lock


def check(folder: Path) -> None:
    """Raises InputError where the folder could not be written in, before anything is measured."""
    atomic.check_folder(folder, flag="--out")


def write(folder: Path, report: Report) -> list[Path]:
    """Writes JSON, Markdown and a picture of each form's confusions; returns their paths."""
    pictures = [
        f"confusion_{number}_{re.sub(r'[^A-Za-z0-9._-]+', '_', form.name)}.png"
        for number, form in enumerate(report.forms, start=1)
    ]
    files = {
        "accuracy.json": to_json(report).encode(),
        "accuracy.md": to_markdown(report, pictures=pictures).encode(errors="backslashreplace"),
    }
    for name, form in zip(pictures, report.forms, strict=True):
        files[name] = confusion.picture(report, form)
    with lock.exclusive(folder / ".lock"):  # they belong together
        for name, content in files.items():
            atomic.write(folder / name, content)
    return [folder / name for name in files]
