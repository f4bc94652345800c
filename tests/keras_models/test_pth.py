"""Files of torch.save, read without PyTorch: those it wrote, and damaged ones."""

import contextlib
import io
import pickle
import runpy
import shutil
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from keras_models.checkpoints import files
from shufflelite.errors import InputError
from tests.keras_models.torch_files import (
    FOUR,
    legacy,
    ops,
    refusal,
    state_dict,
    storage,
    tensor,
    zipped,
)

GOLDEN = Path(__file__).parent / "golden"
TINY = runpy.run_path(str(GOLDEN / "drawn.py"))["tiny"]()


@pytest.mark.parametrize(
    "name", ["tiny.pth", "tiny_legacy.pth", "tiny_protocol_4.pt", "tiny_averaged.pth"]
)
def test_tensors_that_pytorch_saved_have_their_values(name: str) -> None:
    arrays = {n.removeprefix("module."): a for n, a in files.read(GOLDEN / name).items()}
    arrays.pop("n_averaged", None)
    assert list(arrays) == list(TINY)
    for key, expected in TINY.items():
        assert arrays[key].dtype == expected.dtype, key
        np.testing.assert_array_equal(arrays[key], expected, err_msg=key)


def test_both_layouts_hold_the_same_network() -> None:
    plain = files.read(GOLDEN / "narrow.pth")
    parallel = files.read(GOLDEN / "narrow.pth.tar")  # DataParallel, beside an optimizer
    assert [f"module.{name}" for name in plain] == list(parallel)
    for name, array in plain.items():
        np.testing.assert_array_equal(parallel[f"module.{name}"], array, err_msg=name)


def test_names_of_files_do_not_matter(tmp_path: Path) -> None:
    for name in ("tiny.pth", "tiny_legacy.pth"):
        for suffix in (".pt", ".pth", ".pth.tar", ".ckpt"):
            copied = Path(shutil.copy(GOLDEN / name, tmp_path / f"x{suffix}"))
            assert list(files.read(copied)) == list(TINY)


def test_big_endian_storages_are_read(tmp_path: Path) -> None:
    swapped = np.arange(4, dtype=">f4").tobytes()
    path = zipped(tmp_path / "x.pth", state_dict(a=tensor()), {"0": swapped}, byteorder=b"big")
    np.testing.assert_array_equal(files.read(path)["a"], [[0, 1], [2, 3]])
    path = zipped(tmp_path / "x.pth", state_dict(a=tensor()), byteorder=b"middle")
    assert "its byte order is neither little nor big" in refusal(path)


def test_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    # It wrote byte strings, and an OrderedDict as a call with its pairs.
    stored = storage().replace(ops("0"), b"U\x010")
    pair = b"](U\x01a" + tensor(stored) + b"e"
    program = b"\x80\x02ccollections\nOrderedDict\n(](" + pair + b"etR."
    path = legacy(tmp_path / "x.pth", program)
    np.testing.assert_array_equal(files.read(path)["a"], [[0, 1], [2, 3]])


def test_the_part_with_the_weights_is_found(tmp_path: Path) -> None:
    inner = state_dict(a=tensor())[2:-1]
    other = state_dict(b=tensor())[2:-1]
    cases = {
        "state_dict": (state_dict(epoch=ops(3), state_dict=inner, model=other), ["a"]),
        "model": (state_dict(epoch=ops(3), model=inner, optimizer=other), ["a"]),
        "ema": (state_dict(state_dict=other, state_dict_ema=inner), ["a"]),
        "torchvision's ema": (state_dict(model=other, model_ema=inner), ["a"]),
        "a tensor called model": (state_dict(model=tensor(), a=tensor()), ["model", "a"]),
    }
    for what, (program, names) in cases.items():
        assert list(files.read(zipped(tmp_path / "x.pth", program))) == names, what


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"\x80\x02]\x2e", "expected a state dict, found list; save the network's weights"),
        (b"\x80\x02" + tensor() + b".", "expected a state dict, found tensor"),
        (state_dict(mine=state_dict(a=tensor())[2:-1]), "found dict as 'mine'"),
        (state_dict(model=state_dict(a=ops(3))[2:-1]), "expected tensors in 'model', or a state"),
        (b"\x80\x02}" + ops(1) + tensor() + b"s.", "expected names of tensors, found int"),
        (state_dict(**{"a\nb": tensor()}), r"expected names of tensors, found 'a\\nb'"),
        (state_dict(), "expected weights, found none"),
    ],
)
def test_what_is_no_state_dict_is_refused(program: bytes, message: str, tmp_path: Path) -> None:
    assert message.replace("\\\\", "\\") in refusal(zipped(tmp_path / "x.pth", program))


@pytest.mark.parametrize(
    ("storages", "message"),
    [
        ([("0", 5, FOUR)], "expected 4 values in a storage, found 5"),
        ([("0", -4, FOUR)], "expected 4 values in a storage, found 18446744073709551612"),
        ([("0", 4, FOUR[:-1])], "expected 16 more bytes, found 15: it was cut off"),
        ([("1", 4, FOUR)], "its list of storages is not that of its tensors"),
        ([("0", 4, FOUR), ("0", 4, FOUR)], "its list of storages is not that of its tensors"),
        ([], "expected a storage '0', found none"),
    ],
)
def test_legacy_storages_must_be_those_of_the_tensors(
    storages: list[tuple[str, int, bytes]], message: str, tmp_path: Path
) -> None:
    assert message in refusal(legacy(tmp_path / "x.pth", state_dict(a=tensor()), storages))


def test_other_pickles_are_not_taken_for_weights(tmp_path: Path) -> None:
    program = state_dict(a=tensor())
    (tmp_path / "x.pth").write_bytes(pickle.dumps({"a": 1}, 2))
    assert "it is a pickle, but not of torch.save" in refusal(tmp_path / "x.pth")
    assert "not of torch.save" in refusal(legacy(tmp_path / "x.pth", program, magic=7))
    assert "expected protocol 1001" in refusal(legacy(tmp_path / "x.pth", program, protocol=1))
    for content in (b"<html>Not Found</html>", b"PK\x03\x04", bytes(1000)):
        (tmp_path / "x.pth.tar").write_bytes(content)
        refusal(tmp_path / "x.pth.tar")


def test_archives_that_pytorch_does_not_write_are_refused(tmp_path: Path) -> None:
    program = state_dict(a=tensor())
    path = zipped(tmp_path / "x.pth", program, **{"constants.pkl": b""})
    assert "it is a TorchScript program, not weights" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", program)
    assert "expected one data.pkl in this archive, found 0" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", program)
        archive.writestr("b/data.pkl", program)
    assert "expected one data.pkl in this archive, found 2" in refusal(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zipfile, that this is no good idea
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", program)
            archive.writestr("a/data.pkl", program)
    assert "two of its members have one name" in refusal(path)


def test_archives_write_nothing_wherever_their_members_point(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../data.pkl", state_dict(a=tensor(storage(key="../../victim"))))
        archive.writestr("../data/../../victim", FOUR)
        archive.writestr("/tmp/../victim", b"")
    files.read(path)
    assert list(tmp_path.iterdir()) == [folder]
    assert list(folder.iterdir()) == [path]


def test_zip_bombs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", state_dict(a=tensor()))
        archive.writestr("a/data/0", bytes(1 << 20))
    assert "its members are compressed, which PyTorch never does" in refusal(path)
    content = zipped(path, state_dict(a=tensor())).read_bytes()
    entry = content.rindex(b"archive/data/0") - 46  # of the central directory
    for declared in (17, 1 << 31):
        sizes = struct.pack("<II", declared, declared)
        path.write_bytes(content[: entry + 20] + sizes + content[entry + 28 :])
        refusal(path)
    path.write_bytes(
        content[: entry + 20] + struct.pack("<II", 1 << 31, 1 << 31) + content[entry + 28 :]
    )
    assert "its members declare more bytes than it has" in refusal(path)


def test_more_bytes_than_any_weights_have_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = {f"tensor{index}": tensor() for index in range(100)}
    for path, limit, message in (
        (zipped(tmp_path / "x.pth", state_dict(**shared)), "MAX_FILE_BYTES", "the file has {}."),
        (legacy(tmp_path / "y.pth", state_dict(**shared)), "MAX_BYTES", "its {} bytes are more"),
    ):
        assert len(files.read(path)) == 100
        size = path.stat().st_size
        monkeypatch.setattr(files, limit, size - 1)
        assert message.format(size) in refusal(path)
        monkeypatch.undo()
    large = np.zeros(1 << 16, "<f4")
    wide = tensor(storage(count=large.size), size=(large.size,), stride=(1,))
    many = {f"tensor{index}": wide for index in range(100)}
    path = zipped(tmp_path / "x.pth", state_dict(**many), {"0": large.tobytes()})
    monkeypatch.setattr(files, "MAX_BYTES", 1 << 20)
    assert "its tensors declare 26214400 bytes, more than any weights have" in refusal(path)
    small = {"a": tensor(storage(count=large.size))}  # of a storage that is large
    path = zipped(tmp_path / "x.pth", state_dict(**small), {"0": large.tobytes()})
    monkeypatch.setattr(files, "MAX_BYTES", 1 << 17)
    assert "its tensors declare 262144 bytes, more than any weights have" in refusal(path)


@pytest.mark.parametrize("name", ["tiny.pth", "tiny_legacy.pth"])
def test_files_cut_off_anywhere_are_refused(name: str, tmp_path: Path) -> None:
    content = (GOLDEN / name).read_bytes()
    path = tmp_path / "x.pth"
    for length in range(0, len(content), 11 if name == "tiny.pth" else 3):
        path.write_bytes(content[:length])
        refusal(path)


def test_flipped_bytes_give_weights_or_one_line(tmp_path: Path) -> None:
    archive = zipfile.ZipFile(io.BytesIO((GOLDEN / "tiny.pth").read_bytes()))
    with archive:
        members = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
    program = members.pop("data.pkl")
    path = tmp_path / "x.pth"
    rng = np.random.default_rng(0)

    def damaged(content: bytes) -> bytes:
        values = np.frombuffer(content, np.uint8).copy()
        positions = rng.integers(0, len(values), rng.integers(1, 6))
        values[positions] = rng.integers(0, 256, len(positions))
        return values.tobytes()

    for index in range(600):
        if index % 3 == 0:
            path.write_bytes(damaged((GOLDEN / "tiny.pth").read_bytes()))
        elif index % 3 == 1:
            path.write_bytes(damaged((GOLDEN / "tiny_legacy.pth").read_bytes()))
        else:  # as an archive's checksums refuse nearly all others
            zipped(path, damaged(program), {}, **members)
        with contextlib.suppress(InputError):
            for array in files.read(path).values():
                array.sum()
