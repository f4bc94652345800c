"""Inputs crafted to exhaust, crash or mislead what reads them, with the commands that read them.

An input is (kind, exit code, command, what its one line says, function that makes its files).  Each
is small, or sparse, and asks for gigabytes, for ever, for another file or for another type.
"""

import copy
import functools
import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from fuzz_targets import readers
from mistakes import ACCURACY, BENCH, CLASSIFY, NET, NET10
from PIL import Image

from keras_models.checkpoints import native
from tflite_file import serialize

Make = Callable[[Path], None]
Crafted = tuple[str, int, str, str, Make]

LARGE_BYTES = 3 << 30
OUTSIDE = "/etc/hostname"
WRONG = {  # of any field: values of other types, and numbers that no field takes
    "a text": "x",
    "a list": [[]],
    "null": None,
    "a huge number": -(10**300),
    "no number": float("nan"),
}
FIELDS = (  # of a description of weights
    *("model", "options", "options.width", "resolution", "num_classes", "class_names"),
    *("preprocessing", "preprocessing.std"),
)
RIGHT = {("class_names", "null")}


def crafted() -> Iterator[Crafted]:
    """All of them."""
    for what, name, make in _WEIGHTS:
        yield f"weights: {what}", 1, f"{NET} --weights {name}", name, make
    for field in FIELDS:
        for what, value in WRONG.items():
            if (field, what) not in RIGHT:
                make = functools.partial(_description, field=field, value=value)
                command = f"{NET} --weights told.safetensors"
                yield f"description: {field}: {what}", 1, command, "told.safetensors", make
    for what, change in _NETWORKS.items():
        make = functools.partial(_bundle, change=change)
        for command in _OF_BUNDLES:
            runs = command.startswith(BENCH) and change is _no_outputs
            yield f"network: {what}: {command.split()[2]}", int(not runs), command, "bundle", make
    for what, name, make in _PICTURES:
        yield f"pictures: {what}", 1, f"{_OF_BUNDLES[0]} {name}", name, make
    for name, command in _LARGE.items():
        make = functools.partial(_sparse, name=name)
        yield f"3 GB of zeros: {name}", 1, command, name, make


def _h5(fill: Callable[[h5py.File], None]) -> Make:
    def make(place: Path) -> None:
        with h5py.File(place / "net.h5", "w") as file:
            file.attrs["layer_names"] = [b"conv"]
            file.create_group("conv").attrs["weight_names"] = [b"kernel:0"]
            fill(file)

    return make


def _linked(file: h5py.File) -> None:
    """300 layers whose kernel is one array of 400 MB, of which no byte is stored."""
    array = file.create_dataset("one", (100_000_000,), "f4", chunks=(10_000_000,))
    file.attrs["layer_names"] = [f"conv{number}" for number in range(300)]
    for number in range(300):
        file.create_group(f"conv{number}").attrs["weight_names"] = [b"kernel:0"]
        file[f"conv{number}/kernel:0"] = array


def _paths(file: h5py.File) -> None:
    """25 groups, each with two ways to the next."""
    del file.attrs["layer_names"]
    groups = [file.create_group(f"pool/{number}") for number in range(25)]
    file["layers"] = groups[0]
    for group, following in zip(groups, [*groups[1:], None], strict=True):
        for name in ("dense", "dense_1"):
            layer = group.create_group(name)
            if following is None:
                layer["vars/0"] = np.ones(4, np.float32)
            else:
                layer["layers"] = following


def _texts(file: h5py.File) -> None:
    file.create_dataset("conv/kernel:0", (2_000_000_000,), h5py.vlen_dtype(np.float32))


def _elsewhere(file: h5py.File) -> None:
    file.create_dataset("conv/kernel:0", (4,), "u1", external=[(OUTSIDE, 0, 4)])


def _external_link(file: h5py.File) -> None:
    file["conv/kernel:0"] = h5py.ExternalLink(OUTSIDE, "/x")


def _soft_loop(file: h5py.File) -> None:
    file["conv/kernel:0"] = h5py.SoftLink("/conv/kernel:0")


def _own_parent(file: h5py.File) -> None:
    del file.attrs["layer_names"]
    file["layers"] = file["/"]


def _zeros_npz(place: Path) -> None:
    """Forty arrays of 256 MB, a member of 250 kB each."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"shape": (1 << 26,), "fortran_order": False, "descr": "<f4"}
    )
    with zipfile.ZipFile(place / "zeros.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(40):
            with archive.open(f"a{number}.npy", "w") as member:
                member.write(stream.getvalue())
                for _ in range(16):
                    member.write(bytes(1 << 24))


def _overlapping_npz(place: Path) -> None:
    """An archive whose thousand names are all of one member of 64 MB."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.zeros(1 << 24, np.float32))
    path = place / "overlap.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", stream.getvalue())
        (first,) = archive.infolist()
        for number in range(1000):
            another = copy.copy(first)
            another.filename = f"a{number}.npy"
            archive.filelist.append(another)


def _keras(place: Path, *, config: bytes) -> None:
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        file["layers/dense/vars/0"] = np.ones((4, 4), np.float32)
    with zipfile.ZipFile(place / "config.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", weights.getvalue())


def _many_lists(place: Path) -> None:
    layers = b"[" + b"[]," * 60_000_000 + b"[]]"
    _keras(place, config=b'{"class_name":"Functional","config":{"layers":' + layers + b"}}")


def _deep_lists(place: Path) -> None:
    _keras(place, config=b"[" * 1_000_000 + b"]" * 1_000_000)


def _huge_header(place: Path) -> None:
    (place / "header.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")


def _overlapping_arrays(place: Path) -> None:
    """A thousand arrays, all of the same 4 MB."""
    array = {"dtype": "F32", "shape": [1 << 20], "data_offsets": [0, 1 << 22]}
    header = json.dumps({f"a{number}/kernel": array for number in range(1000)}).encode()
    content = struct.pack("<Q", len(header)) + header + bytes(1 << 22)
    (place / "arrays.safetensors").write_bytes(content)


def _pth(place: Path, pickled: bytes) -> None:
    with zipfile.ZipFile(place / "net.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + pickled + b".")
        archive.writestr("archive/data/0", bytes(4))


def _doubled(place: Path) -> None:
    """A tuple of two of a tuple of two of ..., forty deep."""
    twice = b"q\0h\0\x86"  # memoized, got once more, and both in a tuple
    _pth(place, b"}X\x02\0\0\0fc)" + twice * 40 + b"s")


def _stretched(place: Path) -> None:
    """A tensor of 10**12 values, which are all the same one."""
    storage = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0000X\3\0\0\0cpuK\1tQ"
    size = b"(\x8a\6" + (10**12).to_bytes(6, "little") + b"t"
    hooks = b"ccollections\nOrderedDict\n)R"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0" + size + b"K\0\x85\x89"
    _pth(place, b"}X\2\0\0\0fc" + tensor + hooks + b"tRs")


_WEIGHTS: tuple[tuple[str, str, Make], ...] = (
    ("one array of 400 MB under 300 names", "net.h5", _h5(_linked)),
    ("groups with 2**25 paths", "net.h5", _h5(_paths)),
    ("arrays of any length", "net.h5", _h5(_texts)),
    ("values in another file", "net.h5", _h5(_elsewhere)),
    ("a link to another file", "net.h5", _h5(_external_link)),
    ("a link to itself", "net.h5", _h5(_soft_loop)),
    ("a group that is its own parent", "net.h5", _h5(_own_parent)),
    ("arrays of 10 GB in 10 MB", "zeros.npz", _zeros_npz),
    ("a thousand names of one member", "overlap.npz", _overlapping_npz),
    ("180 MB of JSON in 180 kB", "config.keras", _many_lists),
    ("JSON a million deep", "config.keras", _deep_lists),
    ("a header of 2**62 bytes", "header.safetensors", _huge_header),
    ("a thousand names of the same bytes", "arrays.safetensors", _overlapping_arrays),
    ("a tuple of 2**40 tuples", "net.pth", _doubled),
    ("a tensor of 10**12 values in 4 bytes", "net.pth", _stretched),
)


def _description(place: Path, *, field: str, value: object) -> None:
    told: dict[str, Any] = {
        "model": "mobilenet_v1",
        "options": {"width": 0.25},
        "resolution": 32,
        "num_classes": 3,
        "class_names": ["a", "b", "c"],
        "preprocessing": {"mean": [0.0] * 3, "std": [255.0] * 3},
        "origin": {},
    }
    *tables, key = field.split(".")
    functools.reduce(dict.__getitem__, tables, told)[key] = value
    arrays = {"conv1/kernel": np.ones((3, 3, 3, 8), np.float32)}
    native.write(place / "told.safetensors", arrays, {native.KEY: json.dumps(told)})


def _bundle(place: Path, *, change: Callable[[Any], None] = lambda model: None) -> None:
    """A network after a change, and a report.json that has its SHA-256."""
    (place / "seeds").mkdir()
    seeds = {reader.name: reader.seeds for reader in readers(place / "seeds")}
    model = serialize.unpack(seeds["tflite_runtime"][0])
    change(model)
    data = serialize.pack(model)
    report = json.loads(seeds["report"][0])
    report["sha256"] = hashlib.sha256(data).hexdigest()
    (place / "bundle").mkdir()
    (place / "bundle" / "model.tflite").write_bytes(data)
    (place / "bundle" / "labels.txt").write_text("a\nb\nc\n")
    (place / "bundle" / "report.json").write_text(json.dumps(report))
    for name in ("a/0.png", "b/0.png"):
        (place / "pictures" / name).parent.mkdir(parents=True)
        Image.new("RGB", (40, 40), "red").save(place / "pictures" / name)


def _no_axes(model: Any) -> None:
    mean = _mean(model)
    mean.inputs = [mean.inputs[0], -1]


def _axes_beyond(model: Any) -> None:
    axes = model.subgraphs[0].tensors[_mean(model).inputs[1]]
    model.buffers[axes.buffer].data = np.frombuffer(np.array([1 << 30, -9], "<i4").tobytes(), "u1")


def _empty_constant(model: Any) -> None:
    axes = model.subgraphs[0].tensors[_mean(model).inputs[1]]
    model.buffers[axes.buffer].data = None


def _own_output(model: Any) -> None:
    mean = _mean(model)
    mean.inputs = [mean.outputs[0], mean.inputs[1]]


def _huge_input(model: Any) -> None:
    (source,) = model.subgraphs[0].inputs
    model.subgraphs[0].tensors[source].shape = [1, 1 << 20, 1 << 20, 3]


def _negative_input(model: Any) -> None:
    (source,) = model.subgraphs[0].inputs
    model.subgraphs[0].tensors[source].shape = [1, -8, 8, 3]


def _text_input(model: Any) -> None:
    (source,) = model.subgraphs[0].inputs
    model.subgraphs[0].tensors[source].type = schema.TensorType.STRING


def _no_inputs(model: Any) -> None:
    model.subgraphs[0].inputs = []


def _no_outputs(model: Any) -> None:
    model.subgraphs[0].outputs = []


def _no_graph(model: Any) -> None:
    model.subgraphs = []


def _foreign_operator(model: Any) -> None:
    mean, name = _mean(model), "\x1b[31mred\nline"
    custom = schema.BuiltinOperator.CUSTOM
    code = schema.OperatorCodeT(builtinCode=custom, deprecatedBuiltinCode=custom, customCode=name)
    model.operatorCodes.append(code)
    mean.opcodeIndex = len(model.operatorCodes) - 1
    mean.builtinOptions, mean.builtinOptionsType = None, schema.BuiltinOptions.NONE


def _mean(model: Any) -> Any:
    codes = [code.builtinCode for code in model.operatorCodes]
    mean = codes.index(schema.BuiltinOperator.MEAN)
    return next(op for op in model.subgraphs[0].operators if op.opcodeIndex == mean)


_NETWORKS: Mapping[str, Callable[[Any], None]] = {
    "an operator without its constant": _no_axes,
    "axes that there are none of": _axes_beyond,
    "a constant without bytes": _empty_constant,
    "an operator that reads what it writes": _own_output,
    "an input of 3 TB": _huge_input,
    "an input of negative size": _negative_input,
    "an input of text": _text_input,
    "no input": _no_inputs,
    "no output": _no_outputs,
    "no graph": _no_graph,
    "an operator with a name for terminals": _foreign_operator,
}
_OF_BUNDLES = (
    f"{CLASSIFY} bundle/model.tflite pictures",
    f"{ACCURACY} --models bundle/model.tflite --data pictures",
    f"{BENCH} --models bundle/model.tflite --rounds 1 --runs 1 --out build/rows.jsonl",
)


def _postscript(place: Path) -> None:
    _bundle(place)
    text = (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(executed) (w) file closefile\n%%EOF\n"
    )
    (place / "a.jpg").write_bytes(text)


def _page(place: Path) -> None:
    _bundle(place)
    (place / "a.png").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>")


def _huge_gif(place: Path) -> None:
    _bundle(place)
    stream = io.BytesIO()
    Image.new("P", (4, 4)).save(stream, "GIF")
    content = stream.getvalue()
    (place / "a.gif").write_bytes(content[:6] + struct.pack("<HH", 65535, 65535) + content[10:])


_PICTURES: tuple[tuple[str, str, Make], ...] = (
    ("PostScript", "a.jpg", _postscript),
    ("a web page", "a.png", _page),
    ("a GIF of 4 gigapixels", "a.gif", _huge_gif),
)


def _sparse(place: Path, *, name: str) -> None:
    _bundle(place)
    (place / name).parent.mkdir(exist_ok=True)
    with (place / name).open("wb") as file:
        file.truncate(LARGE_BYTES)


_LARGE = {
    **{f"net.{kind}": f"{NET} --weights net.{kind}" for kind in ("h5", "keras", "npz", "pth")},
    "net.safetensors": f"{NET} --weights net.safetensors",
    "net.tflite": f"{BENCH} --models net.tflite",
    "bundle/report.json": _OF_BUNDLES[0],
    "bundle/labels.txt": _OF_BUNDLES[0],
    "labels.txt": f"{NET10} --labels labels.txt",
    "list.csv": f"{NET10} --int8 --calibration list.csv",
    "pictures.npz": f"{NET10} --int8 --calibration pictures.npz",
    "zeros/0.png": f"{_OF_BUNDLES[0]} zeros/0.png",
    "convert.toml": "python -m convert --config convert.toml",
    "train.toml": "python -m keras_models.train --config train.toml",
    "sweep.toml": f"{BENCH} --cache cache --sweep sweep.toml",
    "rows.jsonl": f"{_OF_BUNDLES[2]} --baseline rows.jsonl",
}
