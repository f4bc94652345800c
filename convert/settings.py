"""The settings of a conversion, in a TOML file or by flags."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from keras_models import registry


class Precision(str, Enum):
    """What the file computes with: weights and activations."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"  # float16 weights, float32 activations
    DYNAMIC = "dynamic"  # int8 weights, float32 activations rounded as they come
    INT8 = "int8"  # int8 weights and activations
    INT16X8 = "int16x8"  # int8 weights, int16 activations

    @property
    def needs_inputs(self) -> bool:
        """Whether activations have ranges, which are found by running the network."""
        return self in (Precision.INT8, Precision.INT16X8)


class Estimator(str, Enum):
    """How the range of an int8 tensor is chosen from the values seen in calibration."""

    MINMAX = "minmax"  # all of them
    PERCENTILE = "percentile"  # all but the outermost 0.01 % on either side
    MSE = "mse"  # the range whose rounding and clipping errors are least, squared and added


@dataclass(frozen=True)
class Model:
    """Which network, and whose weights."""

    name: str
    options: Mapping[str, bool | int | float | str] = field(default_factory=dict)  # its builder's
    resolution: int | None = None  # None: the weights', or what its paper evaluates at
    resolution_multiplier: float = 1.0
    num_classes: int | None = None  # None: the weights', or 1000
    weights: str | None = None  # one of registry.NAMED_WEIGHTS or a file; None: see `complete`
    source: str | None = None  # whose naming the file has; None: it is recognized
    labels: str | None = None  # a file with one class name a line

    @property
    def side(self) -> int:
        """Height and width of the input in pixels."""
        resolution = self.resolution
        if resolution is None:
            resolution = registry.find(self.name).resolution
        return round(resolution * self.resolution_multiplier)

    @property
    def classes(self) -> int:
        """Length of the logits."""
        return 1000 if self.num_classes is None else self.num_classes


@dataclass(frozen=True)
class Lowering:
    """How the network is rewritten for TFLite; see `lowering`."""

    way: Literal["lowered", "direct"] = "lowered"  # direct: layer by layer, as any converter does
    target: str = "generic"  # for whose core, as android_bench names it
    tune: bool = False  # measure the forms there; else what was measured before holds
    max_size_growth: float | None = None  # percent that a form's weights may add to the file


@dataclass(frozen=True)
class Quantization:
    """How float becomes int8; see `quantize`."""

    precision: Precision = Precision.FLOAT32
    io_dtype: Literal["int8", "uint8", "float32"] | None = None  # None: see `io_dtypes`
    scores: bool = False  # take pixels and give probabilities, not logits; see `finish`
    per_channel: bool = True
    calibration: str | None = None  # a folder of pictures, csv or .npz; None: data-free
    calibration_samples: int | None = None  # None: up to 200 pictures, or 8 made inputs
    ranges: Estimator = Estimator.MSE
    bias_correction: bool = True  # of int8 and int16x8: dynamic files keep small kernels float
    equalization: bool = False
    keep_float: tuple[str, ...] = ()  # layers of an int8 file, or patterns of their names
    int16: tuple[str, ...] = ()
    auto_precision: bool = False  # find layers for float32 that reach the limits below

    @property
    def io_dtypes(self) -> tuple[str, str]:
        """Of the file's input and output; apps' readers of scores take no int8."""
        if self.precision is not Precision.INT8:
            return "float32", "float32"
        if self.io_dtype is None and self.scores:
            return "uint8", "float32"  # int8 probabilities have steps of 1/256, and so ties
        return self.io_dtype or "int8", self.io_dtype or "int8"


@dataclass(frozen=True)
class Qat:
    """Training of the int8 form, from its calibrated ranges on; see `qat`."""

    epochs: int = 0  # 0: post-training quantization alone
    data: str | None = None  # pictures with labels, as those of `keras_models.train`
    batch: int = 128
    learning_rate: float = 1e-3  # its maximum; a cosine leads down to 0
    distillation: float = 0.5  # share of the float network's answers in what is learnt
    crop: Literal["none", "pad", "resized"] = "pad"
    flip: bool = True


@dataclass(frozen=True)
class Verification:
    """On what the file is held against the float network, and what it must reach."""

    data: str | None = None  # a csv with labels, a folder of pictures or of classes, or .npz
    max_accuracy_drop: float | None = None  # points of top-1
    min_agreement: float | None = None  # percent
    min_sqnr_db: float | None = None


@dataclass(frozen=True)
class Settings:
    """One conversion."""

    model: Model
    quantization: Quantization = field(default_factory=Quantization)
    verification: Verification = field(default_factory=Verification)
    lowering: Lowering = field(default_factory=Lowering)
    qat: Qat = field(default_factory=Qat)
    out: str = "build"
    c_array: bool = False  # the file in C source too
    seed: int = 0
