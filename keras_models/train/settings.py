"""The settings of a training, in its TOML file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from keras_models import registry
from keras_models.images.decode import Preprocessing


@dataclass(frozen=True)
class Network:
    """What is trained."""

    name: str
    options: Mapping[str, bool | int | float | str] = field(default_factory=dict)  # its builder's
    resolution: int | None = None  # None: what its paper evaluates at
    weights: str = "random"  # to begin with: one of registry.NAMED_WEIGHTS or a file

    def __post_init__(self) -> None:
        _check_side(self.resolution)

    @property
    def side(self) -> int:
        """Height and width of the input in pixels."""
        return self.resolution or registry.find(self.name).resolution


@dataclass(frozen=True)
class Data:
    """Pictures with labels.

    A source is a folder that has a folder for each class, a csv, an .npz file, tfds:NAME/SPLIT, or
    synthetic:COUNT (drawn, ten classes).
    """

    train: str
    test: str | None = None
    in_memory_gb: float = 4.0  # decoded pictures up to this size stay in memory, others stream

    def __post_init__(self) -> None:
        _check(self.in_memory_gb >= 0, "in_memory_gb", "at least 0", self.in_memory_gb)


@dataclass(frozen=True)
class Augment:
    """What is drawn anew for each picture and epoch."""

    crop: Literal["none", "pad", "resized"] = "pad"  # pad: shifted by up to `pad` pixels
    pad: int = 4
    min_area: float = 0.08  # of a resized crop, in parts of the picture
    flip: bool = True
    randaugment_layers: int = 0  # how many operations one after the other
    randaugment_magnitude: float = 9.0  # 0 to 30; the operations' ranges are those of 10
    cutout: int = 0  # side of a grey square, in pixels
    mixup: float = 0.0  # alpha of arXiv:1710.09412; 0: off

    def __post_init__(self) -> None:
        _check(self.pad >= 0, "pad", "at least 0", self.pad)
        _check(0 < self.min_area <= 1, "min_area", "above 0 and at most 1", self.min_area)
        _check(self.randaugment_layers >= 0, "randaugment_layers", ">= 0", self.randaugment_layers)
        magnitude = self.randaugment_magnitude
        _check(0 <= magnitude <= 30, "randaugment_magnitude", "0 to 30", magnitude)
        _check(self.cutout >= 0, "cutout", "at least 0", self.cutout)
        _check(0 <= self.mixup < math.inf, "mixup", "at least 0", self.mixup)


@dataclass(frozen=True)
class Training:
    """The recipe."""

    epochs: int = 40
    batch: int = 128  # of all workers together
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.1  # its maximum; a cosine leads down to 0
    warmup_epochs: float = 1.0  # in which the rate grows from 0
    momentum: float = 0.9  # of sgd, which is Nesterov's
    weight_decay: float = 5e-3  # decoupled (arXiv:1711.05101): times the learning rate, each step
    decay_depthwise: bool = False
    label_smoothing: float = 0.0
    ema: float = 0.0  # decay of the averaged weights, a step; 0: the last ones are kept
    clip_norm: float | None = None  # of the gradients of all weights together
    resolution: int | None = None  # of the images trained on; None: the network's
    # What activations and gradients are computed in; slower than float32 on CPUs.
    precision: Literal["float32", "bfloat16", "float16"] = "float32"

    def __post_init__(self) -> None:
        _check(self.epochs >= 1, "epochs", "at least 1", self.epochs)
        _check(self.batch >= 2, "batch", "at least 2", self.batch)  # batch norm needs two
        _check(0 < self.learning_rate < math.inf, "learning_rate", "above 0", self.learning_rate)
        _check(
            0 <= self.warmup_epochs < self.epochs,
            "warmup_epochs",
            "0 or more and below epochs",
            self.warmup_epochs,
        )
        _check(0 <= self.momentum < 1, "momentum", "0 or more and below 1", self.momentum)
        _check(0 <= self.weight_decay < math.inf, "weight_decay", "at least 0", self.weight_decay)
        smoothing = self.label_smoothing
        _check(0 <= smoothing < 1, "label_smoothing", "0 or more and below 1", smoothing)
        _check(0 <= self.ema < 1, "ema", "0 or more and below 1", self.ema)
        _check(self.clip_norm is None or self.clip_norm > 0, "clip_norm", "above 0", self.clip_norm)
        _check_side(self.resolution)


@dataclass(frozen=True)
class Progressive:
    """Stages of equal length, from small images and little regularization to the full ones.

    What is given here is that of the first stage; the last one's stands in the other tables.
    """

    stages: int = 1
    resolution: int | None = None
    sizes: Literal["paper", "code"] = "paper"  # which of EfficientNetV2's two ways they grow
    options: Mapping[str, float] = field(default_factory=dict)  # of the builder, as its dropout
    randaugment_magnitude: float | None = None
    mixup: float | None = None

    def __post_init__(self) -> None:
        _check(self.stages >= 1, "stages", "at least 1", self.stages)
        _check_side(self.resolution)


@dataclass(frozen=True)
class Distribution:
    """Where it runs: on one device, on all of this machine, or on all of TF_CONFIG's machines."""

    strategy: Literal["one", "mirrored", "multi_worker"] = "one"
    synchronized_batch_norm: bool = False  # statistics of all replicas together


@dataclass(frozen=True)
class Settings:
    """One training."""

    network: Network
    data: Data
    out: str  # folder of what it writes, and of what it goes on from
    preprocessing: Preprocessing | None = None  # None: the weights', or [-1, 1]
    augment: Augment = field(default_factory=Augment)
    training: Training = field(default_factory=Training)
    progressive: Progressive = field(default_factory=Progressive)
    distribution: Distribution = field(default_factory=Distribution)
    seed: int = 0
    save_every_s: float = 600.0  # besides the end of each epoch
    tensorboard: bool = False  # also write what TensorBoard shows

    @property
    def seen(self) -> Preprocessing:
        """How pictures become inputs."""
        return self.preprocessing or Preprocessing()

    def __post_init__(self) -> None:
        absent = [name for name in self.progressive.options if name not in self.network.options]
        if absent:
            raise ValueError(
                f"expected progressive.options.{absent[0]} to grow to a value in network.options, "
                "which has none."
            )
        epochs, stages = self.training.epochs, self.progressive.stages
        _check(stages <= epochs, "progressive.stages", f"at most the {epochs} epochs", stages)


def _check_side(resolution: int | None) -> None:
    _check(resolution is None or resolution >= 1, "resolution", "at least 1", resolution)


def _check(valid: bool, name: str, expected: str, value: object) -> None:
    if not valid:
        raise ValueError(f"expected {name!r} to be {expected}, got {value}.")
