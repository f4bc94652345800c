"""The order of a conversion."""

from pathlib import Path

import tensorflow as tf

from convert import autotune, tflite_model
from convert.bundle import writer
from convert.bundle.report import ConversionReport, make_report
from convert.calibration_data import PICTURES, Inputs
from convert.context import Context
from convert.conversion import Conversion
from convert.io_and_metadata import add_io_and_metadata
from convert.lowering import lower
from convert.network import create
from convert.quantization import (
    calibration_check,
    mixed_precision,
    qat,
    stored_inputs,
    synthetic_inputs,
)
from convert.settings import Precision
from convert.tflite_model import TfliteModel
from convert.validate import NEEDS_LABELS
from convert.verification import gates, verify
from convert.verification.verify import Audit, Fidelity
from shufflelite.errors import InputError
from shufflelite.progress import Progress


def run(conversion: Conversion, progress: Progress) -> tuple[Path, ConversionReport]:
    """Converts, verifies and bundles one network; returns the bundle's folder and its report.

    Raises:
      InputError: the settings name something that does not exist or cannot be done.
      OSError: the output cannot be written.
    """
    tf.config.experimental.enable_op_determinism()
    settings, folder = conversion.settings, conversion.folder
    with progress.stage("network and weights"):
        network = create(settings.model, seed=settings.seed, warn=progress.warn)
    context = Context(settings, network, progress)
    pictures, calibration = _read_pictures(context)
    context, training = qat.prepare(context, qat.folder(folder))
    calibration_warnings = _warn_of_calibration(context, calibration)
    tuned = autotune.options_for(network.model, settings, progress)
    quantization = settings.quantization
    deployed = lower(
        network.model,
        integer=quantization.precision.needs_inputs,
        options=None if settings.lowering.way == "direct" else tuned.options,
    )
    overrides = mixed_precision.choose(
        deployed, {"float32": quantization.keep_float, "int16": quantization.int16}
    )
    if calibration is None and quantization.precision.needs_inputs:
        calibration = _synthesize(context)
    logits_file = tflite_model.build(context, deployed, calibration, training)
    inputs = pictures or calibration
    inputs = inputs or synthetic_inputs.noise(
        network.model, network.preprocessing, seed=settings.seed
    )
    logits_file = tflite_model.override_precision(context, logits_file, overrides, inputs)
    class_names = network.class_names or inputs.class_names
    finished = add_io_and_metadata(logits_file, network, class_names, settings)
    audit, fidelity = _verify(context, logits_file, finished, inputs)
    report = make_report(
        context,
        tuned,
        calibration,
        inputs,
        finished,
        audit,
        fidelity,
        calibration_warnings,
    )
    for warning in report.warnings[len(calibration_warnings) :]:
        progress.warn(warning)
    if quantization.auto_precision and not report.passed:
        progress.warn("no layer in float32 that was tried brings the file past its gates")
    if folder.exists():
        progress.warn(f"the bundle that was in {folder} is replaced")
    writer.write(folder, finished.data, report, class_names)
    qat.clear(qat.folder(folder))
    return folder, report


def _read_pictures(context: Context) -> tuple[Inputs | None, Inputs | None]:
    """The user's pictures for verification and for calibration."""
    quantization, verification = context.settings.quantization, context.settings.verification
    # Of another seed: synthetic pictures to verify on are not those of the calibration.
    seed = context.settings.seed
    pictures = _pictures(context, verification.data, None, seed + 1)
    limit = quantization.calibration_samples or PICTURES
    calibration = _pictures(context, quantization.calibration, limit, seed)
    labels = [inputs.labels for inputs in (pictures, calibration) if inputs]
    if verification.max_accuracy_drop is not None and (not labels or labels[0] is None):
        raise InputError(NEEDS_LABELS)
    return pictures, calibration


def _pictures(context: Context, source: str | None, limit: int | None, seed: int) -> Inputs | None:
    progress = context.progress
    if source is None:
        return None
    with progress.stage(f"pictures from {source}"):
        return context.network.read_pictures(source, limit=limit, seed=seed, warn=progress.warn)


def _warn_of_calibration(context: Context, pictures: Inputs | None) -> tuple[str, ...]:
    """Warnings about the user's calibration pictures, which are told before the long work."""
    if pictures is None or not context.settings.quantization.precision.needs_inputs:
        return ()
    network = context.network
    is_trained = network.weights.origin != "random"
    warnings = calibration_check.find(pictures, network.model, is_trained=is_trained)
    for warning in warnings:
        context.progress.warn(warning)
    return warnings


def _synthesize(context: Context) -> Inputs:
    request, progress = stored_inputs.request_of(context), context.progress
    reuse = context.settings.quantization.calibration_cache
    if reuse and (stored := stored_inputs.find(request)):
        progress.tell(f"data-free calibration inputs: {stored.origin}")
        return stored
    with progress.stage("data-free calibration inputs") as on_step:
        inputs = stored_inputs.make(request, on_step)
    if reuse:
        stored_inputs.store(request, inputs)
    return inputs


def _verify(
    context: Context, logits_file: TfliteModel, finished: TfliteModel, inputs: Inputs
) -> tuple[Audit, Fidelity]:
    """The audit of the finished file, and the fidelity of the logits that it is made from."""
    quantization = context.settings.quantization
    with context.progress.stage("verify"):
        audit = verify.audit(finished.data)
        layers = logits_file.mixed.layers if logits_file.mixed else ()
        kept_float = [layer.operator for layer in layers if layer.dtype == "float32"]
        if quantization.scores and audit.output.dtype == "float32":
            kept_float.append("SOFTMAX")
        gates.require(audit, quantization, kept_float)
        if quantization.precision is Precision.INT8:
            for name in gates.FLOAT_ONLY & audit.float_operators.keys():
                context.progress.warn(f"{name} computes in float32: TFLite has no other")
        fidelity = verify.fidelity(
            logits_file.data,
            context.network.model,
            logits_file.deployed,
            inputs,
            emulation=logits_file.emulation(quantization),
        )
    return audit, fidelity
