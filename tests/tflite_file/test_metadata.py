"""Metadata of files: written, read again, damaged."""

import dataclasses
import io
import random
import re
import zipfile
from typing import Any

import numpy as np
import pytest

from tests.tflite_file import client
from tests.tflite_file.test_model import model, pack
from tflite_file import metadata
from tflite_file.metadata import Metadata
from tflite_file.model import read_operators

METADATA = Metadata(
    name="net x0.5",
    description="Classifies cats and sea lions.",
    author="we",
    version="1.2.3",
    license="Apache-2.0",
    image="The picture.",
    is_rgb=True,
    height=24,
    width=32,
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    output=metadata.PROBABILITY,
    class_names=("cat", "Seelöwe", "海獅"),
)


@pytest.fixture(scope="module")
def plain() -> bytes:
    return pack(model())


def in_float32(expected: Metadata) -> Metadata:
    mean, std = (tuple(map(float, np.float32(v))) for v in (expected.mean, expected.std))
    return dataclasses.replace(expected, mean=mean, std=std)


def test_a_client_that_knows_the_schema_alone_reads_all_fields(plain: bytes) -> None:
    found = client.metadata(metadata.add(plain, METADATA))
    assert found.texts == {
        "name": "net x0.5",
        "description": "Classifies cats and sea lions.",
        "version": "1.2.3",
        "author": "we",
        "license": "Apache-2.0",
        "parser": "1.0.0",
    }
    assert (found.content, found.colours, found.size) == (2, 1, (32, 24))
    assert found.mean == pytest.approx(METADATA.mean, rel=1e-7)
    assert found.std == pytest.approx(METADATA.std, rel=1e-7)
    assert (found.inputs, found.outputs) == (("image",), ("probability",))
    assert found.labels == METADATA.class_names


@pytest.mark.parametrize(
    "expected",
    [
        METADATA,
        dataclasses.replace(
            METADATA, is_rgb=False, output=metadata.LOGITS, version=None, license=None
        ),
        dataclasses.replace(METADATA, class_names=None, mean=(0.0,), std=(1.0,)),
        dataclasses.replace(METADATA, class_names=("", "b", "")),
    ],
)
def test_what_is_written_is_read_again(plain: bytes, expected: Metadata) -> None:
    data = metadata.add(plain, expected)
    assert metadata.read(data) == in_float32(expected)
    assert client.metadata(data).labels == expected.class_names
    assert read_operators(data) == read_operators(plain)


def test_a_file_without_metadata_tells_nothing(plain: bytes) -> None:
    assert metadata.read(plain) is None


def test_new_metadata_takes_the_place_of_the_old(plain: bytes) -> None:
    old = dataclasses.replace(METADATA, name="old" * 99, class_names=("a", "b"))
    assert metadata.add(metadata.add(plain, old), METADATA) == metadata.add(plain, METADATA)


def test_the_archive_is_the_same_on_any_day_and_system(plain: bytes) -> None:
    data = metadata.add(plain, METADATA)
    assert data == metadata.add(plain, METADATA)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (info,) = archive.infolist()
    assert (info.filename, info.date_time, info.create_system) == (
        "labels.txt",
        (1980, 1, 1, 0, 0, 0),
        3,
    )


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) >= 1
    assert len(old) == len(new)
    return data.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"M001", b"M002"),
        (b"labels.txt", b"lables.txt"),
        ("Seelöwe".encode(), b"Seel\xff\xffwe"),
    ],
)
def test_damage_is_one_line(plain: bytes, old: bytes, new: bytes) -> None:
    data = metadata.add(plain, METADATA)
    if old == b"labels.txt":  # in the table alone
        end = data.index(b"PK\3\4")
        data = replaced(data[:end], old, new) + data[end:]
    else:
        data = replaced(data, old, new)
    with pytest.raises(ValueError, match="expected TFLite metadata") as error:
        metadata.read(data)
    assert "\n" not in str(error.value)


def test_compressed_labels_are_refused(plain: bytes) -> None:
    data = metadata.add(plain, METADATA)
    archive = io.BytesIO(data[: data.index(b"PK\3\4")])
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("labels.txt", "a\n" * 100_000)
    with pytest.raises(ValueError, match=re.escape("labels.txt is compressed")):
        metadata.read(archive.getvalue())


def test_no_damage_leads_to_another_error(plain: bytes) -> None:
    data = metadata.add(plain, METADATA)
    start, end = data.index(b"M001") - 4, len(data)
    rng = random.Random(0)
    refused = 0
    for _ in range(3000):
        spoiled: Any = bytearray(data)
        for _ in range(rng.choice((1, 1, 4))):
            spoiled[rng.randrange(start - 64, end)] = rng.randrange(256)
        try:
            metadata.read(bytes(spoiled))
        except ValueError:
            refused += 1
    assert 100 < refused < 3000
