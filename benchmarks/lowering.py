"""The gain of lowering: lowered int8 files against files translated layer by layer.

python benchmarks/lowering.py --out build/lowering --target host --target emulated:a53 \
    --target emulated:a55 --target emulated:a76

Files that exist in --out are reused.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import app, flags

from convert.autotune import stand_in
from convert.lowering import lower
from convert.lowering.options import GENERIC
from convert.settings import Precision, Quantization
from keras_models import registry
from keras_models.checkpoints.random_weights import randomize

flags.DEFINE_string("out", None, "Folder of the files.", required=True)
flags.DEFINE_multi_string("target", ["host"], "Where to measure, as android_bench names it.")
flags.DEFINE_integer("rounds", 20, "Rounds on the host.")

NETWORKS: Mapping[str, tuple[str, dict[str, Any]]] = {
    **{f"ShuffleNet V2 {w}x": ("shufflenet_v2", {"width": w}) for w in (0.5, 1.0, 1.5, 2.0)},
    "ShuffleNet V2 1.0x, megvii": ("shufflenet_v2", {"variant": "megvii"}),
    **{f"ShuffleNet V1 1x g={g}": ("shufflenet_v1", {"groups": g}) for g in (1, 2, 3, 4, 8)},
    "ShuffleNet V1 0.5x g=3": ("shufflenet_v1", {"width": 0.5}),
    "ShuffleNet V1 0.5x g=8": ("shufflenet_v1", {"width": 0.5, "groups": 8}),
    "AugShuffleNet 1.0x": ("augshufflenet", {}),
    "AugShuffleNet 1.0x, original": ("augshufflenet", {"variant": "original"}),
    "MobileNet V1 0.5": ("mobilenet_v1", {"width": 0.5}),
    "MobileNet V2 1.0": ("mobilenet_v2", {}),
}


def main(argv: list[str]) -> None:
    """Prints a Markdown table, one row for each network."""
    files = [path for name in NETWORKS for path in _files(name)]
    rows = {target: _measure(files, target) for target in flags.FLAGS.target}
    sets = {t: next(iter(measured.values()))["instruction_set"] for t, measured in rows.items()}
    columns = (f"{t} ({sets[t]}): direct | lowered | ratio" for t in rows)
    print("| network | " + " | ".join(columns), end=" | ")
    print("operators | kB |")
    print("|---|" + "---:|---:|---:|" * len(rows) + "---:|---:|")
    for name in NETWORKS:
        direct, lowered = map(str, _files(name))
        cells = []
        for measured in rows.values():
            before, after = _cost(measured[direct]), _cost(measured[lowered])
            ratio = measured[lowered]["ratio"] / measured[direct]["ratio"]
            cells += [before, after, f"{ratio:.3f}"]
        operators, sizes = [], []
        for path in (direct, lowered):
            row = next(iter(rows.values()))[path]
            operators.append(str(sum(row["operators"].values())))
            sizes.append(f"{row['size_bytes'] / 1000:.0f}")
        print(f"| {name} | {' | '.join(cells)} | {' -> '.join(operators)} | {' -> '.join(sizes)} |")


def _files(name: str) -> tuple[Path, Path]:
    """The direct and the lowered file, converted unless they exist."""
    out = Path(flags.FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    label = "".join(c if c.isalnum() or c in ".=" else "_" for c in name)
    paths = out / f"{label}_direct.tflite", out / f"{label}_lowered.tflite"
    if not all(path.exists() for path in paths):
        network, options = NETWORKS[name]
        model = registry.create(network, **options)
        randomize(model, seed=0)
        for path, lowering in zip(paths, (None, GENERIC), strict=True):
            deployed = lower(model, integer=True, options=lowering)
            path.write_bytes(stand_in(deployed, Quantization(precision=Precision.INT8)))
    return paths


def _measure(files: list[Path], target: str) -> dict[str, dict[str, Any]]:
    words = ["--models", *map(str, files), "--target", target, "--json"]
    words += ["--rounds", str(flags.FLAGS.rounds), "--out", str(files[0].parent / "rows.jsonl")]
    done = subprocess.run(
        [sys.executable, "-m", "android_bench", *words], stdout=subprocess.PIPE, check=True
    )
    return {row["path"]: row for row in json.loads(done.stdout)}


def _cost(row: dict[str, Any]) -> str:
    if row["instructions"]:
        return f"{sum(row['instructions'].values()) / 1e6:.1f} M"
    return f"{row['median_ms']:.2f} ms"


if __name__ == "__main__":
    app.run(main)
