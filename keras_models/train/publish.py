"""Publishes the weights of a completed training as bundled weights, with a model card.

Takes the flags of the training.  Stores kernels as float16, measures the accuracy of the stored
weights, and writes the file, its model card and the table of all bundled weights.

Example:
  python -m keras_models.train.publish --config configs/shufflenet_v2_cifar10.toml
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import app

from keras_models import registry
from keras_models.checkpoints import bundled, files, native
from keras_models.checkpoints.native import Trained
from keras_models.train import card
from keras_models.train.settings import TrainingSettings
from shufflelite import atomic, cli, config, flags, lock
from shufflelite.config import setting
from shufflelite.errors import InputError
from shufflelite.progress import Progress


@dataclass(frozen=True)
class PublishFlags:
    """The flags."""

    TOPIC = "general"

    config: str | None = setting(None, value_name="FILE", help="TOML file of the training.")
    set: tuple[str, ...] = setting(
        (),
        repeats=True,
        value_name="SECTION.KEY=VALUE",
        help="As in the training's command; may be repeated.",
    )
    to: str = setting(
        str(bundled.FOLDER), topic="output", value_name="FOLDER", help="Folder to write to."
    )


SETTINGS = (PublishFlags,)


def main(argv: list[str]) -> int:
    """Reads flags, publishes, prints the paths."""
    if len(argv) > 1:
        raise app.UsageError(f"expected flags only, got {argv[1]!r}")
    command = flags.read(PublishFlags)
    if command.config is None:
        raise app.UsageError("expected --config FILE")
    path = publish(Path(command.config), command.set, Path(command.to), Progress("publish"))
    cli.print_facts([("weights", path), ("card", path.with_suffix(".md"))])
    return cli.DONE


def publish(path: Path, overrides: Sequence[str], folder: Path, progress: Progress) -> Path:
    """Writes the weights of the training of the config at `path`; returns their path.

    Raises:
      InputError: not a completed training, or one of other settings or classes.
    """
    settings = config.load(path, TrainingSettings, overrides)
    published = config.load(path, TrainingSettings)  # without paths of this machine
    from keras_models.train import checkpoint, outputs  # late: --help does not need TensorFlow

    source = Path(settings.out) / outputs.LAST
    trained = native.describe(source)
    if trained is None:
        raise InputError(f"{source}: expected the weights of a completed training, found none.")
    try:
        used = config.build({**trained.origin["settings"], "out": published.out}, TrainingSettings)
    except (LookupError, TypeError) as error:
        raise InputError(f"{source}: expected weights that say how they were trained.") from error
    used = dataclasses.replace(used, data=published.data)
    recipe = checkpoint.recipe(published)
    if checkpoint.recipe(used) != recipe:
        raise InputError(f"{source}: expected a training with the settings of {path}, got others.")
    if trained.class_names != card.CLASSES:
        raise InputError(f"{source}: expected CIFAR-10's classes, which the card is about.")
    arrays = {
        name: array.astype(np.float16) if array.ndim > 1 else array
        for name, array in files.read(source).items()
    }
    origin = {
        **trained.origin,
        "settings": recipe,
        "config": f"configs/{path.name}",
        "trained_accuracy": trained.origin["accuracy"],
        **_measure(trained, arrays, settings, progress),
    }
    trained = dataclasses.replace(trained, origin=origin)
    weights = folder / f"{path.stem}.safetensors"
    with lock.exclusive(folder / ".lock"):  # the table lists all weights of the folder
        native.save(weights, arrays, trained)
        atomic.write(weights.with_suffix(".md"), card.card(weights, trained).encode())
        all_weights = {p: t for p in folder.glob("*.safetensors") if (t := native.describe(p))}
        atomic.write(folder / "README.md", card.index(all_weights).encode())
    return weights


def _measure(
    trained: Trained, arrays: dict[str, np.ndarray], settings: TrainingSettings, progress: Progress
) -> dict[str, object]:
    from keras_models import counts
    from keras_models.accuracy import accuracy
    from keras_models.checkpoints.load import load_weights
    from keras_models.classifier import classifier_of
    from keras_models.images import datasets

    if settings.data.test is None:
        raise InputError("Expected the training to have 'data.test', whose figures the card shows.")
    shape = (trained.resolution, trained.resolution, 3)
    model = registry.create(
        trained.model, input_shape=shape, num_classes=trained.num_classes, **trained.options
    )
    load_weights(model, arrays, origin="stored weights")
    pictures = datasets.load(
        settings.data.test,
        resolution=trained.resolution,
        preprocessing=trained.preprocessing,
        in_memory_gb=settings.data.in_memory_gb,
        seed=settings.seed + 1,
        warn=progress.warn,
        labels_required=True,
    )
    if pictures.class_names != trained.class_names:
        raise InputError(f"{pictures.origin}: expected the classes of the weights, got others.")
    with progress.stage("accuracy") as on_step:
        classifier = classifier_of(model, trained.preprocessing)
        figures = accuracy(classifier, pictures, on_step).accuracy
    params, multiply_adds = counts.total(counts.count(model))
    return {
        "accuracy": dataclasses.asdict(figures),
        "test_sha256": pictures.sha256,
        "params": params,
        "multiply_adds": multiply_adds,
    }


if __name__ == "__main__":
    cli.run(main, name="publish", settings=SETTINGS)
