"""Checks settings before TensorFlow is imported, which takes seconds."""

import os
import re

from convert.bundle import writer
from convert.conversion import Conversion
from convert.settings import Precision
from keras_models import registry
from keras_models.images import lists
from shufflelite.errors import InputError

TARGETS = r"generic|host|emulated:\w+|adb(:.+)?|ssh:.+"  # as `android_bench` names them
NEEDS_LABELS = (
    "--max_accuracy_drop needs labels: pass --data with a csv of them, or a folder that has a "
    "folder for each class."
)


def check(conversion: Conversion) -> None:
    """Raises InputError for settings, files and folders that cannot be used."""
    settings = conversion.settings
    model, quantization, verification = settings.model, settings.quantization, settings.verification
    lowering, qat = settings.lowering, settings.qat
    if model.input_resolution < 1:
        raise InputError(
            "Expected --resolution times --resolution_multiplier to be at least 1, got "
            f"{model.input_resolution}."
        )
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
    if qat.requested and quantization.precision is not Precision.INT8:
        flag = "qat_data" if qat.epochs is None else "qat_epochs"
        raise InputError(f"--{flag} trains int8: pass --int8, or leave it out.")
    if qat.requested and not qat.data:
        raise InputError("--qat_epochs needs pictures: pass --qat_data.")
    if quantization.equalization and not quantization.precision.needs_inputs:
        raise InputError(
            f"--equalize is for int8 and int16x8, got {quantization.precision.value}: leave it out."
        )
    for flag, is_set in (
        ("keep_float", quantization.keep_float),
        ("int16", quantization.int16),
        ("auto_precision", quantization.auto_precision),
    ):
        if is_set and quantization.precision is not Precision.INT8:
            raise InputError(
                f"--{flag} is about layers of an int8 file, got {quantization.precision.value}: "
                "pass --int8, or leave it out."
            )
    gates = (verification.max_accuracy_drop, verification.min_agreement, verification.min_sqnr_db)
    if quantization.auto_precision and gates == (None, None, None):
        raise InputError(
            "--auto_precision looks for layers until the gates are passed: pass "
            "--max_accuracy_drop, --min_agreement or --min_sqnr_db."
        )
    if verification.max_accuracy_drop is not None and not (
        verification.data or quantization.calibration
    ):
        raise InputError(NEEDS_LABELS)
    pictures = "a folder of pictures, a csv, an .npz file, tfds:NAME/SPLIT or synthetic:COUNT"
    for flag, path, what, is_one in (
        (
            "weights",
            model.weights,
            f"{', '.join(registry.NAMED_WEIGHTS)} or a file",
            os.path.isfile,
        ),
        ("labels", model.labels, "a file with a class name a line", os.path.isfile),
        ("calibration", quantization.calibration, pictures, os.path.exists),
        ("data", verification.data, pictures, os.path.exists),
        ("qat_data", qat.data, pictures, os.path.exists),
    ):
        if path is None or (flag == "weights" and path in registry.NAMED_WEIGHTS):
            continue
        if what == pictures and lists.scheme(path):
            continue
        if not is_one(path):
            problem = "a folder" if os.path.isdir(path) else "not there"
            raise InputError(f"Expected --{flag} to be {what}, got {path!r}, which is {problem}.")
        if what == pictures and not path.lower().endswith(".npz"):
            lists.find(path)
    writer.check_writable(conversion.folder)
