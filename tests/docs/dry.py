"""Reads commands as the programs themselves do, up to where they would begin to work.

python -m tests.docs.dry    reads [[program, word, ...], ...], prints a list of reasons or nulls

In a process of its own, and in a folder of its own: the programs define their flags as they are
imported, some of the same name, so each program's are removed before the next one's come.
"""

import contextlib
import dataclasses
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from absl import app, flags

from keras_models import registry
from shufflelite import config
from shufflelite.errors import InputError
from shufflelite.flags import define, read
from tests.docs.commands import ROOT

FOLDERS = tuple(f"{path.name}/" for path in ROOT.iterdir() if path.is_dir())
MADE = ("build/", "results/", "runs/", "data/", "pictures/")  # by the reader, or for him
STAND_INS = {"FILE": "configs/shufflenet_v2_cifar10.toml", "NAME": "shufflenet_v2"}
PICTURES = "examples"


class WrongError(Exception):
    """A command that cannot be right."""


def load(program: str) -> ModuleType:
    """Imports what `python -m program`, or `python program`, runs."""
    if not program.endswith(".py"):
        try:
            is_package = importlib.util.find_spec(program).submodule_search_locations is not None
        except (AttributeError, ModuleNotFoundError):
            raise WrongError(f"there is no module {program}") from None
        return importlib.import_module(f"{program}.__main__" if is_package else program)
    if not (ROOT / program).is_file():
        raise WrongError(f"there is no file {program}")
    spec = importlib.util.spec_from_file_location(Path(program).stem, ROOT / program)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str((ROOT / program).parent))  # as Python does
    spec.loader.exec_module(module)
    return module


def check_files(words: Sequence[str]) -> None:
    """What looks like a file of the project must be one."""
    for word in words:
        path = word.split("=")[-1]
        if path.startswith(FOLDERS) and not path.startswith(MADE) and not any(ROOT.glob(path)):
            raise WrongError(f"there is no {path}")


class BuildingError(Exception):
    """The builder has checked what it was given, and begins."""


def check_network(name: str, options: Mapping[str, Any], side: int) -> None:
    """Has the network's builder look at its options."""
    import tf_keras

    with (
        mock.patch.object(tf_keras, "Input", side_effect=BuildingError),
        contextlib.suppress(BuildingError),
    ):
        registry.create(name, input_shape=(side, side, 3), **options)


def check_convert(module: ModuleType, words: list[str]) -> None:
    """Settings, and their contradictions; files of the reader's own are taken for granted."""
    from convert import validate
    from convert.conversion import resolve
    from keras_models.registry import NAMED_WEIGHTS

    if len(words) > 1:
        raise WrongError(f"expected flags only, got {words[1]}")
    settings = module.read_settings()
    model = settings.model
    if model.weights not in (None, *NAMED_WEIGHTS):
        model = dataclasses.replace(model, weights=__file__)
    if model.labels:
        model = dataclasses.replace(model, labels=__file__)

    def there(section: Any, name: str) -> Any:
        return dataclasses.replace(section, **{name: getattr(section, name) and PICTURES})

    settings = dataclasses.replace(
        settings,
        model=model,
        quantization=there(settings.quantization, "calibration"),
        verification=there(settings.verification, "data"),
        qat=there(settings.qat, "data"),
    )
    validate.check(resolve(settings))
    check_network(model.name, model.options, model.input_resolution)


def check_bench(module: ModuleType, words: list[str]) -> None:
    """Flags, targets, and a sweep's networks."""
    from android_bench import compare, sweep, targets

    if words[1:2] == ["setup"]:
        if words[2:] != ["emulated"]:
            raise WrongError("expected setup emulated")
        return
    command = read(module.BenchFlags)
    module.check_flags(command, [*command.models, *words[1:]])
    compare.parse_limit(command.max_regression)
    for target in command.target:
        targets.check(target, command.options)
    if command.sweep:
        settings = sweep.load(command.sweep, command.set, module.measure_flags())
        for network in sweep.networks(settings):
            registry.find(network.model)


def check_training(module: ModuleType, words: list[str]) -> None:
    """Settings, and the network that they name."""
    from keras_models.train.settings import TrainingSettings

    if len(words) > 1:
        raise WrongError(f"expected flags only, got {words[1]}")
    settings = config.load(flags.FLAGS.config, TrainingSettings, flags.FLAGS.set or ())
    check_network(
        settings.network.name, settings.network.options, settings.network.input_resolution
    )


def check_networks(module: ModuleType, words: list[str]) -> None:
    """Names and options."""
    command = module.read_flags()
    if [command.list, command.model is not None, command.compare].count(True) != 1:
        raise WrongError("expected one of --list, --model, --compare")
    for word in words[1:] if command.compare else filter(None, [command.model]):
        network = module.requested(word, command)
        check_network(network.model, network.options, network.resolution)


def check_accuracy(module: ModuleType, words: list[str]) -> None:
    """Flags."""
    command = read(module.AccuracyFlags)
    if not [*command.models, *words[1:]] or not command.data:
        raise WrongError("expected --models and --data")
    assert command.preprocessing.fields is not None


def check_classify(module: ModuleType, words: list[str]) -> None:
    """Words."""
    if len(words) < 3:
        raise WrongError("expected a .tflite file and pictures")


CHECKS: dict[str, Callable[[ModuleType, list[str]], None]] = {
    "convert": check_convert,
    "android_bench": check_bench,
    "keras_models": check_networks,
    "keras_models.train": check_training,
    "keras_models.train.publish": check_training,
    "convert.accuracy": check_accuracy,
    "convert.classify": check_classify,
}


def check_all(commands: Sequence[Sequence[str]]) -> list[str | None]:
    """What is wrong with each command, `[program, word, ...]`, or None."""
    found: list[str | None] = [None] * len(commands)
    for program in dict.fromkeys(program for program, *_ in commands):
        before = set(flags.FLAGS)
        module = None
        for index, (asked, *words) in enumerate(commands):
            if asked == program:
                try:
                    if module is None:
                        module = load(program)
                        define(*getattr(module, "SETTINGS", ()))
                    check(program, module, words)
                except (WrongError, InputError, ValueError, app.UsageError, flags.Error) as error:
                    found[index] = f"{type(error).__name__}: {error}"
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
    return found


def check(program: str, module: ModuleType, words: Sequence[str]) -> None:
    """Raises one of several errors where the program would refuse its words."""
    if not words or words == ["--help"]:  # as in: `python -m convert` writes ...
        return
    words = [STAND_INS.get(word, word) for word in words]
    check_files(words)
    flags.FLAGS.unparse_flags()
    left = flags.FLAGS([program, *words])
    CHECKS.get(program, lambda module, words: None)(module, left)


def main() -> None:
    """Reads, checks, prints."""
    print(json.dumps(check_all(json.load(sys.stdin))))


if __name__ == "__main__":
    main()
