"""The settings of a training, in its TOML file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from keras_models import registry
from keras_models.images.decode import Preprocessing
from shufflelite.config import Bounded, setting


@dataclass(frozen=True)
class NetworkSettings(Bounded):
    """The network to train."""

    name: str
    options: Mapping[str, bool | int | float | str] = field(default_factory=dict)  # its builder's
    resolution: int | None = setting(None, least=1)  # None: what its paper evaluates at
    weights: str = "random"  # initial ones: one of registry.NAMED_WEIGHTS or a file

    @property
    def input_resolution(self) -> int:
        """Height and width of the input in pixels."""
        return self.resolution or registry.find(self.name).resolution


@dataclass(frozen=True)
class Data(Bounded):
    """Pictures with labels.

    A source is a folder that has a folder for each class, a csv, an .npz file, tfds:NAME/SPLIT, or
    synthetic:COUNT (drawn, ten classes).
    """

    train: str
    test: str | None = None
    # Decoded pictures up to this size stay in memory, others stream.
    in_memory_gb: float = setting(4.0, least=0)


@dataclass(frozen=True)
class Augment(Bounded):
    """What is drawn anew for each picture and epoch."""

    crop: Literal["none", "pad", "resized"] = "pad"  # pad: shifted by up to `pad` pixels
    pad: int = setting(4, least=0)
    min_area: float = setting(0.08, above=0, most=1)  # of a resized crop, as a share of the picture
    flip: bool = True
    randaugment_layers: int = setting(0, least=0)  # number of operations in sequence
    # The operations' ranges are those of 10.
    randaugment_magnitude: float = setting(9.0, least=0, most=30)
    cutout: int = setting(0, least=0)  # height and width of a grey square, in pixels
    mixup: float = setting(0.0, least=0)  # alpha of arXiv:1710.09412; 0: off


@dataclass(frozen=True)
class Training(Bounded):
    """The recipe."""

    epochs: int = setting(40, least=1)
    batch: int = setting(128, least=2)  # of all workers together; batch norm needs two
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = setting(0.1, above=0)  # its maximum; a cosine leads down to 0
    warmup_epochs: float = setting(1.0, least=0)  # in which the rate grows from 0
    momentum: float = setting(0.9, least=0, below=1)  # of sgd, which is Nesterov's
    # Decoupled (arXiv:1711.05101): times the learning rate, in each step.
    weight_decay: float = setting(5e-3, least=0)
    decay_depthwise: bool = False
    label_smoothing: float = setting(0.0, least=0, below=1)
    ema: float = setting(0.0, least=0, below=1)  # decay of averaged weights per step; 0: no average
    clip_norm: float | None = setting(None, above=0)  # of the gradients of all weights together
    resolution: int | None = setting(None, least=1)  # of the training images; None: the network's
    # Distillation (arXiv:1503.02531): the folder of a completed training, or its weights.
    teacher: str | None = None
    distillation: float = setting(0.5, least=0, most=1)  # weight of the teacher's answers
    temperature: float = setting(1.0, above=0)  # softens them and the network's own
    # What activations and gradients are computed in; slower than float32 on CPUs.
    precision: Literal["float32", "bfloat16", "float16"] = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"expected 'warmup_epochs' to be below the {self.epochs} epochs, got "
                f"{self.warmup_epochs}."
            )


@dataclass(frozen=True)
class Progressive(Bounded):
    """Stages of equal length, from small images and little regularization to the full ones.

    These are the values of the first stage; those of the last one stand in the other tables.
    """

    stages: int = setting(1, least=1)
    resolution: int | None = setting(None, least=1)
    sizes: Literal["paper", "code"] = "paper"  # which of EfficientNetV2's two ways they grow
    options: Mapping[str, float] = field(default_factory=dict)  # of the builder, as its dropout
    randaugment_magnitude: float | None = setting(None, least=0, most=30)
    mixup: float | None = setting(None, least=0)


@dataclass(frozen=True)
class Distribution:
    """Where it runs: one device, all devices of this machine, or the machines of TF_CONFIG."""

    strategy: Literal["one", "mirrored", "multi_worker"] = "one"
    synchronized_batch_norm: bool = False  # statistics of all replicas together


@dataclass(frozen=True)
class TrainingSettings(Bounded):
    """One training."""

    network: NetworkSettings
    data: Data
    out: str  # folder of all that it writes, and where it resumes from
    preprocessing: Preprocessing | None = None  # None: the weights', or [-1, 1]
    augment: Augment = field(default_factory=Augment)
    training: Training = field(default_factory=Training)
    progressive: Progressive = field(default_factory=Progressive)
    distribution: Distribution = field(default_factory=Distribution)
    seed: int = setting(0, least=0)
    save_every_s: float = setting(600.0, least=0)  # besides the end of each epoch
    tensorboard: bool = False  # also write what TensorBoard shows

    @property
    def input_preprocessing(self) -> Preprocessing:
        """How pictures become inputs."""
        return self.preprocessing or Preprocessing()

    def __post_init__(self) -> None:
        super().__post_init__()
        absent = [name for name in self.progressive.options if name not in self.network.options]
        if absent:
            raise ValueError(
                f"expected progressive.options.{absent[0]} to grow to a value in network.options, "
                "which has none."
            )
        epochs, stages = self.training.epochs, self.progressive.stages
        if stages > epochs:
            raise ValueError(
                f"expected 'progressive.stages' to be at most the {epochs} epochs, got {stages}."
            )
