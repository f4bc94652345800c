"""Makes bundled weights of a finished training: the file, its model card, and the table of all.

Takes the flags that the training had.  Kernels are stored as float16, and accuracy is measured
again on what is stored; the card is written from what the file then says of itself.

Example:
  python -m keras_models.train.publish --config configs/shufflenet_v2_cifar10.toml
"""

import dataclasses
from pathlib import Path

import numpy as np
from absl import app, flags

from keras_models import registry
from keras_models.checkpoints import bundled, files, native
from keras_models.checkpoints.native import Trained
from keras_models.train import card
from keras_models.train.settings import TrainingSettings
from shufflelite import cli, config, lock
from shufflelite.atomic import replacing
from shufflelite.errors import InputError
from shufflelite.progress import Progress

_CONFIG = flags.DEFINE_string("config", None, "The training's TOML file.")
_SET = flags.DEFINE_multi_string("set", [], "section.key=value, as the training had them.")
_TO = flags.DEFINE_string("to", str(bundled.FOLDER), "Folder to write to.")


def main(argv: list[str]) -> int:
    """Reads the training's weights, measures and writes them."""
    if len(argv) > 1:
        raise app.UsageError(f"expected flags only, got {argv[1]!r}")
    if _CONFIG.value is None:
        raise app.UsageError("expected --config FILE")
    path = ship(Path(_CONFIG.value), _SET.value, Path(_TO.value), Progress("ship"))
    print(f"{'weights':10} {path}")
    print(f"{'card':10} {path.with_suffix('.md')}")
    return cli.DONE


def ship(path: Path, overrides: list[str], to: Path, progress: Progress) -> Path:
    """Writes the weights of the training of `path`; returns their path.

    Raises:
      InputError: no finished training there, or one of other settings or classes.
    """
    settings = config.load(path, TrainingSettings, overrides)
    recipe = config.load(path, TrainingSettings)
    from keras_models.train import outputs  # brings in TensorFlow: not for --help and wrong flags

    source = Path(settings.out) / outputs.LAST
    ours = native.describe(source)
    if ours is None:
        raise InputError(f"{source}: expected the weights of a finished training, found none.")
    had = config.build({**ours.origin["settings"], "out": recipe.out}, TrainingSettings)
    had = dataclasses.replace(had, data=recipe.data)
    if outputs.recipe(had) != outputs.recipe(recipe):
        raise InputError(f"{source}: expected a training with the settings of {path}, got others.")
    if ours.class_names != card.CLASSES:
        raise InputError(f"{source}: expected CIFAR-10's classes, which the card is about.")
    stored = {
        name: array.astype(np.float16) if array.ndim > 1 else array
        for name, array in files.read(source).items()
    }
    origin = {
        **ours.origin,
        "settings": outputs.recipe(recipe),
        "config": f"configs/{path.name}",
        "trained_accuracy": ours.origin["accuracy"],
        **_measure(ours, stored, settings, progress),
    }
    weights = to / f"{path.stem}.safetensors"
    shipped = dataclasses.replace(ours, origin=origin)
    with lock.exclusive(to / ".lock"):  # the table is of all that are there
        native.save(weights, stored, shipped)
        _write(weights.with_suffix(".md"), card.card(weights, shipped))
        others = {p: d for p in to.glob("*.safetensors") if (d := native.describe(p))}
        _write(to / "README.md", card.index(others))
    return weights


def _measure(
    ours: Trained, stored: dict[str, np.ndarray], settings: TrainingSettings, progress: Progress
) -> dict[str, object]:
    from keras_models import counts
    from keras_models.accuracy import accuracy
    from keras_models.checkpoints.load import load_weights
    from keras_models.classifier import classifier_of
    from keras_models.images import datasets

    if settings.data.test is None:
        raise InputError("Expected the training to have 'data.test', whose figures the card shows.")
    side = (ours.resolution, ours.resolution, 3)
    model = registry.create(
        ours.model, input_shape=side, num_classes=ours.num_classes, **ours.options
    )
    load_weights(model, stored, origin="stored weights")
    split = datasets.load(
        settings.data.test,
        size=ours.resolution,
        preprocessing=ours.preprocessing,
        in_memory_gb=settings.data.in_memory_gb,
        seed=settings.seed + 1,
        warn=progress.warn,
    )
    if split.class_names != ours.class_names:
        raise InputError(f"{split.origin}: expected the classes of the weights, got others.")
    with progress.stage("accuracy") as on_step:
        found = accuracy(classifier_of(model, ours.preprocessing), split, on_step).accuracy
    params, multiply_adds = counts.total(counts.count(model))
    return {
        "accuracy": dataclasses.asdict(found),
        "test_sha256": split.sha256,
        "params": params,
        "multiply_adds": multiply_adds,
    }


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    cli.run(main, name="ship")
