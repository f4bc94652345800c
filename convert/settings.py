"""The settings of a conversion, in a TOML file or by flags; each flag stands beside its setting."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from keras_models import registry
from keras_models.option_flags import OptionFlags
from shufflelite.config import Bounded, setting
from shufflelite.errors import InputError


class Precision(str, Enum):
    """Number format of weights and activations."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"  # float16 weights, float32 activations
    DYNAMIC = "dynamic"  # int8 weights, float32 activations, quantized at run time
    INT8 = "int8"  # int8 weights and activations
    INT16X8 = "int16x8"  # int8 weights, int16 activations

    @property
    def needs_inputs(self) -> bool:
        """Whether activations have ranges, which calibration finds by running the network."""
        return self in (Precision.INT8, Precision.INT16X8)


class Estimator(str, Enum):
    """How the range of an int8 tensor is chosen from the values seen in calibration."""

    MINMAX = "minmax"  # all values
    PERCENTILE = "percentile"  # without the outermost 0.01 % on each side
    MSE = "mse"  # the range with the least sum of squared rounding and clipping errors


class Rounding(str, Enum):
    """How the weights of an int8 or int16x8 file become whole steps."""

    SECOND_ORDER = "second_order"  # together, for the least error of outputs on calibration inputs
    NEAREST = "nearest"  # each for itself


@dataclass(frozen=True)
class Model(Bounded):
    """The network and its weights."""

    TOPIC = "network"

    name: str = setting(flag="model", value_name="NAME", help="Network; --list prints the names.")
    options: Mapping[str, bool | int | float | str] = setting(
        default_factory=dict, option_flags=OptionFlags
    )  # arguments of its builder
    resolution: int | None = setting(
        None,
        least=1,
        help="Height and width of the input. Default: that of the weights, else of the paper.",
    )
    resolution_multiplier: float = setting(1.0, above=0, help="Scales the resolution.")
    num_classes: int | None = setting(
        None, least=1, help="Number of classes. Default: that of the weights, else 1000."
    )
    weights: str | None = setting(
        None,
        topic="weights",
        value_name="FILE|NAME",
        help="bundled, random, imagenet, or a file (.safetensors, .h5, .pth, .npz, ...). Default: "
        "bundled for a network that is named alone or exactly as it is bundled, else random.",
    )  # None: see `resolve_model.complete`
    source: str | None = setting(
        None,
        topic="weights",
        value_name="NAME",
        help="Origin of the weights file (torchvision, timm, ...), if detection is wrong.",
    )
    labels: str | None = setting(
        None,
        topic="weights",
        value_name="FILE",
        help="Class names, one per line, for the bundle's labels.txt.",
    )

    @property
    def input_resolution(self) -> int:
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
class Lowering(Bounded):
    """How the network is rewritten for TFLite; see `lowering`."""

    TOPIC = "lowering"

    way: Literal["lowered", "direct"] = setting(
        "lowered",
        flag="lowering",
        help="direct translates layer by layer, like other converters, with all transposes.",
    )
    target: str = setting(
        "generic",
        value_name="TARGET",
        help="Processor to optimize for: generic, host, emulated:CORE, adb[:SERIAL] or "
        "ssh:USER@HOST.",
    )
    tune: bool = setting(False, help="Measure the lowerings on --target and keep the fastest.")
    max_size_growth: float | None = setting(
        None,
        value_name="PERCENT",
        least=0,
        help="Maximum growth of the file that a faster lowering may cost.",
    )


@dataclass(frozen=True)
class Quantization(Bounded):
    """How float becomes int8; see `quantize`."""

    TOPIC = "quantization"

    precision: Precision = setting(
        Precision.FLOAT32,
        short=("int8", Precision.INT8),
        value_name="TYPE",
        help="float32; float16 (weights); dynamic (int8 weights, float32 activations); int8; "
        "int16x8 (int8 weights, int16 activations).",
    )
    io_dtype: Literal["int8", "uint8", "float32"] | None = setting(
        None, help="Type of the input and output tensors of an int8 file."
    )  # None: see `io_dtypes`
    scores: bool = setting(
        False,
        topic="output",
        help="Embed normalization and softmax: raw pixels in, probabilities out, as MediaPipe "
        "Tasks expects.",
    )
    per_channel: bool = setting(True, help="One scale per channel of the weights, not per tensor.")
    calibration: str | None = setting(
        None,
        topic="calibration",
        value_name="PICTURES",
        help="Pictures that the ranges of activations come from: a folder, a csv, an .npz file, "
        "tfds:NAME/SPLIT or synthetic:COUNT. Default: synthetic inputs, made from the network "
        "itself.",
    )
    calibration_samples: int | None = setting(
        None,
        topic="calibration",
        least=1,
        help="Maximum number of inputs. Default: 200 pictures, or a batch of "
        "synthetic inputs (64 at 32x32, 8 at 224x224).",
    )
    calibration_cache: bool = setting(
        True,
        topic="calibration",
        help="Reuse synthetic inputs that were made for the same weights before: those stored with "
        "bundled weights and in the user's cache.",
    )
    ranges: Estimator = setting(
        Estimator.MSE,
        topic="calibration",
        help="How int8 ranges are chosen from the values observed.",
    )
    rounding: Rounding = setting(
        Rounding.SECOND_ORDER,
        help="How weights are rounded: for the least error of each layer's outputs on the "
        "calibration's inputs, or each to the nearest step.",
    )  # of int8 and int16x8: dynamic files keep small kernels float
    bias_correction: bool | None = setting(None, help="Former name of --rounding.")
    equalization: bool = setting(
        False, flag="equalize", help="Cross-layer weight equalization (arXiv:1906.04721)."
    )
    activation_equalization: bool = setting(
        True,
        flag="equalize_activations",
        help="Let each channel fill the int8 range of its tensor. Of int8 weights with one scale "
        "per channel, calibrated on pictures.",
    )
    keep_float: tuple[str, ...] = setting(
        (),
        value_name="LAYERS",
        help="Layers of an int8 file to compute in float32, separated by commas; * matches any "
        "text.",
    )
    int16: tuple[str, ...] = setting(
        (),
        value_name="LAYERS",
        help="Layers of an int8 file with int16 activations, as for --keep_float.",
    )
    auto_precision: bool = setting(
        False, help="Compute more layers in float32 until the file passes its gates."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision is Precision.INT16X8 and not self.per_channel:
            raise InputError(
                "int16x8 weights have one scale per channel: leave out --noper_channel."
            )
        if self.bias_correction is not None:
            value = Rounding.SECOND_ORDER if self.bias_correction else Rounding.NEAREST
            raise InputError(
                "'bias_correction' has become part of rounding: expected --rounding "
                f'{value.value}, or rounding = "{value.value}" in a file.'
            )

    @property
    def equalizes_activations(self) -> bool:
        """With one scale for all weights of a kernel, uneven channels would cost more there."""
        return (
            self.activation_equalization and self.per_channel and self.precision is Precision.INT8
        )

    @property
    def io_dtypes(self) -> tuple[str, str]:
        """Of the file's input and output; apps' readers of scores take no int8."""
        if self.precision is not Precision.INT8:
            return "float32", "float32"
        if self.io_dtype is None and self.scores:
            return "uint8", "float32"  # int8 probabilities have steps of 1/256, and so ties
        return self.io_dtype or "int8", self.io_dtype or "int8"


@dataclass(frozen=True)
class Qat(Bounded):
    """Quantization-aware training, which starts with the calibrated ranges; see `qat`."""

    TOPIC = "quantization-aware training"

    epochs: int | None = setting(
        None,
        flag="qat_epochs",
        least=0,
        help="Epochs; 0: post-training quantization alone. Default: with --qat_data at least 60 "
        "steps, else 0.",
    )
    data: str | None = setting(
        None,
        flag="qat_data",
        value_name="PICTURES",
        help="Pictures to train on, with or without labels, in the formats of --data.",
    )
    batch: int | None = setting(None, least=2)  # None: see `qat.prepare`, as below
    learning_rate: float | None = setting(None, above=0)  # its maximum; a cosine leads down to 0
    distillation: float | None = setting(
        None,
        least=0,
        most=1,
        help="Weight of the float network's logits in the loss, 0 to 1. Default: 0.5 if each class "
        "has labelled pictures, else 1, without labels.",
    )  # None: see `qat.prepare`
    crop: Literal["none", "pad", "resized"] = "pad"
    flip: bool = True

    @property
    def requested(self) -> bool:
        """Whether there is a training."""
        return self.data is not None if self.epochs is None else self.epochs > 0


@dataclass(frozen=True)
class Verification(Bounded):
    """The inputs that the file is compared with the float network on, and the gates."""

    TOPIC = "verification"

    data: str | None = setting(
        None,
        value_name="PICTURES",
        help="Pictures to verify on: a csv with labels, a folder with one folder per class, a "
        "folder, an .npz file, tfds:NAME/SPLIT or synthetic:COUNT. Default: the calibration's.",
    )
    max_accuracy_drop: float | None = setting(
        None,
        value_name="POINTS",
        least=-100,
        help="Gate: top-1 accuracy that the file may lose against the float network.",
    )
    min_agreement: float | None = setting(
        None,
        value_name="PERCENT",
        least=0,
        most=100,
        help="Gate: agreement with float, the inputs that keep their best class.",
    )
    min_sqnr_db: float | None = setting(
        None,
        value_name="DB",
        least=0,
        help="Gate: signal to quantization noise ratio of the logits.",
    )


@dataclass(frozen=True)
class ConversionSettings(Bounded):
    """One conversion."""

    TOPIC = "output"

    model: Model
    quantization: Quantization = field(default_factory=Quantization)
    verification: Verification = field(default_factory=Verification)
    lowering: Lowering = field(default_factory=Lowering)
    qat: Qat = field(default_factory=Qat)
    out: str = setting("build", value_name="FOLDER", help="Where bundles are written.")
    c_array: bool = setting(False, help="Also write the file as C source.")
    seed: int = setting(0, topic="general", least=0, help="Seed of random numbers.")
