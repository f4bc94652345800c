"""A folder for the temporary files of a command, its libraries and its children.

TensorFlow leaves its own behind in a process that does not end by itself.
"""

import atexit
import os
import shutil
import tempfile

_folder: str | None = None


def make() -> None:
    """Makes the folder, to which TMPDIR points from now on; it is removed when Python ends."""
    global _folder
    try:
        _folder = tempfile.mkdtemp(prefix="shufflelite-")
    except OSError:  # whoever needs one will say so
        return
    os.environ["TMPDIR"] = tempfile.tempdir = _folder
    atexit.register(remove)  # behind what libraries register later


def remove() -> None:
    """Removes the folder with all that it holds; called where Python does not end by itself."""
    if _folder is not None:
        shutil.rmtree(_folder, ignore_errors=True)
        os.environ["TMPDIR"] = os.path.dirname(_folder)
