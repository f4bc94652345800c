"""Files of torch.save, read without PyTorch: those it wrote, damaged ones, and attacks."""

import contextlib
import io
import os
import pickle
import runpy
import shutil
import struct
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from keras_models.checkpoints import files, pth
from keras_models.errors import InputError

GOLDEN = Path(__file__).parent / "golden"
TINY = runpy.run_path(str(GOLDEN / "drawn.py"))["tiny"]()
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


@pytest.mark.parametrize(
    "name", ["tiny.pth", "tiny_legacy.pth", "tiny_protocol_4.pt", "tiny_averaged.pth"]
)
def test_tensors_that_pytorch_saved_have_their_values(name: str) -> None:
    arrays = files.read(GOLDEN / name)
    assert list(arrays) == list(TINY)
    for key, expected in TINY.items():
        assert arrays[key].dtype == expected.dtype, key
        np.testing.assert_array_equal(arrays[key], expected, err_msg=key)


def test_both_layouts_hold_the_same_network() -> None:
    plain = files.read(GOLDEN / "narrow.pth")
    parallel = files.read(GOLDEN / "narrow.pth.tar")  # DataParallel, beside an optimizer
    assert list(plain) == list(parallel)
    for name, array in plain.items():
        np.testing.assert_array_equal(parallel[name], array, err_msg=name)


def test_names_of_files_do_not_matter(tmp_path: Path) -> None:
    for name in ("tiny.pth", "tiny_legacy.pth"):
        for suffix in (".pt", ".pth", ".pth.tar"):
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


def test_what_wraps_a_network_is_removed_from_its_names(tmp_path: Path) -> None:
    names = {
        ("module.a", "module.b"): ["a", "b"],
        ("module._orig_mod.a",): ["a"],
        ("n_averaged", "module.a"): ["a"],
        ("module.a", "b"): ["module.a", "b"],
    }
    for saved, expected in names.items():
        program = state_dict(**dict.fromkeys(saved, tensor()))
        assert list(files.read(zipped(tmp_path / "x.pth", program))) == expected


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"\x80\x02]\x2e", "expected a state dict, found list; save the network's weights"),
        (b"\x80\x02" + tensor() + b".", "expected a state dict, found tensor"),
        (state_dict(net=state_dict(a=tensor())[2:-1]), "found dict as 'net'"),
        (state_dict(model=state_dict(a=ops(3))[2:-1]), "expected tensors in 'model', or a state"),
        (b"\x80\x02}" + ops(1) + tensor() + b"s.", "expected names of tensors, found int"),
        (state_dict(**{"a\nb": tensor()}), r"expected names of tensors, found 'a\\nb'"),
        (state_dict(), "expected weights, found none"),
    ],
)
def test_what_is_no_state_dict_is_refused(program: bytes, message: str, tmp_path: Path) -> None:
    assert message.replace("\\\\", "\\") in refusal(zipped(tmp_path / "x.pth", program))


class Call:
    """Pickles as a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


def attacks(victim: Path) -> dict[str, bytes]:
    """Programs that would create the file `victim`."""
    shell = f"touch {victim}"
    python = f"open({str(victim)!r}, 'w').close()"
    text = ops(shell)
    calls = {
        f"{name}, protocol {protocol}": pickle.dumps(call, protocol)
        for protocol in range(6)
        for name, call in (
            ("os.system", Call(os.system, shell)),
            ("eval", Call(eval, python)),
            ("exec", Call(exec, python)),
            ("open", Call(open, str(victim), "w")),
            ("getattr", Call(getattr, Call(__import__, "os"), "system")),
        )
    }
    rebuild = ops("torch._utils"), ops("_rebuild_tensor_v2.__globals__")
    opened = ops((str(victim), "w"))
    return calls | {
        "INST": b"(" + text + b"ios\nsystem\n.",
        "OBJ": b"(cos\nsystem\n" + text + b"o.",
        "NEWOBJ": b"\x80\x02cio\nFileIO\n" + opened + b"\x81.",
        "NEWOBJ_EX": b"\x80\x04cio\nFileIO\n" + opened + b"}\x92.",
        "EXT1": b"\x80\x02\x82\x01.",
        "persistent text": b"Pos.system\n.",
        "dotted": b"\x80\x04" + rebuild[0] + rebuild[1] + b"\x93.",
        "dotted class": b"\x80\x04" + ops("collections") + ops("OrderedDict.__init__") + b"\x93.",
        "dotted storage": b"\x80\x04" + ops("torch") + ops("FloatStorage.__class__") + b"\x93.",
        "spaced": b"\x80\x04" + ops("torch._utils _rebuild_tensor_v2 ") + ops("") + b"\x93.",
        "name of no text": b"\x80\x04" + ops(1) + ops(2) + b"\x93.",
        "builtins": b"\x80\x02c__builtin__\neval\n" + ops((python,)) + b"R.",
        "within a state dict": state_dict(a=b"cos\nsystem\n(" + text + b"tR"),
        "as hooks": state_dict(a=tensor().replace(ORDERED_DICT, b"cos\nsystem\n(" + text + b"tR")),
        "called text": b"\x80\x02" + text + ops((1,)) + b"R.",
        "called dict": b"\x80\x02}" + ops((1,)) + b"R.",
        "state of a dict": b"\x80\x02}" + ops({"__class__": 1}) + b"b.",
        "state of a tensor": state_dict(a=tensor() + ops({"__class__": 1}) + b"b"),
        "state of a name": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + ops({"x": 1}) + b"b.",
        "set": b"\x80\x04\x8f.",
        "buffer": b"\x80\x05\x97.",
    }


@pytest.mark.parametrize("layout", ["zip", "legacy", "bare"])
def test_attacks_are_refused_and_nothing_is_executed(layout: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    for name, program in attacks(victim).items():
        if layout == "zip":
            path = zipped(tmp_path / "x.pth", program)
        elif layout == "legacy":
            path = legacy(tmp_path / "x.pth", program)
        else:
            path = tmp_path / "x.pth"
            path.write_bytes(program)
        refusal(path)
        assert not victim.exists(), name


def test_the_attacks_above_are_real(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    working = [name for name in attacks(victim) if name.startswith(("os", "ev", "ex", "IN", "OB"))]
    for name in working:
        pickle.loads(attacks(victim)[name])
        assert victim.exists(), name
        victim.unlink()


def test_what_is_named_and_refused_is_said(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.pth", pickle.dumps(Call(eval, "1"), 2))
    assert refusal(path) == (
        f"{path}: it names '__builtin__ eval', which is no part of weights; save the network's "
        "weights alone, with torch.save(model.state_dict(), path)."
    )
    long = b"\x80\x04" + ops("x" * 100_000) + ops("\n\x1b") + b"\x93."
    assert len(refusal(zipped(tmp_path / "x.pth", long))) < 400


def nested_tuples(depth: int) -> bytes:
    """A tuple of itself twice, and so on: 2 ** depth items in a few bytes."""
    step = b"q\x00h\x00\x86"
    return b")" + step * depth


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        b"\x80\x02" + b"(" * 100_000 + b".",
        b"\x80\x02" + b")" + b"\x85" * 100_000 + b".",
        b"\x80\x02}" + nested_tuples(200) + b"Ns.",
        b"\x80\x02" + nested_tuples(200) + b".",
        state_dict(a=nested_tuples(200)),
        state_dict(a=tensor(size=()).replace(ops(()), nested_tuples(200), 1)),
        b"\x80\x02}" + ops(1 << 100) + b"Ns.",
        b"\x80\x02S" + b"x" * 10_000 + b"\n.",
        b"\x80\x02}q\x00h\x00a.",
        b"\x80\x02]q\x00h\x00a.",
        b"\x80\x02}r\xff\xff\xff\xff.",
        b"\x80\x02j\xff\xff\xff\xff.",
        b"\x80\x02\x8b\xff\xff\xff\x7f1.",
        b"\x80\x02\x8b\xff\xff\xff\xff1.",
        b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f1.",
        b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f1.",
        b"\x80\x04\x8d" + b"\x00" * 5 + b"\x01\x00\x001.",
        b"\x80\x02X\xff\xff\xff\xff1.",
        b"\x80\x02I" + b"9" * 100_000 + b"\n.",
        b"\x80\x02.",
        b"\x80\x02}}.",
        b"\x80\x02}(.",
        b"\x80\x02R.",
        b"\x80\x02s.",
        b"\x80\x02(1u.",
        b"\x80\x02}(Nu.",
        b"\x80\x02t.",
        b"\x80\x02q\x00.",
        b"\x80\x02b.",
        b"\x80\x02Q.",
        b"\x80\x02\x86.",
        b"\xff",
        b"",
    ],
)
def test_bombs_and_nonsense_are_refused_at_once(program: bytes, tmp_path: Path) -> None:
    refusal(zipped(tmp_path / "x.pth", program))
    refusal(legacy(tmp_path / "x.pth", program))


def test_endless_programs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pth, "_MAX_OPCODES", 1000)
    path = zipped(tmp_path / "x.pth", b"\x80\x02" + b"N" * 2000 + b".")
    assert "its pickle takes more than 1000 steps" in refusal(path)
    pairs = b"](" + (b"](" + ops("b") + b"Ne") * 100 + b"eq\x00"
    call = b"ccollections\nOrderedDict\nh\x00\x85R"
    path = zipped(tmp_path / "x.pth", b"\x80\x02" + pairs + call * 20 + b".")
    assert "its pickle takes more than 1000 steps" in refusal(path)


HUGE = 1 << 62


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (tensor(offset=1), "a tensor reaches beyond the 4 values of its storage"),
        (tensor(size=(2, 3)), "reaches beyond"),
        (tensor(stride=(3, 1)), "reaches beyond"),
        (tensor(size=(HUGE, HUGE), stride=(1, 1)), "reaches beyond"),
        (tensor(size=(HUGE, HUGE), stride=(0, 0)), "reaches beyond"),
        (tensor(size=(HUGE, 4), stride=(HUGE, HUGE)), "reaches beyond"),
        (tensor(size=(0,), stride=(1,), offset=5), "reaches beyond"),
        (tensor(offset=-1), "expected a size, offset or stride"),
        (tensor(stride=(-1, 1)), "expected a size, offset or stride"),
        (tensor(size=(-2, -2)), "expected a size, offset or stride"),
        (tensor(size=(1 << 64, 0)), "expected a size, offset or stride"),
        (tensor(offset=True), "expected a size, offset or stride"),
        (tensor(offset=0.5), "expected a size, offset or stride"),
        (tensor(size=(2, 2), stride=(1,)), "a tensor has 2 sizes and 1 strides"),
        (tensor(size=(1,) * 9, stride=(1,) * 9), "a tensor has 9 sizes and 9 strides"),
        (tensor(size=4, stride=1), "expected a list or tuple, found int"),
        (tensor(ops("storage")), "one of its tensors has no storage"),
        (tensor(storage(count=5)), "expected 20 bytes in a storage, found 16"),
        (tensor(storage("DoubleStorage")), "expected 32 bytes in a storage, found 16"),
        (tensor(storage(count=HUGE)), f"expected {4 * HUGE} bytes in a storage, found 16"),
        (tensor(storage(count=-4)), "expected a size, offset or stride"),
        (tensor(storage("QInt8Storage")), "it names 'torch QInt8Storage'"),
        (tensor(storage(key="1")), "expected a member data/'1', found none"),
        (tensor(storage(key="../../../etc/passwd")), "expected a member data/'../../../etc/pass"),
        (tensor(storage(key="x" * 10_000)), "expected a member data/'xxx"),
        (tensor(ops(("storage", 1, "0", "cpu", 4)) + b"Q"), "not described as PyTorch does"),
        (tensor(ops(("module",)) + b"Q"), "not described as PyTorch does"),
        (tensor(ops(4) + b"Q"), "not described as PyTorch does"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R", "incomplete or something else"),
        (b"ctorch._utils\n_rebuild_parameter\n" + ops((1, 2)) + b"R", "has no tensor"),
        (tensor(storage("BoolStorage", count=16)), "expected numbers in a, got bool"),
    ],
)
def test_tensors_that_are_not_in_the_file_are_refused(
    value: bytes, message: str, tmp_path: Path
) -> None:
    assert message in refusal(zipped(tmp_path / "x.pth", state_dict(a=value)))


def test_a_storage_of_two_types_is_refused(tmp_path: Path) -> None:
    both = state_dict(a=tensor(), b=tensor(storage("IntStorage")))
    for path in (zipped(tmp_path / "x.pth", both), legacy(tmp_path / "y.pth", both)):
        assert "it describes one of its storages in two ways" in refusal(path)


def test_storages_that_are_views_are_refused(tmp_path: Path) -> None:
    view = storage().replace(b"tQ", ops(("1", 0, 2)) + b"tQ")
    path = legacy(tmp_path / "x.pth", state_dict(a=tensor(view)))
    assert "its storages are views, as before PyTorch 0.4" in refusal(path)


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
    for path in (
        zipped(tmp_path / "x.pth", state_dict(**shared)),
        legacy(tmp_path / "y.pth", state_dict(**shared)),
    ):
        assert len(files.read(path)) == 100
        size = path.stat().st_size
        monkeypatch.setattr(files, "MAX_BYTES", size - 1)
        assert f"its {size} bytes are more than any weights have" in refusal(path)
        monkeypatch.undo()
    large = np.zeros(1 << 16, "<f4")
    wide = tensor(storage(count=large.size), size=(large.size,), stride=(1,))
    many = {f"tensor{index}": wide for index in range(100)}
    path = zipped(tmp_path / "x.pth", state_dict(**many), {"0": large.tobytes()})
    monkeypatch.setattr(files, "MAX_BYTES", 1 << 20)
    assert "its tensors declare 26214400 bytes, more than any weights have" in refusal(path)


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
        places = rng.integers(0, len(values), rng.integers(1, 6))
        values[places] = rng.integers(0, 256, len(places))
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
