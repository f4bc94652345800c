"""Files of torch.save, written opcode by opcode; and how such a file is refused."""

import pickle
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from keras_models.checkpoints import files
from shufflelite.errors import InputError

ORDERED_DICT = b"ccollections\nOrderedDict\n)R"
FOUR = np.arange(4, dtype="<f4").tobytes()


def ops(value: object) -> bytes:
    """The opcodes of a plain value, without start and stop."""
    return pickle.dumps(value, 2)[2:-1]


def storage(kind: str = "FloatStorage", key: str = "0", count: int = 4) -> bytes:
    name = b"ctorch\n" + kind.encode() + b"\n"
    return b"(" + ops("storage") + name + ops(key) + ops("cpu") + ops(count) + b"tQ"


def tensor(
    stored: bytes | None = None,
    offset: object = 0,
    size: object = (2, 2),
    stride: object = (2, 1),
) -> bytes:
    arguments = storage() if stored is None else stored
    arguments += ops(offset) + ops(size) + ops(stride) + ops(False) + ORDERED_DICT
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def state_dict(**values: bytes) -> bytes:
    items = b"".join(ops(name) + value + b"s" for name, value in values.items())
    return b"\x80\x02}" + items + b"."


def zipped(
    path: Path, program: bytes, storages: Mapping[str, bytes] | None = None, **members: bytes
) -> Path:
    contents = {"0": FOUR} if storages is None else storages
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for key, content in contents.items():
            archive.writestr(f"archive/data/{key}", content)
        for name, content in members.items():
            archive.writestr(f"archive/{name}", content)
    return path


def legacy(
    path: Path,
    program: bytes,
    storages: Sequence[tuple[str, int, bytes]] = (("0", 4, FOUR),),
    *,
    magic: object = 0x1950A86A20F9469CFC6C,
    protocol: object = 1001,
) -> Path:
    content = b"".join(pickle.dumps(value, 2) for value in (magic, protocol, {}))
    content += program + pickle.dumps([key for key, _, _ in storages], 2)
    for _, count, data in storages:
        content += struct.pack("<q", count) + data
    path.write_bytes(content)
    return path


def refusal(path: Path) -> str:
    """What `files.read` says, once it has refused the file in one line that names it."""
    with pytest.raises(InputError) as caught:
        files.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    assert len(message) < len(str(path)) + 500
    return message
