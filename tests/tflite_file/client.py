"""Reads metadata and classifies as the readers of .tflite files do; imports nothing of ours.

Fields are numbered as in schema.fbs of TFLite and metadata_schema.fbs of TFLite Support.  Pixels
go in as MediaPipe's image_preprocessing_graph.cc and the Task Library's image_preprocessor.cc put
them.
"""

import io
import struct
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image


@dataclass(frozen=True)
class Table:
    """A table of a flatbuffer, read by raw offsets."""

    data: bytes
    at: int

    def field(self, place: int) -> int | None:
        (back,) = struct.unpack_from("<i", self.data, self.at)
        size, _ = struct.unpack_from("<HH", self.data, self.at - back)
        if 4 + 2 * place >= size:
            return None
        (offset,) = struct.unpack_from("<H", self.data, self.at - back + 4 + 2 * place)
        return self.at + offset if offset else None

    def number(self, place: int, kind: str) -> Any:
        field = self.field(place)
        return 0 if field is None else struct.unpack_from("<" + kind, self.data, field)[0]

    def _follow(self, at: int) -> int:
        return at + struct.unpack_from("<I", self.data, at)[0]

    def table(self, place: int) -> "Table":
        field = self.field(place)
        assert field is not None
        return Table(self.data, self._follow(field))

    def vector(self, place: int, kind: str = "I") -> tuple[Any, ...]:
        field = self.field(place)
        if field is None:
            return ()
        start = self._follow(field)
        (length,) = struct.unpack_from("<I", self.data, start)
        return struct.unpack_from(f"<{length}{kind}", self.data, start + 4)

    def tables(self, place: int) -> "list[Table]":
        field = self.field(place)
        if field is None:
            return []
        start = self._follow(field) + 4
        places = range(start, start + 4 * len(self.vector(place)), 4)
        return [Table(self.data, self._follow(at)) for at in places]

    def text(self, place: int) -> str | None:
        field = self.field(place)
        return None if field is None else bytes(self.vector(place, "B")).decode()


def root(data: bytes, identifier: bytes) -> Table:
    assert data[4:8] == identifier
    return Table(data, struct.unpack_from("<I", data)[0])


@dataclass(frozen=True)
class Described:
    """What a file's metadata tells."""

    texts: dict[str, str | None]
    content: int  # 2: a picture
    colours: int  # 1: RGB, 0: unknown
    size: tuple[int, int]  # width and height
    mean: tuple[float, ...]
    std: tuple[float, ...]
    inputs: tuple[str | None, ...]
    outputs: tuple[str | None, ...]
    labels: tuple[str, ...] | None


def metadata(data: bytes) -> Described:
    model = root(data, b"TFL3")
    (number,) = (e.number(1, "I") for e in model.tables(6) if e.text(0) == "TFLITE_METADATA")
    described = root(bytes(model.tables(4)[number].vector(0, "B")), b"M001")
    (graph,) = described.tables(3)
    (image,), (output,) = graph.tables(2), graph.tables(3)
    picture = image.table(3).table(1)
    (normalize,) = (unit.table(1) for unit in image.tables(4) if unit.number(0, "B") == 1)
    named = [file.text(0) for file in output.tables(6) if file.number(2, "b") == 2]
    labels = None
    if named:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert archive.testzip() is None
            assert archive.getinfo(named[0]).compress_type == zipfile.ZIP_STORED
            labels = tuple(archive.read(named[0]).decode().removesuffix("\n").split("\n"))
    places = {"name": 0, "description": 1, "version": 2, "author": 4, "license": 5, "parser": 7}
    return Described(
        texts={name: described.text(place) for name, place in places.items()},
        content=image.table(3).number(0, "B"),
        colours=picture.number(0, "b"),
        size=(picture.table(1).number(0, "I"), picture.table(1).number(1, "I")),
        mean=normalize.vector(0, "f"),
        std=normalize.vector(1, "f"),
        inputs=tuple(tensor.text(0) for tensor in graph.tables(2)),
        outputs=tuple(tensor.text(0) for tensor in graph.tables(3)),
        labels=labels,
    )


def classify(data: bytes, picture: Image.Image) -> list[tuple[str, float]]:
    """The classes and their probabilities, the best first; a softmax where the file has none."""
    described = metadata(data)
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    width, height = described.size
    assert tuple(source["shape"]) == (1, height, width, 3)
    assert described.colours == 1, "only RGB is supported"
    resized = picture.convert("RGB").resize(described.size, Image.Resampling.BILINEAR)
    pixels = np.asarray(resized, np.int64)[None]
    if source["dtype"] == np.float32:
        values = (pixels - np.float32(described.mean)) / np.float32(described.std)
    else:  # as they are: int8 is scaled to -128..127
        values = pixels + np.iinfo(source["dtype"]).min
    interpreter.set_tensor(source["index"], values.astype(source["dtype"]))
    interpreter.invoke()
    scores = interpreter.get_tensor(result["index"])[0].astype(np.float64)
    if result["dtype"] != np.float32:
        scale, zero_point = result["quantization"]
        scores = (scores - zero_point) * scale
    if described.outputs != ("probability",):
        exponents = np.exp(scores - scores.max())
        scores = exponents / exponents.sum()
    assert described.labels is not None
    assert len(described.labels) == len(scores)
    order = np.argsort(-scores, kind="stable")
    return [(described.labels[i], float(scores[i])) for i in order]
