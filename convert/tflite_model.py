"""Deployment form -> .tflite file: equalization, quantization, training in int8, export."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import tf_keras as keras

from convert import auto_mixed_precision, autotune, export
from convert.calibration_data import Inputs
from convert.context import Context
from convert.quantization import qat, quantize
from convert.quantization.equalize import equalize
from convert.quantization.int8_range import Range
from convert.quantization.mixed_precision import MixedPrecision
from convert.settings import Quantization
from keras_models.images.decode import Preprocessing


@dataclass(frozen=True, eq=False)
class TfliteModel:
    """A .tflite file and the Keras network that it computes.

    Attributes:
      data: The file.
      preprocessing: How a picture becomes its input.
      deployed: The deployment form with the weights that layers in float32 have.
      ranges: The int8 range of each layer; empty: the file is not int8.
      epochs: The epochs of training in int8.
      mixed: The layers that do not compute in int8; None: none were requested.
      rounded: The deployment form with the weights that are quantized; None: those of `deployed`.
    """

    data: bytes
    preprocessing: Preprocessing
    deployed: keras.Model
    ranges: Mapping[str, Range] = field(default_factory=dict)
    epochs: tuple[qat.QatEpoch, ...] = ()
    mixed: MixedPrecision | None = None
    rounded: keras.Model | None = None

    def emulation(self, quantization: Quantization) -> Callable[[np.ndarray], np.ndarray] | None:
        """What the fake-quantized network computes; None: the file is not full int8."""
        if not self.ranges or self.mixed:
            return None
        per_channel = quantization.per_channel
        rounded = self.rounded or self.deployed
        return quantize.emulate(rounded, self.ranges, per_channel=per_channel)


def build(
    context: Context,
    deployed: keras.Model,
    calibration: Inputs | None,
    training: qat.Prepared | None,
) -> TfliteModel:
    """Builds the file of a deployment form; an int8 file is full int8.

    Args:
      context: The conversion.
      deployed: The deployment form.
      calibration: Inputs, for precisions that need them.
      training: The training in int8, if there is one.
    """
    quantization, network = context.settings.quantization, context.network
    progress = context.progress
    if quantization.equalization:
        assert calibration is not None  # `validate` checks this
        with progress.stage("equalize"):
            deployed, changed = equalize(deployed, calibration)
        if not changed:
            progress.warn("--equalize changes nothing: ReLU6 or the like is behind every layer")
    with progress.stage("quantize"):
        calibrated = quantize.calibrate(deployed, calibration, quantization, network.preprocessing)
    floats, rounded, ranges = calibrated.deployed, calibrated.rounded, calibrated.ranges
    epochs: tuple[qat.QatEpoch, ...] = ()
    if training:
        per_channel = quantization.per_channel
        start = qat.unrounded(rounded, floats, per_channel=per_channel)
        rounded, epochs = qat.train(context, training, start, ranges, deployed)
        floats = rounded
    ready = quantize.fake_quantize(rounded, ranges, per_channel=quantization.per_channel)
    with progress.stage("export"):
        data = export.to_tflite(ready, quantization, calibration)
    return TfliteModel(data, network.preprocessing, floats, ranges, epochs, rounded=rounded)


def override_precision(
    context: Context, tflite: TfliteModel, overrides: Mapping[str, str], inputs: Inputs
) -> TfliteModel:
    """Makes an int8 file compute some layers in other dtypes.

    Args:
      context: The conversion; its settings say whether to search for layers.
      tflite: From `build`.
      overrides: The layers that the user chose -> their dtypes.
      inputs: Inputs that the file is verified on.
    """
    settings = context.settings
    if not overrides and not settings.quantization.auto_precision:
        return tflite
    with context.progress.stage("layers at higher precision") as on_step:
        data, mixed = auto_mixed_precision.apply(
            tflite.data,
            context.network.model,
            tflite.deployed,
            overrides,
            inputs,
            settings,
            on_step,
        )
    if settings.lowering.tune and mixed.layers:
        mixed = replace(mixed, cost_ratio=_cost_ratio(context, tflite.data, data))
    return replace(tflite, data=data, mixed=mixed)


def _cost_ratio(context: Context, before: bytes, after: bytes) -> float:
    """The cost of one file relative to another on the target, measured as `autotune` does."""
    target = context.settings.lowering.target
    with (
        context.progress.stage(f"measure layers at higher precision on {target}"),
        tempfile.TemporaryDirectory(prefix="shufflelite-mixed-") as folder,
    ):
        files = [Path(folder) / name for name in ("int8.tflite", "mixed.tflite")]
        for file, data in zip(files, (before, after), strict=True):
            file.write_bytes(data)
        _, ratio = autotune.measure(files, target)
    return round(ratio, 4)
