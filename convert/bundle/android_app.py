"""Makes an Android app from a bundle: the project in `android_bench/app`, and test vectors.

A test vector is a picture, the network's input and output for it here, and its best classes. The
app's unit test compares its own preprocessing and scores with them.
"""

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image

from convert.bundle import writer
from keras_models.accuracy import probabilities
from keras_models.images.decode import load_picture
from shufflelite import atomic
from shufflelite.errors import InputError

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

    from convert.accuracy.models import EvaluatedModel
    from convert.verification.runner import IoTensor

PROJECT = Path(__file__).parents[2] / "android_bench" / "app"
ASSETS = "app/src/main/assets/bundle"  # in the app's folder
VECTORS = "app/src/test/vectors"
NETWORK, README = "network.properties", "README.md"
BUILD_FILES = frozenset({".gradle", ".idea", ".kotlin", "build", "local.properties"})
BEST = 5  # classes of a vector
FLAG = "android_app"


@dataclass(frozen=True)
class Picture:
    """A picture to draw for a vector; its stored size is in multiples of the resolution."""

    width: float
    height: float
    orientation: int = 1  # EXIF
    transparent: bool = False


PICTURES = {
    "landscape": Picture(2.1, 1.4),
    "portrait_turned_right": Picture(1.5, 1.1, orientation=6),
    "panorama_upside_down": Picture(3.3, 0.7, orientation=3),
    "tiny_and_mirrored": Picture(0.3, 0.2, orientation=7),
    "transparent_turned_left": Picture(0.9, 1.3, orientation=8, transparent=True),
}


def check(app: Path, bundle_folder: Path) -> None:
    """Raises InputError if `write` could not write the app, before any work is done."""
    if bundle_folder.resolve() in (app.resolve(), *app.resolve().parents):
        raise InputError(
            f"Expected --{FLAG} outside of the bundle's folder {bundle_folder}, got {app}."
        )
    if _is_app(app):
        writer.try_folder(app / ASSETS, flag=FLAG)
        return
    if app.exists() and not (app.is_dir() and not any(app.iterdir())):
        raise InputError(
            f"Expected --{FLAG} to be a new folder, an empty one or an app made by it, got {app}, "
            "which holds something else: choose another."
        )
    writer.try_folder(app, flag=FLAG)


def write(app: Path, bundle_folder: Path) -> None:
    """Writes an app that runs a bundle; in an app that it made before, replaces only the bundle.

    The README, which is about the network, is replaced too if it is as this wrote it.

    Raises:
      InputError: the folder holds something else, or cannot be written.
    """
    from convert.accuracy import models
    from convert.verification import runner  # late: imports LiteRT

    check(app, bundle_folder)
    model = bundle_folder / "model.tflite"
    (form,) = models.read_all([str(model)])
    data = model.read_bytes()
    interpreter = runner.load(data)
    network = _network(bundle_folder.name, form, runner.io_tensors(interpreter))
    assets = {NETWORK: network, model.name: data}
    labels = bundle_folder / models.LABELS
    if labels.is_file():
        assets[labels.name] = labels.read_bytes()
    vectors = _vectors(form, interpreter)
    if _is_app(app):
        readme, is_ours = app / README, _has_our_readme(app)
        writer.write_folder(app / VECTORS, vectors, flag=FLAG)
        writer.write_folder(app / ASSETS, assets, flag=FLAG)
        if is_ours:
            atomic.write(readme, _readme(network))
        return
    files = {
        path.relative_to(PROJECT).as_posix(): path.read_bytes()
        for path in sorted(PROJECT.rglob("*"))
        if path.is_file() and not BUILD_FILES.intersection(path.relative_to(PROJECT).parts)
    }
    files[README] = _readme(network)  # not the template's
    files |= {f"{VECTORS}/{name}": content for name, content in vectors.items()}
    files |= {f"{ASSETS}/{name}": content for name, content in assets.items()}
    writer.write_folder(app, files, flag=FLAG)


def _is_app(app: Path) -> bool:
    """Whether `write` made this folder."""
    return (app / ASSETS / NETWORK).is_file()


def _has_our_readme(app: Path) -> bool:
    readme = app / README
    return readme.is_file() and readme.read_bytes() == _readme(
        (app / ASSETS / NETWORK).read_bytes()
    )


def _readme(network: bytes) -> bytes:
    """The README of an app with a network."""
    from convert.bundle.card.render import environment

    lines = network.decode(errors="replace").splitlines()
    values = dict.fromkeys(("name", "classes", "side"), "") | dict(
        line.split("=", 1) for line in lines if "=" in line
    )
    return environment().get_template("app.md.j2").render(values).encode()


def _network(
    bundle: str, form: "EvaluatedModel", io_tensors: tuple["IoTensor", "IoTensor"]
) -> bytes:
    """What the app knows about the network."""
    preprocessing = form.preprocessing
    properties = {
        "name": bundle,
        "model_sha256": form.sha256,
        "side": form.resolution,
        "classes": form.classes,
        "crop_fraction": preprocessing.crop_fraction,
        "interpolation": preprocessing.interpolation,
        "channel_order": preprocessing.channel_order,
        "gives_scores": str(form.gives_scores).lower(),
        "mean": _joined(preprocessing.mean),
        "std": _joined(preprocessing.std),
    }
    for name, tensor in zip(("input", "output"), io_tensors, strict=True):
        properties[f"{name}.type"] = tensor.dtype
        properties[f"{name}.scale"] = tensor.scale
        properties[f"{name}.zero_point"] = tensor.zero_point
    return _to_properties(properties)


def _vectors(form: "EvaluatedModel", interpreter: "Interpreter") -> dict[str, bytes]:
    """Path -> content of the files of all vectors."""
    from convert.verification import runner

    source, result = runner.io_tensors(interpreter)
    rng = np.random.default_rng(0)
    files = {}
    for name, picture in PICTURES.items():
        rgba = _draw(picture, form.resolution, rng)
        pixels = _as_loaded(rgba, picture, form)
        values = runner.quantize(form.preprocessing.to_input(pixels[None]), source)
        interpreter.set_tensor(source.index, values)
        interpreter.invoke()
        stored = interpreter.get_tensor(result.index)[0]
        scores = runner.dequantize(stored, result.scale, result.zero_point)
        if not form.gives_scores:
            scores = probabilities(scores)
        best = np.argsort(-scores, kind="stable")[:BEST]
        expected = {
            "model_sha256": form.sha256,
            "width": rgba.shape[1],
            "height": rgba.shape[0],
            "orientation": picture.orientation,
            "classes": _joined(best.tolist()),
            "scores": _joined(scores[best].tolist()),
        }
        files[f"{name}/expected.properties"] = _to_properties(expected)
        files[f"{name}/argb"] = rgba[..., [3, 0, 1, 2]].tobytes()
        files[f"{name}/input"] = values.tobytes()
        files[f"{name}/output"] = stored.tobytes()
    return files


def _draw(picture: Picture, resolution: int, rng: np.random.Generator) -> np.ndarray:
    """Blocks under noise, which survive both shrinking and enlarging: (h, w, 4) uint8."""
    width, height = (round(resolution * size) | 1 for size in (picture.width, picture.height))
    blocks = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 4))
    blocks = np.kron(blocks, np.ones((8, 8, 1), np.int64))[:height, :width]
    rgba = ((blocks + rng.integers(0, 256, blocks.shape)) // 2).astype(np.uint8)
    if not picture.transparent:
        rgba[..., 3] = 255
    return rgba


def _as_loaded(rgba: np.ndarray, picture: Picture, form: "EvaluatedModel") -> np.ndarray:
    """The pixels that the network sees of a file with these pixels."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = picture.orientation
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "picture.png")
        Image.fromarray(rgba if picture.transparent else rgba[..., :3]).save(path, exif=exif)
        return load_picture(path, resolution=form.resolution, preprocessing=form.preprocessing)


def _joined(values: Iterable[float]) -> str:
    return ",".join(map(str, values))


def _to_properties(values: Mapping[str, object]) -> bytes:
    """A file for java.util.Properties; no value has a backslash or a line break."""
    return "".join(f"{key}={value}\n" for key, value in values.items()).encode()
