"""The cost of widths that fill the kernels' tiles, beside the published widths.

python benchmarks/aligned_widths.py --out build/aligned --target emulated:a53 \
    --target emulated:a55 --target emulated:a76 --target emulated:i8mm --vela vela

Weights are random. Each cell is published -> aligned: multiply-adds, instructions and cycles in
millions. Files that exist in --out are reused. --vela is the command of ethos-u-vela, which reports
the cycles of its Ethos-U model.
"""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import app, flags

from convert.autotune import stand_in
from convert.lowering import lower
from convert.settings import Precision, Quantization
from keras_models import counts, registry
from keras_models.checkpoints.random_weights import randomize

flags.DEFINE_string("out", None, "Folder of the files.", required=True)
flags.DEFINE_enum("form", "imagenet", ["imagenet", "cifar"], "224x224, or 32x32 with its stem.")
flags.DEFINE_multi_string("target", [], "Where to measure, as android_bench names it.")
flags.DEFINE_string("vela", None, "Command of ethos-u-vela.")
flags.DEFINE_string("accelerator", "ethos-u55-128", "Accelerator that vela compiles for.")


@dataclass(frozen=True)
class Pair:
    """A published network and the one with aligned widths."""

    name: str
    model: str
    published: Mapping[str, Any]
    aligned: Mapping[str, Any]  # replaces options of `published`


def _pairs(form: str) -> Iterator[Pair]:
    for width, align in ((0.5, 16), (1.0, 16), (1.0, 32)):
        yield Pair(f"ShuffleNet V2 {width}x", "shufflenet_v2", {"width": width}, {"align": align})
    yield Pair("AugShuffleNet 1.0x", "augshufflenet", {"width": 1.0}, {"align": 16})
    yield Pair("ShuffleNet V1 1x g=3", "shufflenet_v1", {"width": 1.0, "groups": 3}, {"align": 4})
    if form == "cifar":  # nearly as many instructions on a76 as published
        for width, aligned, align in ((0.5, 0.34, 16), (1.0, 0.96, 32)):
            smaller = {"width": aligned, "align": align, "allow_any_width": True}
            yield Pair(f"ShuffleNet V2 {width}x", "shufflenet_v2", {"width": width}, smaller)


def main(argv: list[str]) -> None:
    """Prints a Markdown table, one row for each pair."""
    values = flags.FLAGS
    out = Path(values.out)
    out.mkdir(parents=True, exist_ok=True)
    pairs = list(_pairs(values.form))
    files = [(_file(pair, {}, out), _file(pair, pair.aligned, out)) for pair in pairs]
    paths = list(dict.fromkeys(path for pair in files for path in pair))
    columns = {"multiply-adds": {path: _multiply_adds(path) for path in paths}}
    for target in values.target:
        columns[target] = _instructions(paths, target)
    if values.vela:
        columns[values.accelerator] = {path: _cycles(path) for path in paths}
    print(f"| network | aligned | {' | '.join(columns)} |")
    print("|---|---|" + "---:|" * len(columns))
    for pair, (published, aligned) in zip(pairs, files, strict=True):
        cells = [_change(column[published], column[aligned]) for column in columns.values()]
        print(f"| {pair.name} | {_label(pair.aligned)} | {' | '.join(cells)} |")


def _file(pair: Pair, aligned: Mapping[str, Any], out: Path) -> Path:
    """The int8 file of a network, converted unless it exists, beside its multiply-adds."""
    options = {**pair.published, **aligned}
    name = f"{pair.model}_{flags.FLAGS.form}_{_label(options)}".replace(" ", "_")
    path = out / f"{name}.tflite"
    if not path.exists():
        sizes: dict[str, Any] = {}
        if flags.FLAGS.form == "cifar":
            sizes = {"stem": "cifar", "input_shape": (32, 32, 3), "num_classes": 10}
        model = registry.create(pair.model, **options, **sizes)
        randomize(model, seed=0)
        _, multiply_adds = counts.total(counts.count(model))
        path.with_suffix(".json").write_text(json.dumps({"multiply_adds": multiply_adds}))
        deployed = lower(model, integer=True)
        path.write_bytes(stand_in(deployed, Quantization(precision=Precision.INT8)))
    return path


def _label(options: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in options.items() if value is not True)


def _multiply_adds(path: Path) -> int:
    return int(json.loads(path.with_suffix(".json").read_text())["multiply_adds"])


def _instructions(paths: list[Path], target: str) -> dict[Path, int]:
    words = ["--models", *map(str, paths), "--target", target, "--json"]
    words += ["--out", str(paths[0].parent / "rows.jsonl")]
    done = subprocess.run(
        [sys.executable, "-m", "android_bench", *words], stdout=subprocess.PIPE, check=True
    )
    rows = json.loads(done.stdout)
    return {Path(row["path"]): sum(row["instructions"].values()) for row in rows}


def _cycles(path: Path) -> int:
    words = ["--accelerator-config", flags.FLAGS.accelerator, "--output-dir", str(path.parent)]
    command = [flags.FLAGS.vela, *words, str(path)]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    (summary,) = path.parent.glob(f"{path.stem}_summary_*.csv")
    with summary.open(newline="", encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    return round(float(row["cycles_total"]))


def _change(before: int, after: int) -> str:
    return f"{before / 1e6:.2f} -> {after / 1e6:.2f} ({100 * (after / before - 1):+.1f} %)"


if __name__ == "__main__":
    app.run(main)
