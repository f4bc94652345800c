"""Trains the toy for some steps on one, mirrored or several workers; prints the losses as JSON.

It learns from labels and from a larger toy.
"""

import functools
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras
from conftest import build_toy

from keras_models import registry
from keras_models.checkpoints import native
from keras_models.checkpoints.load import model_arrays
from keras_models.images.decode import Preprocessing
from keras_models.train import distribution, teacher
from keras_models.train.fast_layers import with_fast_layers
from keras_models.train.settings import (
    Augment,
    Data,
    Distribution,
    NetworkSettings,
    Training,
    TrainingSettings,
)
from keras_models.train.trainer import Trainer

STEPS = 12
registry.MODELS["toy"] = registry.Entry(
    "conftest:build_toy", paper="", published=(), note="", resolution=8
)


def make_teacher(settings: TrainingSettings, replicas: distribution.Replicas) -> teacher.Teacher:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "larger.safetensors"
        trained = native.Trained("toy", {"channels": 24}, 8, 10, None, Preprocessing(), {})
        native.save(path, model_arrays(build_toy(channels=24)), trained)
        training = replace(settings.training, teacher=str(path), distillation=0.2)
        settings = replace(settings, training=training)
        taught = teacher.read(settings)
        assert taught
        return taught.build(settings, 8, replicas)


def main(strategy: str) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    if strategy == "mirrored":
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 2
        )
    replicas = distribution.create(strategy)
    keras.utils.set_random_seed(0)
    settings = TrainingSettings(
        NetworkSettings("toy"),
        Data("x"),
        "out",
        training=Training(epochs=10, batch=16, learning_rate=0.2, ema=0.9, warmup_epochs=0.0),
        distribution=Distribution(synchronized_batch_norm=True),
    )
    augment = Augment(pad=2, cutout=2, randaugment_layers=1, mixup=0.3)
    trainer = Trainer(
        functools.partial(with_fast_layers, build_toy(drop=0.2), synchronized=True),
        settings,
        augment,
        pictures=80,
        replicas=replicas,
        teacher=make_teacher(settings, replicas),
    )
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 10
    images = np.clip(rng.normal(25 * labels[:, None, None, None], 20, (80, 8, 8, 3)), 0, 255)
    losses = []
    while len(losses) < STEPS:
        for batch in trainer.batches(80):
            losses.append(trainer.train(images[batch].astype(np.uint8), labels[batch])[0])
    sums = {name: float(np.abs(value).sum()) for name, value in trainer.weights().items()}
    print(json.dumps({"replicas": replicas.count, "losses": losses, "sums": sums}))


if __name__ == "__main__":
    main(sys.argv[1])
