"""The files that a training writes: log.csv, weights, and events for TensorBoard."""

import contextlib
import csv
import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import summary_pb2

from keras_models.accuracy import Accuracy
from keras_models.checkpoints import native
from keras_models.images.datasets import Pictures
from keras_models.train.checkpoint import EpochMetrics, recipe
from keras_models.train.settings import TrainingSettings
from shufflelite import atomic, lock
from shufflelite.versions import version

PACKAGES = ("shufflelite", "tensorflow", "tf_keras", "numpy")
CHECKPOINT, BEST, LAST, LOG = (
    "checkpoint.safetensors",
    "best.safetensors",
    "weights.safetensors",
    "log.csv",
)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks the folder, and removes the incomplete files of a killed process.

    Removes the folder at the end if it is new and empty.

    Raises:
      InputError: another process writes there.
    """
    with lock.exclusive(folder / ".lock", on_busy=lock.refuse(folder, "choose another 'out'")):
        atomic.clear_leftovers(folder)
        yield


def write_weights(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    settings: TrainingSettings,
    pictures: Pictures,
    epoch: EpochMetrics,
    accuracy: Accuracy | None,
) -> None:
    """Writes the weights after `epoch`; `accuracy` is theirs on the test pictures."""
    origin = {
        "settings": recipe(settings),
        "epochs": epoch.epoch,
        "accuracy": accuracy and dataclasses.asdict(accuracy),
        "pictures_sha256": pictures.sha256,
        "versions": {name: version(name) for name in PACKAGES},
    }
    trained = native.Trained(
        model=settings.network.name,
        options=settings.network.options,
        resolution=settings.network.input_resolution,
        num_classes=pictures.classes,
        class_names=pictures.class_names,
        preprocessing=settings.input_preprocessing,
        origin=origin,
    )
    native.save(path, arrays, trained)


def write_log(path: Path, epochs: Sequence[EpochMetrics]) -> None:
    """Writes a row for each epoch."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(field.name for field in dataclasses.fields(EpochMetrics))
    writer.writerows(dataclasses.astuple(epoch) for epoch in epochs)
    atomic.write(path, stream.getvalue().encode())


def write_events(folder: Path, epoch: EpochMetrics) -> None:
    """Appends the epoch's row of the log as scalars for TensorBoard."""
    # The metadata of tf.summary.scalar, which needs TensorBoard to be installed.
    metadata = summary_pb2.SummaryMetadata(data_class=summary_pb2.DATA_CLASS_SCALAR)
    metadata.plugin_data.plugin_name = "scalars"
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        for name, value in dataclasses.asdict(epoch).items():
            if name != "epoch" and value is not None:
                tf.summary.write(name, float(value), step=epoch.epoch, metadata=metadata)
    writer.close()
