"""The order of a measurement of accuracy, from pictures and forms to the report."""

import math
import os
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from convert.accuracy.models import Form
from convert.accuracy.report import Report, make_report
from keras_models import accuracy
from keras_models.accuracy import Answers
from keras_models.images import datasets
from keras_models.images.datasets import Split
from shufflelite.progress import Progress

PIXELS = 32 * 224 * 224  # of pictures that a thread works on


def run(
    forms: Sequence[Form],
    source: str,
    *,
    threads: int,
    in_memory_gb: float,
    seed: int,
    progress: Progress,
) -> Report:
    """Asks all forms for the same pictures, which forms that crop and resize alike read together.

    Args:
      forms: The first is what others are compared with.
      source: Of the pictures, as `datasets.load` takes it.
      threads: How many batches are worked on at the same time.
      in_memory_gb: Decoded pictures beyond this are read when needed.
      seed: Of synthetic pictures.
      progress: Is told how far it is.

    Raises:
      InputError: pictures or labels that cannot be read, or that are not of these classes.
    """
    alike: defaultdict[tuple[object, ...], list[int]] = defaultdict(list)
    for index, form in enumerate(forms):
        seen = form.preprocessing
        alike[form.resolution, seen.crop_fraction, seen.interpolation].append(index)
    answers: dict[int, Answers] = {}
    sha256: dict[int, str] = {}
    for indices in alike.values():
        group = [forms[index] for index in indices]
        with progress.stage(f"pictures from {source}"):
            split = _pictures(forms, group[0], source, in_memory_gb, seed, progress)
        names = [form.name for form in group]
        title = ", ".join(names) if len(names) <= 3 else f"{len(names)} forms"
        with progress.stage(title) as on_step:
            found = accuracy.measure(
                [form.make() for form in group],
                split,
                batch=min(accuracy.BATCH, max(1, PIXELS // group[0].resolution ** 2)),
                threads=threads,
                on_step=on_step,
            )
        answers.update(zip(indices, found, strict=True))
        sha256.update(dict.fromkeys(indices, split.sha256))
    assert all(np.array_equal(one.labels, answers[0].labels) for one in answers.values())
    return make_report(
        forms,
        [answers[index] for index in range(len(forms))],
        [sha256[index] for index in range(len(forms))],
        data=source,
        class_names=split.class_names,
    )


def default_threads(forms: Sequence[Form]) -> int:
    """All cores, or as many as half of the memory has room for the weights of."""
    each = 2 * sum(form.size_bytes for form in forms)  # the file's, and as XNNPACK arranges them
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(os.cpu_count() or 1, math.floor(memory / 2 / each)))


def _pictures(
    forms: Sequence[Form],
    form: Form,
    source: str,
    in_memory_gb: float,
    seed: int,
    progress: Progress,
) -> Split:
    split = datasets.load(
        source,
        size=form.resolution,
        preprocessing=form.preprocessing,
        in_memory_gb=in_memory_gb,
        seed=seed,
        warn=progress.warn,
    )
    named = next((one for one in forms if one.class_names is not None), form)
    return datasets.numbered(split, named.class_names, form.classes, named.name)
