"""What can be told of the settings before TensorFlow is there, which takes seconds."""

import math
import os
import re

from convert.bundle import writer
from convert.settings import Precision, Settings
from keras_models import registry
from keras_models.images import lists
from shufflelite.errors import InputError

TARGETS = r"generic|host|emulated:\w+|adb(:.+)?|ssh:.+"  # as `android_bench` names them


def check(settings: Settings) -> None:
    """Raises InputError for values, files and folders that cannot be used."""
    model, quantization, wanted = settings.model, settings.quantization, settings.verification
    lowering, qat = settings.lowering, settings.qat
    for option, flag in (("input_shape", "resolution"), ("num_classes", "num_classes")):
        if option in model.options:
            raise InputError(f"Expected --{flag}, got --option {option}.")
    resolution = (
        registry.find(model.name).resolution if model.resolution is None else model.resolution
    )
    for flag, number, least in (
        (
            "resolution times --resolution_multiplier",
            resolution * model.resolution_multiplier,
            1,
        ),
        ("num_classes", model.classes, 1),
        ("calibration_samples", quantization.calibration_samples, 1),
        ("max_size_growth", lowering.max_size_growth, 0),
        ("qat_epochs", qat.epochs, 0),
        ("seed", settings.seed, 0),
        ("max_accuracy_drop", wanted.max_accuracy_drop, -100),
        ("min_agreement", wanted.min_agreement, 0),
        ("min_sqnr_db", wanted.min_sqnr_db, 0),
    ):
        if number is not None and not least <= number < math.inf:
            raise InputError(f"Expected --{flag} to be at least {least}, got {number}.")
    if lowering.way == "direct" and (lowering.tune or lowering.target != "generic"):
        raise InputError(
            "--lowering direct is the same for all targets: leave --target and --tune."
        )
    if not re.fullmatch(TARGETS, lowering.target):
        raise InputError(
            "Expected --target to be generic, host, emulated:CORE, adb, adb:SERIAL or "
            f"ssh:USER@HOST, got {lowering.target!r}."
        )
    if lowering.tune and lowering.target == "generic":
        raise InputError("--tune measures: pass --target host, emulated:a53, adb, ...")
    if quantization.io_dtype in ("int8", "uint8") and quantization.precision is not Precision.INT8:
        raise InputError(
            f"--io_dtype {quantization.io_dtype} needs --precision int8, "
            f"got {quantization.precision.value}: pass --int8, or leave --io_dtype out."
        )
    if quantization.precision is Precision.INT16X8 and not quantization.per_channel:
        raise InputError("int16x8 weights have one scale per channel: leave out --noper_channel.")
    if not 0 <= qat.distillation <= 1:
        raise InputError(f"Expected --distillation to be 0 to 1, got {qat.distillation}.")
    if qat.epochs and quantization.precision is not Precision.INT8:
        raise InputError("--qat_epochs trains int8: pass --int8, or leave it out.")
    if qat.epochs and not qat.data:
        raise InputError("--qat_epochs needs pictures with labels: pass --qat_data.")
    if quantization.equalization and not quantization.precision.needs_inputs:
        raise InputError(
            f"--equalize is for int8 and int16x8, got {quantization.precision.value}: leave it out."
        )
    for flag, given in (
        ("keep_float", quantization.keep_float),
        ("int16", quantization.int16),
        ("auto_precision", quantization.auto_precision),
    ):
        if given and quantization.precision is not Precision.INT8:
            raise InputError(
                f"--{flag} is about layers of an int8 file, got {quantization.precision.value}: "
                "pass --int8, or leave it out."
            )
    gates = (wanted.max_accuracy_drop, wanted.min_agreement, wanted.min_sqnr_db)
    if quantization.auto_precision and gates == (None, None, None):
        raise InputError(
            "--auto_precision looks for layers until the gates are passed: pass "
            "--max_accuracy_drop, --min_agreement or --min_sqnr_db."
        )
    if wanted.min_agreement is not None and wanted.min_agreement > 100:
        raise InputError(f"Expected --min_agreement in percent, got {wanted.min_agreement}.")
    if wanted.max_accuracy_drop is not None and not (wanted.data or quantization.calibration):
        raise InputError("--max_accuracy_drop needs labels: pass --data with a csv of them.")
    pictures = "a folder of pictures, a csv or an .npz file"
    for flag, path, what, is_one in (
        (
            "weights",
            model.weights,
            f"{', '.join(registry.NAMED_WEIGHTS)} or a file",
            os.path.isfile,
        ),
        ("labels", model.labels, "a file with a class name a line", os.path.isfile),
        ("calibration", quantization.calibration, pictures, os.path.exists),
        ("data", wanted.data, pictures, os.path.exists),
        ("qat_data", None if _is_made(qat.data) else qat.data, pictures, os.path.exists),
    ):
        if path is None or (flag == "weights" and path in registry.NAMED_WEIGHTS):
            continue
        if not is_one(path):
            found = "a folder" if os.path.isdir(path) else "not there"
            raise InputError(f"Expected --{flag} to be {what}, got {path!r}, which is {found}.")
        if what == pictures and not path.lower().endswith(".npz"):
            lists.find(path)
    writer.check_writable(writer.folder(settings))


def _is_made(source: str | None) -> bool:
    return source is not None and source.startswith(("tfds:", "synthetic:"))
