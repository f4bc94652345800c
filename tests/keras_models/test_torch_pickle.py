"""Pickles that are attacks, bombs or nonsense: refused in one line, and never run."""

import os
import pickle
from pathlib import Path

import pytest

from keras_models.checkpoints import files, torch_pickle
from tests.keras_models.torch_files import (
    ORDERED_DICT,
    legacy,
    ops,
    refusal,
    state_dict,
    storage,
    tensor,
    zipped,
)


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


def test_objects_beside_the_weights_do_nothing(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    called = b"cos\nsystem\n(" + ops(f"touch {victim}") + b"tR"
    program = state_dict(
        state_dict=state_dict(a=tensor())[2:-1],
        called=called,
        with_state=called + ops({"__class__": 1}) + b"b",
        with_items=called + ops("key") + ops(1) + b"s",
        appended=called + ops(1) + b"a",
        extended=called + b"(" + ops(1) + ops(2) + b"e",
        of_a_class=b"cio\nFileIO\n" + ops((str(victim), "w")) + b"\x81",
    )
    assert list(files.read(zipped(tmp_path / "x.ckpt", program))) == ["a"]
    assert not victim.exists()


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
        f"{path}: expected a state dict, found object of '__builtin__ eval'; save the network's "
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
    monkeypatch.setattr(torch_pickle, "_MAX_OPCODES", 1000)
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
        (tensor(storage(count=HUGE)), f"its tensors declare {4 * HUGE} bytes"),
        (tensor(storage(count=-4)), "expected a size, offset or stride"),
        (tensor(storage("QInt8Storage")), "it names 'QInt8Storage', whose numbers cannot be read"),
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
