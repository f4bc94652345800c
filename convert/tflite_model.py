"""Deployment form -> file: what its precision asks for, training in int8, export."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import tf_keras as keras

from convert import auto_mixed_precision, export
from convert.calibration_data import Inputs
from convert.network import LoadedNetwork
from convert.quantization import qat, quantize
from convert.quantization.equalize import equalize
from convert.quantization.mixed_precision import Mixed
from convert.settings import ConversionSettings
from keras_models.images.decode import Preprocessing
from shufflelite.progress import Progress


@dataclass(frozen=True, eq=False)
class File:
    """A .tflite file, and the Keras networks that it is to compute like.

    Attributes:
      data: The file.
      preprocessing: How a picture becomes its input.
      deployed: The deployment form with the file's float weights.
      rounded: The same, rounded as the file is; None: it is not, or not throughout.
      epochs: Of training in int8.
      mixed: What is not int8 in an int8 file; None: nothing was asked for.
    """

    data: bytes
    preprocessing: Preprocessing
    deployed: keras.Model
    rounded: keras.Model | None
    epochs: tuple[qat.Epoch, ...] = ()
    mixed: Mixed | None = None


def make(
    deployed: keras.Model,
    network: LoadedNetwork,
    calibration: Inputs | None,
    settings: ConversionSettings,
    bundle: Path,
    progress: Progress,
) -> File:
    """Makes the file of a deployment form, int8 throughout where it is int8.

    Args:
      deployed: The deployment form.
      network: Where it comes from.
      calibration: Inputs, for precisions that need them.
      settings: All of the conversion.
      bundle: Folder of the bundle, beside which training keeps its checkpoint.
      progress: Told of the stages.
    """
    if settings.quantization.equalization:
        assert calibration is not None  # `checks` has seen to it
        with progress.stage("equalize"):
            deployed, changed = equalize(deployed, calibration)
        if not changed:
            progress.warn("--equalize changes nothing: ReLU6 or the like is behind every layer")
    with progress.stage("quantize"):
        calibrated, ranges = quantize.calibrate(
            deployed, calibration, settings.quantization, network.preprocessing
        )
    epochs: tuple[qat.Epoch, ...] = ()
    if settings.qat.epochs:
        calibrated, epochs = qat.train(
            calibrated, ranges, deployed, network, settings, qat.folder(bundle), progress
        )
    per_channel = settings.quantization.per_channel
    ready = quantize.fake_quantize(calibrated, ranges, per_channel=per_channel)
    with progress.stage("export"):
        data = export.to_tflite(ready, settings.quantization, calibration)
    rounded = quantize.fake_quantize(calibrated, ranges, per_channel=per_channel, training=True)
    rounded = rounded if ranges else None
    return File(data, network.preprocessing, calibrated, rounded, epochs)


def at_higher_precision(
    file: File,
    chosen: Mapping[str, str],
    model: keras.Model,
    inputs: Inputs,
    settings: ConversionSettings,
    progress: Progress,
) -> File:
    """Makes an int8 file compute layers in other dtypes.

    Args:
      file: As `make` gives it.
      chosen: The user's layers -> their dtypes; `settings` say whether others are looked for.
      model: The float network.
      inputs: What the file is verified on.
      settings: All of the conversion.
      progress: Told of the stage.
    """
    if not chosen and not settings.quantization.auto_precision:
        return file
    with progress.stage("layers at higher precision") as on_step:
        data, mixed = auto_mixed_precision.apply(
            file.data, model, file.deployed, chosen, inputs, settings, on_step
        )
    return replace(file, data=data, mixed=mixed, rounded=None)
