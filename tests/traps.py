"""Modules in place of TensorFlow's: whoever imports one leaves the program with 99."""

from pathlib import Path

TENSORFLOW = ("tensorflow", "tf_keras", "tensorflow_model_optimization")


def write(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / f"{name}.py").write_text("import os; os._exit(99)")
    return folder
