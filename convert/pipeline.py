"""The order of a conversion."""

from pathlib import Path

import tensorflow as tf

from convert import autotune, tflite_model
from convert.bundle import writer
from convert.bundle.report import ConversionReport, make_report
from convert.calibration_data import PICTURES, Inputs, from_pictures
from convert.conversion import Conversion
from convert.io_and_metadata import add_io_and_metadata
from convert.lowering import lower
from convert.network import LoadedNetwork, create
from convert.quantization import mixed_precision, qat, synthetic_inputs
from convert.settings import ConversionSettings, Precision
from convert.tflite_model import File
from convert.validate import NEEDS_LABELS
from convert.verification import gates, verify
from convert.verification.verify import Audit, Fidelity
from shufflelite.errors import InputError
from shufflelite.progress import Progress


def run(conversion: Conversion, progress: Progress) -> tuple[Path, ConversionReport]:
    """Converts, proves and bundles one network; returns the bundle's folder and its report.

    Raises:
      InputError: the settings ask for what does not exist or cannot be done.
      OSError: the output cannot be written.
    """
    tf.config.experimental.enable_op_determinism()
    settings, folder = conversion.settings, conversion.folder
    with progress.stage("network and weights"):
        network = create(settings.model, seed=settings.seed, warn=progress.warn)
    labelled, calibration = _inputs(settings, network, progress)
    tuned = autotune.options_for(network.model, settings, progress)
    deployed = lower(
        network.model,
        integer=settings.quantization.precision.needs_inputs,
        options=None if settings.lowering.way == "direct" else tuned.options,
    )
    wanted = settings.quantization
    chosen = mixed_precision.choose(deployed, {"float32": wanted.keep_float, "int16": wanted.int16})
    if calibration is None and wanted.precision.needs_inputs:
        with progress.stage("data-free calibration inputs") as on_step:
            calibration = synthetic_inputs.synthesize(
                network.model,
                network.preprocessing,
                samples=wanted.calibration_samples,
                seed=settings.seed,
                on_step=on_step,
            )
    made = tflite_model.make(deployed, network, calibration, settings, folder, progress)
    if labelled is None and calibration is not None:
        progress.warn("verified on the calibration's own inputs: pass --data for a fair check")
    checked = (
        labelled
        or calibration
        or synthetic_inputs.noise(network.model, network.preprocessing, seed=settings.seed)
    )
    made = tflite_model.at_higher_precision(
        made, chosen, network.model, checked, settings, progress
    )
    class_names = network.class_names or checked.class_names
    finished = add_io_and_metadata(made, network, class_names, settings)
    audit, fidelity = _verify(made, finished, network, checked, settings, progress)
    report = make_report(
        settings, network, tuned.gains, calibration, checked, finished, audit, fidelity
    )
    if wanted.auto_precision and not report.passed:
        progress.warn("no layer in float32 that was tried brings the file past its gates")
    if folder.exists():
        progress.warn(f"the bundle that was in {folder} is replaced")
    writer.write(folder, finished.data, report, class_names)
    qat.clear(qat.folder(folder))
    return folder, report


def _inputs(
    settings: ConversionSettings, network: LoadedNetwork, progress: Progress
) -> tuple[Inputs | None, Inputs | None]:
    """The user's pictures to verify and to calibrate on."""
    wanted, verification = settings.quantization, settings.verification
    labelled = _pictures(settings, verification.data, None, network, progress)
    limit = wanted.calibration_samples or PICTURES
    calibration = _pictures(settings, wanted.calibration, limit, network, progress)
    labels = [known.labels for known in (labelled, calibration) if known]
    if verification.max_accuracy_drop is not None and (not labels or labels[0] is None):
        raise InputError(NEEDS_LABELS)
    return labelled, calibration


def _pictures(
    settings: ConversionSettings,
    source: str | None,
    limit: int | None,
    network: LoadedNetwork,
    progress: Progress,
) -> Inputs | None:
    if source is None:
        return None
    with progress.stage(f"pictures from {source}"):
        return from_pictures(
            source,
            resolution=settings.model.input_resolution,
            classes=settings.model.classes,
            names=network.class_names,
            preprocessing=network.preprocessing,
            limit=limit,
            seed=settings.seed,
            warn=progress.warn,
        )


def _verify(
    made: File,
    finished: File,
    network: LoadedNetwork,
    checked: Inputs,
    settings: ConversionSettings,
    progress: Progress,
) -> tuple[Audit, Fidelity]:
    """Audits the finished file; fidelity is that of the logits, from which it makes its output."""
    with progress.stage("verify"):
        audit = verify.audit(finished.data)
        layers = made.mixed.layers if made.mixed else ()
        kept_float = [layer.operator for layer in layers if layer.dtype == "float32"]
        if settings.quantization.scores and audit.output.dtype == "float32":
            kept_float.append("SOFTMAX")
        gates.require(audit, settings.quantization, kept_float)
        if settings.quantization.precision is Precision.INT8:
            for name in gates.FLOAT_ONLY & audit.float_operators.keys():
                progress.warn(f"{name} computes in float32: TFLite has no other")
        fidelity = verify.fidelity(
            made.data, network.model, made.deployed, checked, rounded=made.rounded
        )
    return audit, fidelity
