"""The kinds of pictures that are read: a file is opened as one of them, whatever its name."""

import contextlib
import importlib

from PIL import Image

_FORMATS = {  # ending of a file's name: the name of the format in Pillow
    ".avif": "AVIF",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".heic": "HEIF",
    ".heif": "HEIF",
    ".jfif": "JPEG",
    ".jpe": "JPEG",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".pbm": "PPM",
    ".pgm": "PPM",
    ".png": "PNG",
    ".pnm": "PPM",
    ".ppm": "PPM",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}

with contextlib.suppress(ImportError):  # a package that teaches Pillow HEIC, if it is installed
    importlib.import_module("pillow_heif").register_heif_opener()
Image.init()  # reads which formats this Pillow knows
EXTENSIONS = frozenset(ending for ending, name in _FORMATS.items() if name in Image.OPEN)
# Pillow alone would open dozens more, PostScript by starting Ghostscript.
FORMATS = tuple(sorted({_FORMATS[ending] for ending in EXTENSIONS}))
