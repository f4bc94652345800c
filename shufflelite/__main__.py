"""Runs the commands: `shufflelite convert ...` is `python -m convert ...`.

  shufflelite convert   network -> verified .tflite file
  shufflelite classify  pictures -> classes, with such a file
  shufflelite accuracy  accuracy of files and weights over a data set
  shufflelite models    the networks: list, show, compare
  shufflelite train     float training
  shufflelite bench     latency of .tflite files on phones, ARM boards and emulated cores

Unlike `python -m`, it never imports modules from the current folder.
"""

import runpy
import sys
from pathlib import Path

from shufflelite.cli import DONE, USAGE

COMMANDS = {
    "convert": "convert",
    "classify": "convert.classify",
    "accuracy": "convert.accuracy",
    "models": "keras_models",
    "train": "keras_models.train",
    "bench": "android_bench",
}


def main() -> int:
    """Runs the module of the command that the first argument names."""
    name, *arguments = sys.argv[1:] or [""]
    if name in ("--help", "-h", "help"):
        print(__doc__)
        return DONE
    if name not in COMMANDS:
        expected = ", ".join(COMMANDS)
        print(f"shufflelite: expected one of {expected}, got {name!r}", file=sys.stderr)
        return USAGE
    here, ours = Path.cwd(), Path(__file__).resolve().parents[1]
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != here or here == ours]
    sys.argv[1:] = arguments
    runpy.run_module(COMMANDS[name], run_name="__main__", alter_sys=True)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
