"""TFLite metadata: describes the input and output of a classifier inside its file.

The schema is metadata_schema.fbs of TFLite Support ("M001"), which MediaPipe Tasks, the Task
Library and ML Kit read.  Class names are a file in a ZIP archive that follows the model.
"""

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import number_types
from flatbuffers.table import Table

from tflite_file.model import DAMAGE
from tflite_file.serialize import pack, unpack

LOGITS, PROBABILITY = "logits", "probability"  # names of outputs
BUFFER_NAME = "TFLITE_METADATA"
IDENTIFIER = b"M001"
PARSER_VERSION = "1.0.0"  # the lowest that knows all fields used here
LABELS = "labels.txt"
MAX_LABEL_BYTES = 1 << 24
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date in ZIP: the same file on any day
ZIP_UNIX = 3  # ZIP's number of a system: the same file on all systems
FEATURE, IMAGE, NORMALIZATION, AXIS_LABELS, RGB = 1, 2, 1, 2, 1  # of the schema's unions and enums


@dataclass(frozen=True)
class Metadata:
    """Describes an image classifier, and how a picture becomes its input.

    Attributes:
      name: Name of the model.
      description: Description of the model, in sentences.
      author: Author of the file.
      version: Version of the program that made it; None: unknown.
      license: License of the file; None: unknown.
      image: Description of the input, in a sentence.
      is_rgb: Whether to declare the input as RGB: readers refuse a file without it.
      height: Height of the input in pixels.
      width: Width of the input in pixels.
      mean: Per channel, or one for all, in pixel units 0..255; rounded to float32 in the file.
      std: Likewise; the input is (pixel - mean) / std, then quantized if the input is.
      output: What the output's values are: LOGITS or PROBABILITY.
      class_names: Class names in the order of the output; None: unknown.
    """

    name: str
    description: str
    author: str
    version: str | None
    license: str | None
    image: str
    is_rgb: bool
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    output: str
    class_names: tuple[str, ...] | None = None


def add(data: bytes, metadata: Metadata) -> bytes:
    """Returns the file with `metadata` instead of its own; it has one input and one output."""
    model = unpack(data)
    buffer = schema.BufferT(data=np.frombuffer(_packed(metadata), np.uint8))
    entries = model.metadata or []
    for entry in entries:
        if entry.name == BUFFER_NAME.encode():
            model.buffers[entry.buffer] = buffer
            break
    else:
        model.metadata = [*entries, schema.MetadataT(name=BUFFER_NAME, buffer=len(model.buffers))]
        model.buffers.append(buffer)
    archive = io.BytesIO(pack(model))
    if metadata.class_names is not None:
        info = zipfile.ZipInfo(LABELS, ZIP_EPOCH)
        info.create_system = ZIP_UNIX
        with zipfile.ZipFile(archive, "a", zipfile.ZIP_STORED) as file:  # readers do not inflate
            file.writestr(info, ("\n".join(metadata.class_names) + "\n").encode())
    return archive.getvalue()


def read(data: bytes) -> Metadata | None:
    """Reads the metadata of a TFLite file's first input and output; None: it has none.

    Absent fields are "", 0 or empty.

    Raises:
      ValueError: its metadata is of another kind or damaged.
    """
    try:
        content = _content(data)
        return None if content is None else _read(content, data)
    except (*DAMAGE, zipfile.BadZipFile, EOFError, OSError, RuntimeError) as error:
        raise ValueError(
            f"expected TFLite metadata (identifier M001), got other or damaged metadata ({error}): "
            "convert again"
        ) from error


def _content(data: bytes) -> bytes | None:
    model = schema.Model.GetRootAs(data, 0)
    for entry in map(model.Metadata, range(model.MetadataLength())):
        if entry.Name() == BUFFER_NAME.encode():
            content = model.Buffers(entry.Buffer()).DataAsNumpy()
            return b"" if isinstance(content, int) else bytes(content.tobytes())
    return None


def _read(content: bytes, data: bytes) -> Metadata:
    if content[4:8] != IDENTIFIER:
        raise ValueError(f"identifier {content[4:8]!r}, not {IDENTIFIER!r}")
    model = _Reader(Table(content, int.from_bytes(content[:4], "little")))
    graph = model.first(3)
    image, output = graph.first(2), graph.first(3)
    properties = image.table(3)
    is_picture = properties.byte(0) == IMAGE
    picture = properties.table(1) if is_picture else _Reader(None)
    units = (unit.table(1) for unit in image.tables(4) if unit.byte(0) == NORMALIZATION)
    normalization = next(units, _Reader(None))
    labels = [file.text(0) for file in output.tables(6) if file.byte(2) == AXIS_LABELS]
    return Metadata(
        name=model.text(0) or "",
        description=model.text(1) or "",
        author=model.text(4) or "",
        version=model.text(2),
        license=model.text(5),
        image=image.text(1) or "",
        is_rgb=picture.byte(0) == RGB,
        height=picture.table(1).uint32(1),
        width=picture.table(1).uint32(0),
        mean=normalization.floats(0),
        std=normalization.floats(1),
        output=output.text(0) or "",
        class_names=_class_names(data, labels[0]) if labels else None,
    )


def _class_names(data: bytes, name: str | None) -> tuple[str, ...]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        info = archive.getinfo(name or "")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > MAX_LABEL_BYTES:
            raise ValueError(f"{info.filename} is compressed, or of {info.file_size} bytes")
        return tuple(archive.read(info).decode("utf-8-sig").splitlines())


class _Reader:
    """A table of a flatbuffer; fields are numbered as in the schema, and each can be absent."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def byte(self, field: int) -> int:
        return self._number(number_types.Uint8Flags, field)

    def uint32(self, field: int) -> int:
        return self._number(number_types.Uint32Flags, field)

    def text(self, field: int) -> str | None:
        position = self._position(field)
        return None if position is None else self._table.String(position).decode()

    def table(self, field: int) -> "_Reader":
        position = self._position(field)
        return _Reader(None if position is None else self._child(position))

    def tables(self, field: int) -> "list[_Reader]":
        return [_Reader(self._child(item)) for item in self._items(field)]

    def first(self, field: int) -> "_Reader":
        return next(iter(self.tables(field)), _Reader(None))

    def floats(self, field: int) -> tuple[float, ...]:
        flags = number_types.Float32Flags
        return tuple(float(self._table.Get(flags, item)) for item in self._items(field))

    def _child(self, position: int) -> Table:
        return Table(self._table.Bytes, self._table.Indirect(position))

    def _position(self, field: int) -> int | None:
        offset = self._table.Offset(4 + 2 * field) if self._table else 0
        return self._table.Pos + offset if offset else None

    def _number(self, flags: Any, field: int) -> int:
        position = self._position(field)
        return 0 if position is None else int(self._table.Get(flags, position))

    def _items(self, field: int) -> range:
        position = self._position(field)
        if position is None:
            return range(0)
        offset = position - self._table.Pos
        start, length = self._table.Vector(offset), self._table.VectorLen(offset)
        if start + 4 * length > len(self._table.Bytes):
            raise ValueError("a list ends beyond its end")
        return range(start, start + 4 * length, 4)


def _packed(metadata: Metadata) -> bytes:
    """The flatbuffer; integers number the fields of their tables."""
    builder = flatbuffers.Builder()
    size = _table(builder, 2, uint32={0: metadata.width, 1: metadata.height})
    colours = {0: RGB} if metadata.is_rgb else {}
    picture = _table(builder, 2, offsets={1: size}, byte=colours)
    statistics = {
        field: builder.CreateNumpyVector(np.asarray(values, np.float32))
        for field, values in enumerate((metadata.mean, metadata.std))
    }
    normalize = _table(builder, 2, offsets=statistics)
    units = [_table(builder, 2, offsets={1: normalize}, byte={0: NORMALIZATION})]
    content = _table(builder, 3, offsets={1: picture}, byte={0: IMAGE})
    image = _tensor(builder, "image", metadata.image, content, {4: _vector(builder, units)})
    files = {}
    if metadata.class_names is not None:
        label_file = _texts(builder, {0: LABELS, 1: "Names of the classes, one a line."})
        labels = _table(builder, 4, offsets=label_file, byte={2: AXIS_LABELS})
        files = {6: _vector(builder, [labels])}
    content = _table(builder, 3, offsets={1: _table(builder, 0)}, byte={0: FEATURE})
    meaning = f"{metadata.output.capitalize()} of each class."
    output = _tensor(builder, metadata.output, meaning, content, files)
    tensors = {2: _vector(builder, [image]), 3: _vector(builder, [output])}
    texts = {
        0: metadata.name,
        1: metadata.description,
        2: metadata.version,
        4: metadata.author,
        5: metadata.license,
        7: PARSER_VERSION,
    }
    graphs = {3: _vector(builder, [_table(builder, 5, offsets=tensors)])}
    builder.Finish(_table(builder, 8, offsets=graphs | _texts(builder, texts)), IDENTIFIER)
    return bytes(builder.Output())


def _tensor(
    builder: flatbuffers.Builder,
    name: str,
    description: str,
    content: int,
    fields: Mapping[int, int],
) -> int:
    texts = _texts(builder, {0: name, 1: description})
    return _table(builder, 7, offsets={**texts, 3: content, **fields})


def _texts(builder: flatbuffers.Builder, texts: Mapping[int, str | None]) -> dict[int, int]:
    return {field: builder.CreateString(text) for field, text in texts.items() if text is not None}


def _table(
    builder: flatbuffers.Builder,
    fields: int,
    *,
    offsets: Mapping[int, int] | None = None,
    byte: Mapping[int, int] | None = None,
    uint32: Mapping[int, int] | None = None,
) -> int:
    builder.StartObject(fields)
    for field, offset in (offsets or {}).items():
        builder.PrependUOffsetTRelativeSlot(field, offset, 0)
    for field, value in (byte or {}).items():
        builder.PrependUint8Slot(field, value, 0)
    for field, value in (uint32 or {}).items():
        builder.PrependUint32Slot(field, value, 0)
    return int(builder.EndObject())


def _vector(builder: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())
