"""ShuffleNet V2 against MobileNet V1 over their widths on this host: latency as ratios.

python benchmarks/widths.py --out build/bench        (or: make bench)

Converts every width at 224 to int8 (random weights, which have the latency of trained ones), then
measures all files interleaved in one run.
"""

import subprocess
import sys

from absl import app, flags

from keras_models import registry

flags.DEFINE_string("out", "build/bench", "Folder for the bundles.")
flags.DEFINE_integer("resolution", 224, "Height and width of the input.")
flags.DEFINE_integer("threads", 1, "Threads of the runtime.")

FAMILIES = ("mobilenet_v1", "shufflenet_v2")


def main(argv: list[str]) -> None:
    """Converts the networks, then measures them."""
    values = flags.FLAGS
    files = []
    for name in FAMILIES:
        for width in sorted(
            {variant.options["width"] for variant in registry.find(name).published}
        ):
            words = ["--model", name, "--width", str(width), "--resolution", str(values.resolution)]
            _run("convert", *words, "--weights", "random", "--int8", "--out", values.out)
            files.append(f"{values.out}/{name}_x{width:g}_{values.resolution}_int8/model.tflite")
    measured = ["--threads", str(values.threads), "--rounds", "40"]
    _run("android_bench", *measured, "--models", *files)


def _run(command: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", command, *arguments], check=True)


if __name__ == "__main__":
    app.run(main)
