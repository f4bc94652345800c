"""Progressive learning, https://arxiv.org/abs/2104.00298, Section 4.2 and Algorithm 1."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from keras_models.train.settings import Augment, TrainingSettings


@dataclass(frozen=True)
class StageSettings:
    """Resolution, options of the builder and augmentation of the epochs of a stage."""

    resolution: int
    options: Mapping[str, Any]
    augment: Augment


def stage_settings(settings: TrainingSettings, epoch: int) -> StageSettings:
    """Settings of an epoch, counted from 0: they grow linearly from stage to stage."""
    first, last = settings.progressive, settings.augment
    index = epoch * first.stages // settings.training.epochs
    progress = index / (first.stages - 1) if first.stages > 1 else 1.0

    def between(low: float | None, high: float) -> float:
        return high if low is None else low + (high - low) * progress

    resolution = settings.training.resolution or settings.network.input_resolution
    if first.resolution is not None:
        # In the code the first stage is already one step larger than in the paper.
        grown = (index + 1) / first.stages if first.sizes == "code" else progress
        resolution = int(first.resolution + (resolution - first.resolution) * grown)
    options = dict(settings.network.options)
    for name, low in first.options.items():
        options[name] = between(low, float(options[name]))
    return StageSettings(
        resolution,
        options,
        replace(
            last,
            randaugment_magnitude=between(first.randaugment_magnitude, last.randaugment_magnitude),
            mixup=between(first.mixup, last.mixup),
        ),
    )
