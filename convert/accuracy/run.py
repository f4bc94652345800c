"""The order of an accuracy measurement, from pictures and models to the report."""

import math
import os
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from convert.accuracy.models import EvaluatedModel
from convert.accuracy.report import AccuracyReport, make_report
from keras_models import accuracy
from keras_models.accuracy import Predictions
from keras_models.images import datasets
from keras_models.images.datasets import Pictures
from shufflelite.progress import Progress

PIXELS = 32 * 224 * 224  # of the pictures in one batch


def run(
    models: Sequence[EvaluatedModel],
    source: str,
    *,
    threads: int,
    in_memory_gb: float,
    seed: int,
    progress: Progress,
) -> AccuracyReport:
    """Evaluates all models on the same pictures; those with the same crop and size read them once.

    Args:
      models: The others are compared with the first.
      source: Source of the pictures, as for `datasets.load`.
      threads: Batches processed at the same time.
      in_memory_gb: Decoded pictures beyond this are read when needed.
      seed: Seed of synthetic pictures.
      progress: Reports the progress.

    Raises:
      InputError: pictures or labels cannot be read, or have other classes.
    """
    by_resizing: defaultdict[tuple[object, ...], list[int]] = defaultdict(list)
    for index, model in enumerate(models):
        preprocessing = model.preprocessing
        resizing = model.resolution, preprocessing.crop_fraction, preprocessing.interpolation
        by_resizing[resizing].append(index)
    predictions: dict[int, Predictions] = {}
    sha256: dict[int, str] = {}
    for indices in by_resizing.values():
        group = [models[index] for index in indices]
        with progress.stage(f"pictures from {source}"):
            split = _pictures(models, group[0], source, in_memory_gb, seed, progress)
        names = [model.name for model in group]
        title = ", ".join(names) if len(names) <= 3 else f"{len(names)} models"
        with progress.stage(title) as on_step:
            measured = accuracy.measure(
                [model.make() for model in group],
                split,
                batch=min(accuracy.BATCH, max(1, PIXELS // group[0].resolution ** 2)),
                threads=threads,
                on_step=on_step,
            )
        predictions.update(zip(indices, measured, strict=True))
        sha256.update(dict.fromkeys(indices, split.sha256))
    assert all(np.array_equal(p.labels, predictions[0].labels) for p in predictions.values())
    return make_report(
        models,
        [predictions[index] for index in range(len(models))],
        [sha256[index] for index in range(len(models))],
        data=source,
        class_names=split.class_names,
    )


def default_threads(models: Sequence[EvaluatedModel]) -> int:
    """All cores, or as many threads as copies of the weights fit into half of the memory."""
    per_thread = 2 * sum(model.size_bytes for model in models)  # the file, and XNNPACK's packing
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(os.cpu_count() or 1, math.floor(memory / 2 / per_thread)))


def _pictures(
    models: Sequence[EvaluatedModel],
    model: EvaluatedModel,
    source: str,
    in_memory_gb: float,
    seed: int,
    progress: Progress,
) -> Pictures:
    split = datasets.load(
        source,
        resolution=model.resolution,
        preprocessing=model.preprocessing,
        in_memory_gb=in_memory_gb,
        seed=seed,
        warn=progress.warn,
        labels_required=True,
    )
    named = next((other for other in models if other.class_names is not None), model)
    return datasets.match_classes(split, named.class_names, model.classes, named.name)
