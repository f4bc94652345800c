"""The folder that a training writes: log.csv, weights, and what TensorBoard reads."""

import contextlib
import csv
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import summary_pb2

from keras_models.checkpoints import native
from keras_models.images.datasets import Split
from keras_models.train.checkpoint import Epoch
from keras_models.train.settings import TrainingSettings
from shufflelite import config, lock
from shufflelite.atomic import replacing
from shufflelite.versions import version

PACKAGES = ("shufflelite", "tensorflow", "tf_keras", "numpy")
CHECKPOINT, BEST, LAST, LOG = (
    "checkpoint.safetensors",
    "best.safetensors",
    "weights.safetensors",
    "log.csv",
)


@contextlib.contextmanager
def own(folder: Path) -> Iterator[None]:
    """Makes the folder this process's alone, and removes what a killed one left half-written.

    A folder that is made for it goes again where nothing is written.

    Raises:
      InputError: another process writes there.
    """
    with lock.exclusive(folder / ".lock", on_busy=lock.refuse(folder, "choose another 'out'")):
        for part in folder.glob("*.part"):
            part.unlink()
        yield


def write_weights(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    settings: TrainingSettings,
    split: Split,
    epoch: Epoch,
    accuracy: Mapping[str, object] | None,
) -> None:
    """Writes the weights as they were after `epoch`."""
    native.save(
        path,
        arrays,
        native.Trained(
            model=settings.network.name,
            options=settings.network.options,
            resolution=settings.network.input_resolution,
            num_classes=split.classes,
            class_names=split.class_names,
            preprocessing=settings.seen,
            origin={
                "settings": recipe(settings),
                "epochs": epoch.epoch,
                "accuracy": accuracy,
                "pictures_sha256": split.sha256,
                "versions": {name: version(name) for name in PACKAGES},
            },
        ),
    )


def recipe(settings: TrainingSettings) -> dict[str, object]:
    """The settings without what says nothing of the weights."""
    plain = config.to_dict(dataclasses.replace(settings, preprocessing=settings.seen))
    for name in ("out", "save_every_s", "tensorboard"):
        del plain[name]
    return plain


def write_log(path: Path, epochs: Sequence[Epoch]) -> None:
    """Writes a row for each epoch."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(field.name for field in dataclasses.fields(Epoch))
        writer.writerows(dataclasses.astuple(epoch) for epoch in epochs)


def write_events(folder: Path, epochs: Sequence[Epoch]) -> None:
    """Writes the log as scalars for TensorBoard."""
    # As tf.summary.scalar has it, which needs TensorBoard to be installed.
    metadata = summary_pb2.SummaryMetadata(data_class=summary_pb2.DATA_CLASS_SCALAR)
    metadata.plugin_data.plugin_name = "scalars"
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        for epoch in epochs:
            for name, value in dataclasses.asdict(epoch).items():
                if name != "epoch" and value is not None:
                    tf.summary.write(name, float(value), step=epoch.epoch, metadata=metadata)
    writer.close()
