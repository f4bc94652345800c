"""Images per second of our training, over those of a plain tf_keras fit on preloaded arrays.

The fit has neither augmentation nor averaged weights, and its pictures are float arrays in memory;
"fit, fast layers" fits the layers that TensorFlow trains faster.  Each method runs in a process of
its own, which warms up for one epoch and measures the next; the methods alternate.

python benchmarks/training.py --config configs/shufflenet_v2_cifar10.toml --rounds 5
"""

import dataclasses
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tf_keras as keras
from absl import app, flags

from keras_models import registry
from keras_models.images import datasets
from keras_models.train.fast_layers import with_fast_layers
from keras_models.train.run import run
from keras_models.train.settings import Data, TrainingSettings
from shufflelite import config
from shufflelite.progress import Progress

flags.DEFINE_string("config", None, "Network and recipe; its pictures are not read.", required=True)
flags.DEFINE_integer("pictures", 12800, "Synthetic pictures of an epoch.")
flags.DEFINE_integer("rounds", 5, "Processes of each method.")
flags.DEFINE_enum(
    "way", None, ["training", "fit", "fit_form"], "Measure this method in this process."
)

WAYS = {"training": "training", "fit": "fit", "fit_form": "fit, fast layers"}


def main(argv: list[str]) -> None:
    """Prints a Markdown table, one row for each method."""
    values = flags.FLAGS
    if values.way:
        print(_images_per_s(config.load(values.config, TrainingSettings), values.way))
        return
    paces: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(values.rounds):
        for way, rates in paces.items():
            command = [sys.executable, *argv, "--config", values.config, "--way", way]
            command += ["--pictures", str(values.pictures)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rates.append(float(done.stdout.split()[-1]))
    print("| way | images/s | training over it |\n|---|---:|---:|")
    for way, rates in paces.items():
        ratios = [own / other for own, other in zip(paces["training"], rates, strict=True)]
        ratio = statistics.median(ratios)
        print(f"| {WAYS[way]} | {statistics.median(rates):.0f} | {ratio:.3f} |")


def _images_per_s(settings: TrainingSettings, way: str) -> float:
    if way == "training":
        with tempfile.TemporaryDirectory() as out:
            return _training(settings, out)
    side, number = settings.network.input_resolution, flags.FLAGS.pictures
    split = datasets.load(
        f"synthetic:{number}",
        resolution=side,
        preprocessing=settings.preprocessing,
        seed=settings.seed,
        warn=print,
    )
    pixels, labels = next(split.read([np.arange(number)]))
    images = settings.preprocessing.to_input(pixels)
    model = registry.create(
        settings.network.name,
        input_shape=(side, side, 3),
        num_classes=split.classes,
        **settings.network.options,
    )
    if way == "fit_form":
        model = with_fast_layers(model)
    model.compile(
        keras.optimizers.SGD(settings.training.learning_rate, momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )

    def epoch() -> None:
        model.fit(images, labels, batch_size=settings.training.batch, verbose=0)

    return _pace(epoch, number)


def _training(settings: TrainingSettings, out: str) -> float:
    """Reads the rate of the last epoch from the log."""
    settings = dataclasses.replace(
        settings,
        data=Data(f"synthetic:{flags.FLAGS.pictures}"),
        out=out,
        training=dataclasses.replace(settings.training, epochs=2),
    )
    run(settings, Progress("training"))
    with open(f"{out}/log.csv") as log:
        names, *rows = (line.strip().split(",") for line in log)
    return float(rows[-1][names.index("images_per_s")])


def _pace(epoch: Callable[[], None], images: int) -> float:
    epoch()
    start = time.monotonic()
    epoch()
    return images / (time.monotonic() - start)


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    app.run(main)
