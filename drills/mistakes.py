"""What users and their data get wrong, and names that try to leave their folder or reach a shell.

A mistake is (kind, exit code, command, what its one line says); the commands run in a folder that
`make_files` fills.  Code 0: strange, but right; then everything that is written is in `build`.  The
`cache` of a sweep may fill in any case.  Whatever runs `touch executed` leaves a file that nobody
expects.
"""

import json
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from fuzz_targets import readers
from PIL import Image

TOUCH = "'$(touch executed)'"
NET = "python -m convert --model mobilenet_v1 --width 0.25 --resolution 32"
NET10 = f"{NET} --num_classes 10 --weights random"
CLASSIFY, ACCURACY = "python -m convert.classify", "python -m convert.accuracy"
TRAIN = "python -m keras_models.train --config train.toml"
PUBLISH = "python -m keras_models.train.publish"
BENCH, NETWORKS = "python -m android_bench", "python -m keras_models"
MEASURE = f"{BENCH} --models bundle/model.tflite"
SWEEP = f"{BENCH} --cache cache --sweep"

MISTAKES = (
    # convert
    ("model: no such name", 1, "python -m convert --model shuflenet_v2", "Did you mean"),
    ("model: a path", 1, "python -m convert --model ../../etc/passwd", "Unknown model"),
    ("model: a command", 1, f"python -m convert --model {TOUCH}", "Unknown model"),
    ("model: two lines", 1, "python -m convert --model 'alexnet\nalexnet'", "Unknown model"),
    ("flag: no such name", 2, "python -m convert --modle alexnet", "Did you mean"),
    ("flag: no number", 2, "python -m convert --model alexnet --width wide", "--width=wide"),
    ("flag: contradiction", 2, f"{NET} --int8 --precision float32", "contradicts"),
    ("option: of a path", 1, f"{NET10} --option stem=../../x", "stem"),
    ("option: not the builder's", 1, f"{NET10} --option '__class__=1'", "__class__"),
    ("width: not a number", 2, "python -m convert --model mobilenet_v1 --width nan", "--width"),
    ("width: huge", 1, "python -m convert --model mobilenet_v1 --width 1e300", "width"),
    ("resolution: 1", 1, f"{NET10} --resolution 1", "at least 32"),
    ("set: no such key", 1, f"{NET10} --set model.lables=x", "Did you mean 'labels'?"),
    ("set: no assignment", 1, f"{NET10} --set {TOUCH}", "expected section.key=value"),
    ("config: absent", 1, "python -m convert --config no.toml", "expected a TOML file"),
    ("config: a folder", 1, "python -m convert --config pictures", "expected a TOML file"),
    ("config: not UTF-8", 1, "python -m convert --config damaged.png", "not valid TOML"),
    ("weights: absent", 1, f"{NET} --weights no.h5", "not there"),
    ("weights: a folder", 1, f"{NET} --weights pictures", "which is a folder"),
    ("weights: a pipe", 1, f"{NET} --weights pipe.toml", "--weights"),
    ("weights: text", 1, f"{NET} --weights text.h5", "expected Keras weights"),
    ("weights: a pickled command", 1, f"{NET} --weights command.pth", "command.pth"),
    ("weights: members outside", 1, f"{NET} --weights outside.keras", "outside.keras"),
    ("weights: arrays outside", 1, f"{NET} --weights outside.npz", "outside.npz"),
    ("weights: a bomb", 1, f"{NET} --weights bomb.npz", "bomb.npz"),
    ("weights: another network's", 1, f"{NET} --weights own.safetensors", "own.safetensors"),
    ("labels: absent", 1, f"{NET} --labels no.txt", "--labels"),
    ("labels: too few", 1, f"{NET10} --labels two.txt", "expected 10 class names"),
    ("labels: a picture", 1, f"{NET10} --labels pictures/0.png", "not UTF-8"),
    ("pictures: absent", 1, f"{NET10} --int8 --calibration no", "not there"),
    ("pictures: none", 1, f"{NET10} --int8 --calibration empty", "found none"),
    ("pictures: damaged", 1, f"{NET10} --int8 --calibration damaged", "can be decoded"),
    ("pictures: a bomb", 1, f"{NET10} --int8 --calibration bomb", "can be decoded"),
    ("pictures: a pipe", 1, f"{NET10} --int8 --calibration pipes", "found 1 broken"),
    ("pictures: a loop of links", 1, f"{NET10} --int8 --calibration loop", "found none"),
    ("csv: no such files", 1, f"{NET10} --int8 --calibration missing.csv", "is not a file"),
    ("csv: a file that is none of pictures", 1, f"{NET10} --int8 --data passwd.csv", "decoded"),
    ("csv: commands", 1, f"{NET10} --int8 --data commands.csv", "is not a file"),
    ("csv: a device", 1, f"{NET10} --int8 --data device.csv", "is not a file"),
    ("csv: a label that is no number", 1, f"{NET10} --int8 --data label.csv", "integer >= 0"),
    ("csv: labels that are no classes", 1, f"{NET10} --int8 --data high.csv", "got 10"),
    ("npz: another size", 1, f"{NET10} --int8 --calibration size.npz", "(n, 32, 32, 3)"),
    ("npz: objects", 1, f"{NET10} --int8 --calibration objects.npz", "expected an .npz file"),
    ("out: a file", 1, f"{NET10} --out text.h5", "Not a directory"),
    ("out: the kernel's", 1, f"{NET10} --out /proc/build", "--out, got /proc/build"),
    ("out: too long", 1, f"{NET10} --out {'x' * 300}", "File name too long"),
    ("out: taken", 1, f"{NET10} --out taken", "is not a bundle"),
    ("app: taken", 1, f"{NET10} --android_app pictures", "holds something else"),
    ("target: no such", 1, f"{NET10} --target hots", "Expected --target"),
    ("target: an option of ssh", 1, f"{NET10} --tune --target 'ssh:-oProxyCommand=x'", "ssh:[USER"),
    ("target: a core outside", 1, f"{NET10} --tune --target emulated:../a53", "--target"),
    ("qat: no pictures", 1, f"{NET10} --int8 --qat_epochs 1", "--qat_data"),
    ("qat: other classes", 1, f"{NET10} --int8 --qat_epochs 1 --qat_data classes", "10 classes"),
    ("layers: no such", 1, f"{NET10} --int8 --keep_float '../*'", "--keep_float"),
    # convert.classify
    ("classify: no words", 2, CLASSIFY, "expected a .tflite file"),
    ("classify: no picture", 1, f"{CLASSIFY} bundle/model.tflite no.png", "no.png"),
    ("classify: text", 1, f"{CLASSIFY} bundle/model.tflite two.txt", "two.txt"),
    ("classify: a bomb", 1, f"{CLASSIFY} bundle/model.tflite bomb/0.png", "bomb/0.png"),
    ("classify: no report", 0, f"{CLASSIFY} bare.tflite pictures", ""),
    ("classify: a folder", 1, f"{CLASSIFY} bundle pictures", "it holds bundle/model.tflite"),
    ("classify: a pipe for a file", 1, f"{CLASSIFY} pipe.tflite pictures", "no such file"),
    ("classify: half a file", 1, f"{CLASSIFY} half/model.tflite pictures", "half/model.tflite"),
    ("classify: another's report", 1, f"{CLASSIFY} other/model.tflite pictures", "SHA-256"),
    ("classify: labels too few", 1, f"{CLASSIFY} few/model.tflite pictures", "3 class names"),
    # convert.accuracy
    ("accuracy: no data", 2, f"{ACCURACY} --models bundle/model.tflite", "--data"),
    ("accuracy: half a mean", 2, f"{ACCURACY} --models a --data b --mean 1,2 --std 1", "--mean"),
    ("accuracy: not a mean", 2, f"{ACCURACY} --models a --data b --mean x --std 1", "--mean"),
    (
        "accuracy: a deviation of 0",
        1,
        f"{ACCURACY} --models bare.tflite --data classes --mean 0 --std 0",
        "std",
    ),
    (
        "accuracy: pictures without labels",
        1,
        f"{ACCURACY} --models bundle/model.tflite --data pictures",
        "named after its class",
    ),
    (
        "accuracy: classes unknown",
        1,
        f"{ACCURACY} --models bundle/model.tflite --data classes",
        "a name that none of them has",
    ),
    (
        "accuracy: a folder that is a file",
        1,
        f"{ACCURACY} --models bundle/model.tflite --data classes --out two.txt",
        "--out: two.txt",
    ),
    (
        "accuracy: made pictures of no number",
        1,
        f"{ACCURACY} --models bundle/model.tflite --data synthetic:-1",
        "synthetic",
    ),
    (
        "accuracy: a data set outside",
        1,
        f"{ACCURACY} --models bundle/model.tflite --data tfds:../../x",
        "tfds",
    ),
    (
        "accuracy: memory that is no number",
        2,
        f"{ACCURACY} --models bundle/model.tflite --data classes --in_memory_gb nan",
        "in_memory_gb",
    ),
    # training
    ("train: no config", 2, "python -m keras_models.train", "expected --config"),
    ("train: no such key", 1, f"{TRAIN} --set training.epoch=1", "Did you mean 'epochs'?"),
    ("train: a kind", 1, f"{TRAIN} --set training.epochs=many", "expected 'epochs' to be"),
    ("train: a rate that is none", 1, f"{TRAIN} --set training.learning_rate=nan", "learning_rate"),
    ("train: a network", 1, f"{TRAIN} --set network.name=../x", "Unknown model"),
    ("train: an option", 1, f"{TRAIN} --set network.options.stem=../x", "stem"),
    ("train: resolution -1", 1, f"{TRAIN} --set network.resolution=-1", "resolution"),
    (
        "train: memory -1",
        1,
        f"{TRAIN} --set data.in_memory_gb=-1 --set data.train=classes",
        "in_memory_gb",
    ),
    ("train: a class of two lines", 1, f"{TRAIN} --set data.train=lines", "one line of UTF-8"),
    ("train: pictures absent", 1, f"{TRAIN} --set data.train=no", "nothing of that name"),
    ("train: no pictures", 1, f"{TRAIN} --set data.train=synthetic:0", "synthetic"),
    ("train: other test classes", 1, f"{TRAIN} --set data.test=classes", "classes"),
    ("train: weights of others", 1, f"{TRAIN} --set network.weights=own.safetensors", "own.safe"),
    ("train: weights absent", 1, f"{TRAIN} --set network.weights=../no", "'network.weights'"),
    ("train: out is a file", 1, f"{TRAIN} --set out=two.txt", "two.txt"),
    ("train: out in the kernel", 1, f"{TRAIN} --set out=/proc/x", "/proc/x"),
    ("train: no checkpoint", 1, f"{TRAIN} --set out=begun", "not a checkpoint of a training"),
    ("train: workers", 1, f"{TRAIN} --set distribution.strategy=multi_worker", "TF_CONFIG"),
    ("publish: no config", 2, PUBLISH, "expected --config"),
    ("publish: nothing trained", 1, f"{PUBLISH} --config train.toml --to build", "found none"),
    (
        "publish: half weights",
        1,
        f"{PUBLISH} --config train.toml --set out=half --to build",
        "half",
    ),
    # android_bench
    ("bench: nothing", 2, BENCH, "expected either --models"),
    ("bench: no such file", 1, f"{BENCH} --models no.tflite", "found no such file"),
    ("bench: a pipe", 1, f"{BENCH} --models pipe.tflite", "found no such file"),
    ("bench: text", 1, f"{BENCH} --models text.tflite", "text.tflite"),
    ("bench: half a file", 1, f"{BENCH} --models half/model.tflite", "half/model.tflite"),
    ("bench: a pattern for a shell", 1, f"{BENCH} --models '`touch executed`'", "no such file"),
    ("bench: no such target", 2, f"{MEASURE} --target hots", "Did you mean 'host'?"),
    ("bench: an option of ssh", 2, f"{MEASURE} --target 'ssh:-oProxyCommand=x'", "ssh:[USER@]"),
    ("bench: a command for ssh", 2, f"{MEASURE} --target 'ssh:host;touch executed'", "ssh:[USER@]"),
    ("bench: a shell for ssh", 2, f"{MEASURE} --target ssh:{TOUCH}", "ssh:[USER@]"),
    ("bench: lines for ssh", 2, f"{MEASURE} --target 'ssh:host\nx'", "ssh:[USER@]"),
    ("bench: a core outside", 2, f"{MEASURE} --target emulated:../a53", "Unknown emulated core"),
    ("bench: threads", 2, f"{MEASURE} --threads 100000", "--threads=100000"),
    ("bench: rounds", 2, f"{MEASURE} --rounds 0", "--rounds to be at least 1"),
    ("bench: rows that are none", 1, f"{MEASURE} --out two.txt", "two.txt"),
    ("bench: out in the kernel", 1, f"{MEASURE} --out /proc/x/rows.jsonl", "/proc/x"),
    ("bench: out is a folder", 1, f"{MEASURE} --out pictures", "expected a file"),
    ("bench: no baseline", 1, f"{MEASURE} --baseline no.jsonl", "expected rows"),
    ("bench: a baseline of others", 1, f"{MEASURE} --baseline rows.jsonl", "--baseline"),
    ("sweep: not TOML", 1, f"{SWEEP} two.txt", "not valid TOML"),
    ("sweep: nothing", 1, f"{SWEEP} nothing.toml", "[[grid]]"),
    ("sweep: a network", 1, f"{SWEEP} outside.toml", "Unknown model"),
    ("sweep: flags that are none", 1, f"{SWEEP} flags.toml", "touch executed"),
    ("sweep: the sweep's own flag", 1, f"{SWEEP} own.toml", "'out' is set by the sweep"),
    ("sweep: an option", 1, f"{SWEEP} option.toml", "touch executed"),
    ("sweep: a cache that is a file", 1, f"{SWEEP} sweep.toml --cache two.txt", "two.txt"),
    ("setup: what", 2, f"{BENCH} setup ../../x", "expected setup emulated"),
    ("setup: no cache", 1, f"XDG_CACHE_HOME=/proc/x {BENCH} setup emulated", "/proc/x"),
    # keras_models
    ("networks: no such name", 1, f"{NETWORKS} --model ../x", "Unknown model"),
    ("networks: a pair that is none", 1, f"{NETWORKS} --compare alexnet:width", "width"),
    ("networks: resolution 0", 2, f"{NETWORKS} --model alexnet --resolution 0", "resolution"),
    (
        "networks: a multiplier",
        2,
        f"{NETWORKS} --model alexnet --resolution_multiplier nan",
        "to be a number",
    ),
    ("networks: too large", 1, f"{NETWORKS} --model alexnet --resolution 1000000", "memory"),
    # strange, and right
    ("a name for a shell", 0, f"{NET10} --out 'build/$(touch executed); -rf *\n'", ""),
    ("class names for a shell", 0, f"{NET10} --labels strange.txt --c_array --out build", ""),
    (
        "an app of such names",
        0,
        f"{NET10} --labels strange.txt --out build --android_app 'build/-a; b'",
        "",
    ),
    ("pictures of such names", 0, f"{CLASSIFY} bundle/model.tflite strange", ""),
    ("classes of such names", 0, f"{TRAIN} --set data.train=strange --set out=build/run", ""),
)


def make_files(place: Path) -> None:
    """Fills a folder with what the commands name."""
    for name in ("empty", "pipes", "loop", "begun", "half", "foreign"):
        (place / name).mkdir(parents=True)
    seeds = {reader.name: reader.seeds for reader in readers(place / "foreign")}
    net, report = seeds["tflite_runtime"][0], seeds["report"][0]
    _make_pictures(place)
    for name, content in {
        "text.h5": b"hello",
        "text.tflite": b"hello",
        "command.pth": b"\x80\x02cos\nsystem\nX\x0e\x00\x00\x00touch executed\x85R.",
        "own.safetensors": seeds["safetensors"][0],
        "two.txt": b"cat\ndog\n",
        "strange.txt": "\n".join(_strange_names()).encode(),
        "missing.csv": b"file,label\nno.png,1\n",
        "passwd.csv": b"file,label\n../../../../../../../../etc/passwd,1\n",
        "commands.csv": b"file,label\n$(touch executed),1\n",
        "device.csv": b"file,label\n/dev/zero,1\n",
        "label.csv": b"file,label\npictures/0.png,one\n",
        "high.csv": b"file,label\npictures/0.png,10\n",
        "rows.jsonl": seeds["results"][0],
        "bare.tflite": net,
        "half/model.tflite": net[: len(net) // 2],
        "half/weights.safetensors": seeds["safetensors"][0][:99],
        "begun/checkpoint.safetensors": b"hello",
        **_settings(),
    }.items():
        (place / name).write_bytes(content)
    for name, model, labels in (
        ("bundle", net, "a\nb\nc\n"),
        ("few", net, "a\n"),
        ("other", seeds["tflite_runtime"][1], "a\nb\nc\n"),
    ):
        (place / name).mkdir()
        (place / name / "model.tflite").write_bytes(model)
        (place / name / "report.json").write_bytes(report)
        (place / name / "labels.txt").write_text(labels)
    taken = place / "taken" / "mobilenet_v1_x0.25_32_float32"
    taken.mkdir(parents=True)
    (taken / "thesis.tex").write_text("years of work")
    for name in ("pipe.toml", "pipe.csv", "pipe.tflite", "pipes/0.png"):
        os.mkfifo(place / name)
    (place / "loop" / "loop").symlink_to(place / "loop")
    _make_archives(place)


def _make_pictures(place: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    strange = ("strange/-a; touch x$(touch executed)", "strange/b")
    for folder in (
        "pictures",
        "classes/cat",
        "classes/dog",
        *strange,
        "lines/a\n$(touch executed)",
    ):
        (place / folder).mkdir(parents=True)
        for number in range(20 if folder.startswith("strange") else 3):
            Image.fromarray(pixels).save(place / folder / f"{number}.png")
    whole = (place / "pictures" / "0.png").read_bytes()
    for folder, content in (("damaged", whole[:99]), ("bomb", _enormous())):
        (place / folder).mkdir()
        (place / folder / "0.png").write_bytes(content)
    (place / "damaged.png").write_bytes(whole[:99])


def _enormous() -> bytes:
    """A PNG file that says to be of 60,000 x 60,000 pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    data = b"IDAT" + zlib.compress(bytes(99))
    rest = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    return b"\x89PNG\r\n\x1a\n" + chunk + rest


def _make_archives(place: Path) -> None:
    np.savez(place / "size.npz", images=np.zeros((2, 16, 16, 3), np.uint8))
    np.savez(place / "objects.npz", images=np.array([{}]))
    np.savez(place / "whole.npz", a=np.zeros(9, np.float32))
    array = zipfile.ZipFile(place / "whole.npz").read("a.npy")
    for name, member, content in (
        ("outside.npz", "../executed.npy", array),
        ("outside.keras", "../executed", b"x"),
        ("bomb.npz", "a.npy", array[:-36].replace(b"(9,)", b"(9" + b"0" * 12 + b",)")),
    ):
        with zipfile.ZipFile(place / name, "w") as archive:
            archive.writestr(member, content)


def _strange_names() -> list[str]:
    return [
        *("../../etc/passwd", "/etc/passwd", "$(touch executed)", "`touch executed`", "-rf"),
        *('"; touch executed; "', "'|touch executed", "<script>", "\\u0000 $x ${y} %s {z}", "\t"),
    ]


def _settings() -> dict[str, bytes]:
    def sweep(model: str = "mobilenet_v1", *, options: str = "", convert: str = "") -> bytes:
        grid = f'[[grid]]\nmodel = "{model}"\nresolution = 32\noptions = {{ {options} }}\n'
        return f"{grid}[convert]\n{convert}\n".encode()

    train = {"name": "mobilenet_v1", "resolution": 32}
    return {
        "sweep.toml": sweep(options="width = 0.25"),
        "nothing.toml": b"",
        "outside.toml": sweep("../../etc/passwd"),
        "option.toml": sweep(options='"x; touch executed" = 1'),
        "flags.toml": sweep(options="width = 0.25", convert='"x; touch executed" = "$(touch x)"'),
        "own.toml": sweep(convert='out = "/tmp"'),
        "train.toml": (
            'out = "build/run"\n[network]\n'
            + "".join(f"{key} = {json.dumps(value)}\n" for key, value in train.items())
            + 'options = { width = 0.25 }\n[data]\ntrain = "synthetic:40"\n'
            + "[training]\nepochs = 1\nwarmup_epochs = 0.0\nbatch = 20\n"
        ).encode(),
    }
