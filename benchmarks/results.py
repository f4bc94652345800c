"""The bundled networks: accuracy in float and int8, and the cost of the int8 file.

python benchmarks/results.py --train data/cifar10/train --test data/cifar10/test \
    --out build/results --target host --target emulated:a53 --target emulated:a76

Prints the commands that it runs, then two Markdown tables.  Bundles that exist in --out are reused.
"""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from absl import app, flags

from keras_models.checkpoints import bundled

flags.DEFINE_string("train", None, "Calibrates and trains in int8.", required=True)
flags.DEFINE_string("test", None, "Labelled pictures to measure on.", required=True)
flags.DEFINE_string("out", None, "Folder of the bundles.", required=True)
flags.DEFINE_multi_string("target", ["host"], "Where to measure, as android_bench names it.")
flags.DEFINE_multi_string("model", [], "Networks; default: all that are bundled.")


def main(argv: list[str]) -> None:
    """Converts, measures, prints."""
    values = flags.FLAGS
    names = values.model or list(bundled.every())
    bundles = {name: (_bundle(name, qat=False), _bundle(name, qat=True)) for name in names}
    columns = "difference | agreement with float | fake-quantized = file"
    print(f"| network | float | post-training int8 | {columns} | QAT int8 | {columns} |")
    print("|---|---:|" + 2 * "---:|---:|---:|---:|")
    for name, pair in bundles.items():
        weights = bundled.every()[name].path
        files = [str(weights), *(str(bundle / "model.tflite") for bundle in pair)]
        forms = _json("convert.accuracy", "--models", *files, "--data", values.test)["forms"]
        cells = [f"{forms[0]['accuracy']['top1']:.2f}"]
        for bundle, form in zip(pair, forms[1:], strict=True):
            difference, (low, high) = (form["difference"][k] for k in ("points", "interval"))
            cells.append(f"{form['accuracy']['top1']:.2f}")
            cells.append(f"{difference:+.2f} ({low:+.2f} to {high:+.2f})")
            cells.append(f"{form['difference']['agreement']:.2f}")
            cells.append(f"{_report(bundle)['fidelity']['fake_quantized_agreement']:.2f}")
        print(f"| {name} | {' | '.join(cells)} |")

    files = [str(pair[0] / "model.tflite") for pair in bundles.values()]
    out = f"{values.out}/rows.jsonl"
    rows = [
        _json("android_bench", "--models", *files, "--target", target, "--out", out)
        for target in values.target
    ]
    columns = (f"{row[0]['target']} ({row[0]['instruction_set']})" for row in rows)
    print("\n| network | parameters | M multiply-adds | kB | " + " | ".join(columns) + " |")
    print("|---|---:|---:|---:|" + "---:|" * len(rows))
    for i, (name, (bundle, _)) in enumerate(bundles.items()):
        report = _report(bundle)
        cells = [f"{report['params']:,}", f"{report['multiply_adds'] / 1e6:.1f}"]
        cells.append(f"{report['audit']['size_bytes'] / 1000:.0f}")
        cells += [_cost(measured[i]) for measured in rows]
        print(f"| {name} | {' | '.join(cells)} |")


def _bundle(name: str, *, qat: bool) -> Path:
    values = flags.FLAGS
    out = Path(values.out, f"{name}{'_qat' if qat else ''}")
    if not out.exists():
        words = ["--model", name, "--weights", "bundled", "--int8", "--out", str(out)]
        words += ["--calibration", values.train, "--data", values.test]
        _run("convert", *words, *(["--qat_epochs", "1", "--qat_data", values.train] if qat else []))
    (bundle,) = (path for path in out.iterdir() if not path.name.endswith("_training"))
    return bundle


def _report(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / "report.json").read_text())


def _cost(row: dict[str, Any]) -> str:
    if row["instructions"]:
        return f"{sum(row['instructions'].values()) / 1e6:.2f} M"
    return f"{row['median_ms']:.3f} ms ({row['ratio']:.2f})"


def _json(module: str, *words: str) -> Any:
    return json.loads(_run(module, *words, "--json"))


def _run(module: str, *words: str) -> bytes:
    command = [sys.executable, "-m", module, *words]
    print(f"    python -m {module} {shlex.join(words)}", file=sys.stderr)
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


if __name__ == "__main__":
    app.run(main)
