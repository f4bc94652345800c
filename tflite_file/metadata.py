"""TFLite metadata: what a classifier's input and output mean, told by the file itself.

The schema is metadata_schema.fbs of TFLite Support ("M001"), which MediaPipe Tasks, the Task
Library and ML Kit read.  Names of classes are a file in a ZIP archive behind the model.
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

from tflite_file import DAMAGE
from tflite_file.serialize import pack

LOGITS, PROBABILITY = "logits", "probability"  # names of outputs
NAME = "TFLITE_METADATA"  # of the model's buffer that holds it
IDENTIFIER = b"M001"
PARSER_VERSION = "1.0.0"  # the least that knows all fields used here
LABELS = "labels.txt"
MOST_LABEL_BYTES = 1 << 24
EARLIEST = (1980, 1, 1, 0, 0, 0)  # that a ZIP archive can tell: the same file on any day
UNIX = 3  # of the systems that ZIP knows: the same file on any of them
FEATURE, IMAGE, NORMALIZATION, AXIS_LABELS, RGB = 1, 2, 1, 2, 1  # of the schema's unions and enums


@dataclass(frozen=True)
class Metadata:
    """What a classifier of pictures is, and how a picture becomes its input.

    Attributes:
      name: Of the model.
      description: The same in sentences.
      author: Who made the file.
      version: Of what made it; None: unknown.
      license: Of the file; None: unknown.
      image: What the input holds, in a sentence.
      is_rgb: Whether readers may be told that the input is RGB: they refuse a file that is not.
      height: Of the input, in pixels.
      width: Likewise.
      mean: Of each channel, or of all, in pixel units 0..255; rounded to float32 in the file.
      std: Likewise; a pixel becomes (pixel - mean) / std, and is quantized then where the input is.
      output: What the output's numbers are: LOGITS or PROBABILITY.
      class_names: In the order of the output; None: unknown.
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
    """Returns the file with `metadata`, in place of what it has; of one input and one output."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    buffer = schema.BufferT(data=np.frombuffer(_packed(metadata), np.uint8))
    entries = model.metadata or []
    for entry in entries:
        if entry.name == NAME.encode():
            model.buffers[entry.buffer] = buffer
            break
    else:
        model.metadata = [*entries, schema.MetadataT(name=NAME, buffer=len(model.buffers))]
        model.buffers.append(buffer)
    archive = io.BytesIO(pack(model))
    if metadata.class_names is not None:
        info = zipfile.ZipInfo(LABELS, EARLIEST)
        info.create_system = UNIX
        with zipfile.ZipFile(archive, "a", zipfile.ZIP_STORED) as file:  # readers do not inflate
            file.writestr(info, ("\n".join(metadata.class_names) + "\n").encode())
    return archive.getvalue()


def read(data: bytes) -> Metadata | None:
    """Reads what a TFLite file tells of its first input and output; None: it has no metadata.

    What it does not tell is "", 0 or empty.

    Raises:
      ValueError: its metadata is of another kind, or damaged.
    """
    try:
        content = _content(data)
        return None if content is None else _read(content, data)
    except (*DAMAGE, zipfile.BadZipFile, EOFError, OSError, RuntimeError) as error:
        raise ValueError(
            f"expected TFLite metadata (identifier M001), got other or damaged ones ({error}): "
            "convert again"
        ) from error


def _content(data: bytes) -> bytes | None:
    model = schema.Model.GetRootAs(data, 0)
    for entry in map(model.Metadata, range(model.MetadataLength())):
        if entry.Name() == NAME.encode():
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
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > MOST_LABEL_BYTES:
            raise ValueError(f"{info.filename} is compressed, or of {info.file_size} bytes")
        return tuple(archive.read(info).decode().removesuffix("\n").split("\n"))


class _Reader:
    """A table of a flatbuffer; fields go by their places in the schema, and can all be absent."""

    def __init__(self, table: Any) -> None:
        self.at = table

    def byte(self, place: int) -> int:
        return self._number(number_types.Uint8Flags, place)

    def uint32(self, place: int) -> int:
        return self._number(number_types.Uint32Flags, place)

    def text(self, place: int) -> str | None:
        field = self._field(place)
        return None if field is None else self.at.String(field).decode()

    def table(self, place: int) -> "_Reader":
        field = self._field(place)
        return _Reader(None if field is None else self._at(field))

    def tables(self, place: int) -> "list[_Reader]":
        return [_Reader(self._at(item)) for item in self._items(place)]

    def first(self, place: int) -> "_Reader":
        return next(iter(self.tables(place)), _Reader(None))

    def floats(self, place: int) -> tuple[float, ...]:
        flags = number_types.Float32Flags
        return tuple(float(self.at.Get(flags, item)) for item in self._items(place))

    def _at(self, field: int) -> Table:
        return Table(self.at.Bytes, self.at.Indirect(field))

    def _field(self, place: int) -> int | None:
        offset = self.at.Offset(4 + 2 * place) if self.at else 0
        return self.at.Pos + offset if offset else None

    def _number(self, flags: Any, place: int) -> int:
        field = self._field(place)
        return 0 if field is None else int(self.at.Get(flags, field))

    def _items(self, place: int) -> range:
        field = self._field(place)
        if field is None:
            return range(0)
        offset = field - self.at.Pos
        start, length = self.at.Vector(offset), self.at.VectorLen(offset)
        if start + 4 * length > len(self.at.Bytes):
            raise ValueError("a list in it ends behind it")
        return range(start, start + 4 * length, 4)


def _packed(metadata: Metadata) -> bytes:
    """The flatbuffer; numbers are the fields' places in their tables."""
    builder = flatbuffers.Builder()
    size = _table(builder, 2, uint32={0: metadata.width, 1: metadata.height})
    colours = {0: RGB} if metadata.is_rgb else {}
    picture = _table(builder, 2, offsets={1: size}, byte=colours)
    statistics = {
        place: builder.CreateNumpyVector(np.asarray(values, np.float32))
        for place, values in enumerate((metadata.mean, metadata.std))
    }
    normalize = _table(builder, 2, offsets=statistics)
    units = [_table(builder, 2, offsets={1: normalize}, byte={0: NORMALIZATION})]
    content = _table(builder, 3, offsets={1: picture}, byte={0: IMAGE})
    image = _tensor(builder, "image", metadata.image, content, {4: _vector(builder, units)})
    files = {}
    if metadata.class_names is not None:
        named = _texts(builder, {0: LABELS, 1: "Names of the classes, one a line."})
        labels = _table(builder, 4, offsets=named, byte={2: AXIS_LABELS})
        files = {6: _vector(builder, [labels])}
    content = _table(builder, 3, offsets={1: _table(builder, 0)}, byte={0: FEATURE})
    meaning = f"{metadata.output.capitalize()} of each class."
    output = _tensor(builder, metadata.output, meaning, content, files)
    ends = {place: _vector(builder, [end]) for place, end in ((2, image), (3, output))}
    texts = {
        0: metadata.name,
        1: metadata.description,
        2: metadata.version,
        4: metadata.author,
        5: metadata.license,
        7: PARSER_VERSION,
    }
    graphs = {3: _vector(builder, [_table(builder, 5, offsets=ends)])}
    builder.Finish(_table(builder, 8, offsets=graphs | _texts(builder, texts)), IDENTIFIER)
    return bytes(builder.Output())


def _tensor(
    builder: flatbuffers.Builder,
    name: str,
    description: str,
    content: int,
    more: Mapping[int, int],
) -> int:
    texts = _texts(builder, {0: name, 1: description})
    return _table(builder, 7, offsets={**texts, 3: content, **more})


def _texts(builder: flatbuffers.Builder, texts: Mapping[int, str | None]) -> dict[int, int]:
    return {place: builder.CreateString(text) for place, text in texts.items() if text is not None}


def _table(
    builder: flatbuffers.Builder,
    fields: int,
    *,
    offsets: Mapping[int, int] | None = None,
    byte: Mapping[int, int] | None = None,
    uint32: Mapping[int, int] | None = None,
) -> int:
    builder.StartObject(fields)
    for place, offset in (offsets or {}).items():
        builder.PrependUOffsetTRelativeSlot(place, offset, 0)
    for place, value in (byte or {}).items():
        builder.PrependUint8Slot(place, value, 0)
    for place, value in (uint32 or {}).items():
        builder.PrependUint32Slot(place, value, 0)
    return int(builder.EndObject())


def _vector(builder: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())
