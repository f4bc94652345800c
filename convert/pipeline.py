"""The order of a conversion."""

import dataclasses
from pathlib import Path

import tensorflow as tf

from convert import automatic, bundle, export, gates, mixed, qat, quantize, tune, verify
from convert.complete import complete
from convert.equalize import equalize
from convert.inputs import PICTURES, Inputs, from_pictures, made_for, noise
from convert.lowering import lower
from convert.network import Network, create
from convert.report import Report, make_report
from convert.settings import Precision, Settings
from keras_models.errors import InputError
from keras_models.progress import Progress


def run(settings: Settings, progress: Progress) -> tuple[Path, Report]:
    """Converts, proves and bundles one network; returns the bundle's folder and its report.

    Raises:
      InputError: the settings ask for what does not exist or cannot be done.
      OSError: the output cannot be written.
    """
    tf.config.experimental.enable_op_determinism()
    settings = dataclasses.replace(settings, model=complete(settings.model))
    folder = bundle.folder(settings)
    bundle.check_writable(folder)
    with progress.stage("network and weights"):
        network = create(settings.model, seed=settings.seed, warn=progress.warn)
    labelled = _pictures(settings, settings.verification.data, None, network, progress)
    calibration = _pictures(
        settings,
        settings.quantization.calibration,
        settings.quantization.calibration_samples or PICTURES,
        network,
        progress,
    )
    labels = [known.labels for known in (labelled, calibration) if known]
    if settings.verification.max_accuracy_drop is not None and (not labels or labels[0] is None):
        raise InputError(
            "--max_accuracy_drop needs labels: pass --data with a csv of them, or a folder that "
            "has a folder for each class."
        )
    tuned = tune.form_for(network.model, settings, progress)
    form = None if settings.lowering.way == "direct" else tuned.form
    deployed = lower(network.model, integer=settings.quantization.precision.needs_inputs, form=form)
    chosen = mixed.choose(
        deployed,
        {"float32": settings.quantization.keep_float, "int16": settings.quantization.int16},
    )
    if calibration is None and settings.quantization.precision.needs_inputs:
        with progress.stage("data-free calibration inputs") as on_step:
            calibration = made_for(
                network.model,
                preprocessing=network.preprocessing,
                samples=settings.quantization.calibration_samples,
                seed=settings.seed,
                on_step=on_step,
            )
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
            calibrated, ranges, deployed, network, settings, qat.folder(folder), progress
        )
    per_channel = settings.quantization.per_channel
    ready = quantize.fake_quantize(calibrated, ranges, per_channel=per_channel)
    with progress.stage("export"):
        data = export.to_tflite(ready, settings.quantization, calibration)
    if labelled is None and calibration is not None:
        progress.warn("verified on the calibration's own inputs: pass --data for a fair check")
    checked = (
        labelled
        or calibration
        or noise(network.model, preprocessing=network.preprocessing, seed=settings.seed)
    )
    found = None
    if chosen or settings.quantization.auto_precision:
        with progress.stage("layers at higher precision") as on_step:
            data, found = automatic.apply(
                data, network.model, calibrated, chosen, checked, settings, on_step
            )
    with progress.stage("verify"):
        audit = verify.audit(data)
        kept_float = [x.operator for x in found.layers if x.dtype == "float32"] if found else []
        gates.require(audit, settings.quantization, kept_float)
        if settings.quantization.precision is Precision.INT8:
            for name in gates.FLOAT_ONLY & audit.float_operators.keys():
                progress.warn(f"{name} computes in float32: TFLite has no other")
        rounded = quantize.fake_quantize(calibrated, ranges, per_channel=per_channel, training=True)
        fidelity = verify.fidelity(
            data,
            network.model,
            calibrated,
            checked,
            rounded=rounded if ranges and not found else None,
        )
    report = make_report(
        settings, network, tuned.gains, calibration, epochs, checked, data, audit, fidelity, found
    )
    if settings.quantization.auto_precision and not report.passed:
        progress.warn("no layer in float32 that was tried brings the file past its gates")
    if folder.exists():
        progress.warn(f"the bundle that was in {folder} is replaced")
    bundle.write(folder, data, report, network.class_names or checked.class_names)
    qat.clear(qat.folder(folder))
    return folder, report


def _pictures(
    settings: Settings,
    source: str | None,
    limit: int | None,
    network: Network,
    progress: Progress,
) -> Inputs | None:
    if source is None:
        return None
    with progress.stage(f"pictures from {source}"):
        return from_pictures(
            source,
            resolution=settings.model.side,
            classes=settings.model.classes,
            preprocessing=network.preprocessing,
            limit=limit,
            seed=settings.seed,
            warn=progress.warn,
        )
