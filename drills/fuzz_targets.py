"""Everything that reads what others made, each with valid files for it, made on the spot."""

import dataclasses
import functools
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from PIL import Image

from android_bench import benchmark_tool, bundle_info, device_info, results, sweep
from android_bench.benchmark_tool import ParseError
from convert import metadata_preprocessing
from convert import settings as conversion
from convert.accuracy import models
from convert.verification import sandbox
from convert.verification.runner import IoTensor
from keras_models.checkpoints import files, native
from keras_models.images import class_names, datasets, decode
from keras_models.images.decode import Preprocessing
from keras_models.images.formats import FORMATS
from keras_models.train import settings as training
from shufflelite import config
from shufflelite.errors import InputError
from tflite_file import extract_ops, io_ops, metadata, serialize
from tflite_file.model import output_operator, read_operators

ROOT = Path(__file__).resolve().parent.parent
PRINTED = ROOT / "tests" / "android_bench" / "tool_outputs" / "outputs.tar.xz"  # by real tools
PYTORCH = ROOT / "tests" / "keras_models" / "golden"  # what PyTorch saved
RGB = Preprocessing()
NAMES = ("cat", "Seelöwe", "海獅")
SIDE = 8  # of pictures, and of the network's input
CPU = "/sys/devices/system/cpu"
DEVICE = f"""{CPU}/online=0-5
{CPU}/present=0-7
{CPU}/cpu0/cpufreq/cpuinfo_max_freq=1400000
{CPU}/cpu0/cpufreq/scaling_max_freq=1200000
{CPU}/cpu0/cpufreq/scaling_governor=interactive
{CPU}/cpu0/cpufreq/related_cpus=0 1 2 3
{CPU}/cpu4/cpufreq/cpuinfo_max_freq=1800000
{CPU}/cpu4/topology/core_siblings_list=4-5
{CPU}/cpu5/cpu_capacity=1024
ro.product.manufacturer=Maker
ro.product.model=Phone
ro.product.cpu.abilist=arm64-v8a,armeabi-v7a
taskset=yes
/proc/loadavg=0.52 0.58 0.59 1/467 12345
/sys/class/thermal/thermal_zone0/type=cpu-thermal
/sys/class/thermal/thermal_zone0/temp=41200
processor\t: 0
processor\t: 4
CPU part\t: 0xd03
Hardware\t: Maker SoC
Thermal Status: 1
Current temperatures from HAL:
\tTemperature{{mValue=31.4, mType=0, mName=AP, mStatus=0}}
"""
BUILTIN, TYPE = schema.BuiltinOperator, schema.TensorType


@dataclass(frozen=True)
class Reader:
    """What reads foreign bytes.

    Attributes:
      name: For --reader.
      read: Gives a value, or raises one of `refuses`.
      seeds: Valid files.
      refuses: The error that it documents, beside InputError; no subclass of it.
      may_crash: The commands try it in a process of its own: a crash there, or an endless loop, is
        an answer.
    """

    name: str
    read: Callable[[bytes], object]
    seeds: Sequence[bytes]
    refuses: type[Exception] = InputError
    may_crash: bool = False


def readers(folder: Path) -> list[Reader]:
    """All of them; those that take a path find their file in `folder`, which is empty."""
    (folder / "a.png").write_bytes(_picture("PNG"))
    weights = {"conv/kernel": np.ones((3, 3, 3, 4), np.float32), "conv/bias": np.zeros(4, "<f4")}
    csv = "file,label\n" + "a.png,0\n" * 2 + '"a.png",1\n'
    load_picture = functools.partial(decode.load_picture, resolution=32, preprocessing=RGB)
    read_names = functools.partial(class_names.read, classes=len(NAMES))
    pixels = {"images": np.zeros((2, SIDE, SIDE, 3), np.uint8), "labels": np.arange(2)}
    return [
        *_checkpoints(folder, weights),
        *_tflite(folder),
        *_settings(folder),
        *_tool_output(),
        Reader("pictures", _of_path(folder / "x", load_picture), list(map(_picture, FORMATS))),
        Reader("pictures_npz", _of_path(folder / "p.npz", _labelled), [_npz(pixels)]),
        Reader("labels_csv", _of_path(folder / "x.csv", _labelled), [csv.encode()]),
        Reader("class_names", _of_path(folder / "x.txt", read_names), ["\n".join(NAMES).encode()]),
        Reader("results", _of_path(folder / "x.jsonl", results.read), [_rows()]),
        Reader("device", _of_text(_device), [DEVICE.encode()]),
    ]


def _of_path(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def read_bytes(content: bytes) -> object:
        path.write_bytes(content)
        return read(path)

    return read_bytes


def _of_text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda content: parse(content.decode(errors="replace"))


def _labelled(path: Path) -> object:
    warn = [].append
    pictures = datasets.load(
        str(path), resolution=SIDE, preprocessing=RGB, seed=0, warn=warn, labels_required=True
    )
    datasets.check_classes(pictures, warn)
    return pictures


def _device(text: str) -> object:
    layout, state = device_info.parse_layout(text), device_info.parse_state(text)
    cores = device_info.choose(layout, requested=None, threads=2).cores
    return (
        device_info.pinned(["tool"], cores),
        device_info.governor(state, cores),
        device_info.throttling(state, cores),
    )


def _checkpoints(folder: Path, weights: Mapping[str, np.ndarray]) -> Iterator[Reader]:
    told = native.Trained("shufflenet_v2", {"width": 0.5}, 32, 3, NAMES, RGB, {"epochs": 1})
    native.save(folder / "x.safetensors", weights, told)
    seeds = {
        "pth": [path.read_bytes() for path in sorted(PYTORCH.glob("tiny*"))],
        "safetensors": [(folder / "x.safetensors").read_bytes()],
        "npz": [_npz(weights)],
        "h5": [_h5(_by_names), _h5(_by_counts)],
        "keras": [_keras()],
    }
    for suffix, found in seeds.items():
        read = _of_path(folder / f"x.{suffix}", lambda p: (files.read_here(p), native.describe(p)))
        yield Reader(suffix, read, found, may_crash=suffix in ("h5", "keras"))


def _tflite(folder: Path) -> Iterator[Reader]:
    seeds = [_network(TYPE.FLOAT32), _network(TYPE.INT8)]

    def run(content: bytes) -> None:
        read_operators(content)
        try:
            sandbox.run(content)
        except (ValueError, RuntimeError) as error:  # the commands join its lines
            raise ValueError from error

    def cut_up(content: bytes) -> object:
        return [
            extract_ops.extract(content, [part.index]) for part in extract_ops.list_ops(content)
        ]

    def described(content: bytes) -> object:
        found = metadata.read(content)
        image = IoTensor("image", 0, "uint8", (1, SIDE, SIDE, 3), 0.01, 3)
        return found and metadata_preprocessing.read(found, image)

    def of_bundle(report: Path) -> object:
        path = report.with_name("model.tflite")
        return bundle_info.read(path), models.read_all([str(path)])

    yield Reader("tflite_operators", output_operator, seeds, ValueError)
    yield Reader("tflite_metadata", described, seeds, ValueError)
    yield Reader("tflite_parts", cut_up, seeds, ValueError)
    yield Reader("tflite_runtime", run, seeds, ValueError, may_crash=True)
    bundle = folder / "bundle"
    bundle.mkdir()
    (bundle / "model.tflite").write_bytes(seeds[0])
    report = {
        "sha256": hashlib.sha256(seeds[0]).hexdigest(),
        "preprocessing": dataclasses.asdict(RGB),
        "settings": {
            "model": {"name": "shufflenet_v2", "num_classes": 3},
            "quantization": {"precision": "int8"},
        },
        "audit": {"input": {"shape": [1, SIDE, SIDE, 3]}},
        "options": {"width": 0.5},
        "params": 1,
        "multiply_adds": 1,
        "fidelity": {"top1": None},
    }
    yield Reader("report", _of_path(bundle / "report.json", of_bundle), [_json(report)])


def _settings(folder: Path) -> Iterator[Reader]:
    found = [path.read_bytes() for path in sorted((ROOT / "configs").glob("*.toml"))]
    kinds = (
        ("toml_convert", conversion.ConversionSettings, b"python -m convert"),
        ("toml_train", training.TrainingSettings, b"python -m keras_models.train"),
        ("toml_sweep", sweep.SweepSettings, b"--sweep"),
    )
    for name, kind, command in kinds:
        seeds = [content for content in found if command in content.partition(b"\n")[0]]
        load = functools.partial(config.load, schema=kind)
        yield Reader(name, _of_path(folder / "x.toml", load), seeds)


def _tool_output() -> Iterator[Reader]:
    with tarfile.open(PRINTED) as archive:
        printed = {one.name: file.read() for one in archive if (file := archive.extractfile(one))}
    ms = {"avg": 2, "min": 1, "max": 3, "std": 1, "median": 2, "p5": 1, "p95": 3, "init": 1}
    latency = {f"{name}_ms": time for name, time in ms.items()}
    latency |= {"warmup_first_ms": 2, "warmup_avg_ms": 2, "num_runs": 3, "num_warmup_runs": 1}
    report = {"latency": latency, "accelerators": ["CPU"], "fully_accelerated": True}
    texts = {name: text for name, text in printed.items() if _is_read(text)}
    profiled = [text for text in texts.values() if b"Run Order" in text]
    protos = {
        kind: [data for name, data in printed.items() if name.endswith(f".{kind}.pb")]
        for kind in ("result", "prof", "ri")
    }
    readers = [
        ("tool_text", _of_text(benchmark_tool.parse), list(texts.values())),
        ("tool_failure", _of_text(benchmark_tool.failure), list(texts.values())),
        ("tool_profile", _of_text(benchmark_tool.parse_profile), profiled),
        ("tool_json", _of_text(benchmark_tool.parse_result_json), [_json(report)]),
        ("tool_result_proto", benchmark_tool.parse_result_proto, protos["result"]),
        ("tool_profile_proto", benchmark_tool.parse_profile_proto, protos["prof"]),
        ("tool_runtime_proto", benchmark_tool.parse_runtime_info_proto, protos["ri"]),
    ]
    for name, read, seeds in readers:
        yield Reader(name, read, seeds, ParseError)


def _is_read(text: bytes) -> bool:
    try:
        _of_text(benchmark_tool.parse)(text)
    except ParseError:
        return False
    return True


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _picture(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    more = {"exif": exif} if kind in ("JPEG", "PNG", "TIFF", "WEBP") else {}
    Image.fromarray(pixels).save(stream, kind, **more)
    return stream.getvalue()


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def _h5(fill: Callable[[h5py.File], None]) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        fill(file)
    return stream.getvalue()


def _by_names(file: h5py.File) -> None:
    file.attrs["layer_names"] = [b"conv", b"relu"]
    file.attrs["model_config"] = json.dumps({"config": {"layers": []}})
    conv, relu = file.create_group("conv"), file.create_group("relu")
    conv.attrs["weight_names"] = [b"conv/kernel:0", b"conv/bias:0"]
    relu.attrs["weight_names"] = np.array([], "S1")
    conv["conv/kernel:0"] = np.ones((3, 3, 3, 4), np.float32)
    conv["conv/bias:0"] = np.zeros(4, np.float32)


def _by_counts(file: h5py.File) -> None:
    for layer, count in (("conv2d", 2), ("batch_normalization", 4)):
        for number in range(count):
            file[f"layers/{layer}/vars/{number}"] = np.ones(4, np.float32)


def _keras() -> bytes:
    layers = [
        {"class_name": "Conv2D", "config": {"name": "conv"}},
        {
            "class_name": "BatchNormalization",
            "config": {"name": "bn", "scale": True, "center": True},
        },
    ]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in (
            ("config.json", _json({"class_name": "Functional", "config": {"layers": layers}})),
            ("model.weights.h5", _h5(_by_counts)),
        ):
            archive.writestr(zipfile.ZipInfo(name), content)
    return stream.getvalue()


def _network(dtype: int) -> bytes:
    """A convolution, the mean over all places, and a softmax, with metadata."""

    def quantization(scale: float) -> Any:
        if dtype == TYPE.FLOAT32:
            return None
        return schema.QuantizationParametersT(scale=[scale], zeroPoint=[0])

    ends_of = {"image": [1, SIDE, SIDE, 3], "logits": [1, 3]}
    image, logits = (
        schema.TensorT(name=name, type=dtype, shape=shape, quantization=quantization(1 / 64))
        for name, shape in ends_of.items()
    )
    axes = schema.TensorT(name="axes", type=TYPE.INT32, shape=[2], buffer=1)
    mean = schema.OperatorT(
        inputs=[0, 2],
        outputs=[1],
        builtinOptionsType=schema.BuiltinOptions.ReducerOptions,
        builtinOptions=schema.ReducerOptionsT(keepDims=False),
    )
    code = schema.OperatorCodeT(
        builtinCode=BUILTIN.MEAN, deprecatedBuiltinCode=BUILTIN.MEAN, version=2
    )
    graph = schema.SubGraphT(
        tensors=[image, logits, axes], inputs=[0], outputs=[1], operators=[mean]
    )
    content = np.frombuffer(np.array([1, 2], "<i4").tobytes(), np.uint8)
    model = schema.ModelT(
        version=3,
        operatorCodes=[code],
        subgraphs=[graph],
        buffers=[schema.BufferT(), schema.BufferT(data=content)],
    )
    whole = io_ops.prepend_normalization(serialize.pack(model), RGB.mean, RGB.std, reverse=False)
    told = metadata.Metadata(
        name="net",
        description="Classifies.",
        author="we",
        version="1",
        license="Apache-2.0",
        image="The picture.",
        is_rgb=True,
        height=SIDE,
        width=SIDE,
        mean=RGB.mean,
        std=RGB.std,
        output=metadata.PROBABILITY,
        class_names=NAMES,
    )
    return metadata.add(io_ops.append_softmax(whole), told)


def _rows() -> bytes:
    """Two rows of results, and behind them the half one of a killed run."""
    told: dict[str, Any] = {field.name: None for field in dataclasses.fields(results.Row)}
    told |= dict.fromkeys(("ratio", "ratio_p5", "ratio_p95", "median_ms"), 1.0)
    told |= dict.fromkeys(("size_bytes", "threads", "rounds", "runs", "warmup", "seed"), 1)
    words = ("date_utc", "model", "path", "sha256", "ratio_to", "target", "runtime", "delegate")
    told |= dict.fromkeys((*words, "delegate_asked", "cpu", "python_version", "command"), "x")
    operator = {"name": "a", "type": "ADD", "ms": 0.5, "calls": 1, "delegated": None}
    told |= {"schema": results.SCHEMA, "operators": {"ADD": 1}, "cores": [0], "notes": ["x"]}
    told |= {"round_ms": [1.0]}
    line = _json(told | {"profile": [operator]})
    return line + b"\n" + line + b"\n" + line[:40]
