"""The results of a conversion: report.json for machines, a table for people."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from convert.autotune import Tuned, TuningGain
from convert.calibration_data import Inputs
from convert.context import Context
from convert.io_and_metadata import compatible_readers
from convert.network import WeightsOrigin
from convert.quantization.mixed_precision import MixedPrecision
from convert.quantization.qat import QatEpoch
from convert.settings import ConversionSettings
from convert.tflite_model import TfliteModel
from convert.verification import file_warnings, gates
from convert.verification.gates import Gate
from convert.verification.runner import IoTensor
from convert.verification.verify import Audit, Fidelity
from keras_models.accuracy import Interval, has_top5
from keras_models.images.decode import Preprocessing
from shufflelite import config
from shufflelite.versions import version

SCHEMA = 1  # version of report.json; grows when a field changes its meaning
WORST_LAYERS = 5
PACKAGES = ("shufflelite", "tensorflow", "tf_keras", "ai-edge-litert", "tflite-runtime", "numpy")


@dataclass(frozen=True)
class InputsOrigin:
    """The inputs of calibration or verification."""

    origin: str
    count: int
    sha256: str
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class ConversionReport:
    """All results of one conversion.  Percentages are 0..100."""

    settings: ConversionSettings
    options: Mapping[str, Any]  # of the builder: the user's and those that the weights need
    params: int
    multiply_adds: int
    weights: WeightsOrigin
    preprocessing: Preprocessing
    forms: tuple[TuningGain, ...]  # lowering choices made by measuring, with their gains
    calibration: InputsOrigin | None
    verified_on: InputsOrigin
    sha256: str
    audit: Audit
    fidelity: Fidelity
    gates: tuple[Gate, ...]
    versions: dict[str, str]
    training: tuple[QatEpoch, ...] = ()  # quantization-aware
    mixed: MixedPrecision | None = None  # layers of an int8 file that do not compute in int8
    float32_ratio: float | None = None  # measured time of the float32 file over the int8 file's
    warnings: tuple[str, ...] = ()  # what speaks against using the file
    schema: int = SCHEMA

    @property
    def passed(self) -> bool:
        """Whether the file passed every gate that the user set."""
        return all(gate.passed for gate in self.gates)


def make_report(
    context: Context,
    tuned: Tuned,
    calibration: Inputs | None,
    verification: Inputs,
    tflite: TfliteModel,
    audit: Audit,
    fidelity: Fidelity,
    calibration_warnings: tuple[str, ...],
) -> ConversionReport:
    """Collects the results of the stages."""
    settings, network = context.settings, context.network
    checked = gates.check(fidelity, settings.verification)
    needs_inputs = settings.quantization.precision.needs_inputs
    return ConversionReport(
        settings=settings,
        options=network.options,
        params=network.params,
        multiply_adds=network.multiply_adds,
        weights=network.weights,
        preprocessing=tflite.preprocessing,
        forms=tuned.gains,
        float32_ratio=tuned.float32_ratio,
        calibration=_origin(calibration) if calibration and needs_inputs else None,
        training=tflite.epochs,
        verified_on=_origin(verification),
        sha256=hashlib.sha256(tflite.data).hexdigest(),
        audit=audit,
        fidelity=fidelity,
        gates=checked,
        warnings=(
            *calibration_warnings,
            *file_warnings.of_inputs(verification, calibration, settings.quantization.precision),
            *tuned.warnings(settings.lowering.target),
            *file_warnings.find(audit, fidelity, checked),
        ),
        versions={name: v for name in PACKAGES if (v := version(name))},
        mixed=tflite.mixed,
    )


def to_json(report: ConversionReport) -> str:
    """The whole report; independent of the output folder."""
    settings = config.to_dict(report.settings)
    del settings["out"]
    fields = dataclasses.asdict(report) | {"settings": settings}
    return json.dumps(fields, indent=2, sort_keys=True) + "\n"


def rows(report: ConversionReport) -> list[tuple[str, str]]:
    """The table for people: (property, value), the most important first."""
    audit, fidelity = report.audit, report.fidelity
    requantized = f"{audit.requantizations} QUANTIZE inside"
    table = [
        ("network", network_name(report)),
        ("size", f"{audit.size_bytes:,} bytes"),
        ("parameters", f"{report.params:,}"),
        ("multiply-adds", f"{report.multiply_adds / 1e6:.1f} M"),
        ("weights", _weights(report.weights)),
        ("input", _tensor(audit.input)),
        ("output", f"{_tensor(audit.output)}: {output_name(report)}"),
        ("apps", _readers(report)),
        ("operators", f"{sum(audit.operators.values())}, {requantized}, float: {_float(audit)}"),
        ("form", _form(report)),
        ("XNNPACK", _delegation(audit)),
        ("tflite-runtime", _loads(report)),
    ]
    if report.mixed:
        table.append(("higher precision", _mixed(report.mixed, report.settings.lowering.target)))
    if report.calibration:
        table.append(("calibrated on", _inputs(report.calibration)))
    if report.training:
        table.append(("trained in int8", _training(report)))
    table.append(("verified on", _inputs(report.verified_on)))
    if difference := fidelity.top1_difference:
        top1 = (
            f"{form} {top1:.1f} % ({_interval(interval)})"
            for form, top1, interval in (
                ("float", fidelity.float_top1, fidelity.float_top1_interval),
                ("file", fidelity.top1, fidelity.top1_interval),
            )
        )
        table += [
            ("top-1", f"{', '.join(top1)}, with 95 % intervals"),
            ("difference", f"{difference.points:+.1f} points ({_interval(difference.interval)})"),
        ]
        if has_top5(report.settings.model.classes):
            top5 = f"float {fidelity.float_top5:.1f} %, file {fidelity.top5:.1f} %"
            table.append(("top-5", top5))
    table += [
        ("agreement with float", f"{fidelity.agreement:.1f} % of inputs keep their best class"),
        *_fake_quantized(fidelity),
        ("logits", f"{fidelity.sqnr_db:.1f} dB signal to quantization noise"),
        (
            "worst layers",
            ", ".join(f"{x.name} {x.sqnr_db:.1f} dB" for x in fidelity.layers[:WORST_LAYERS]),
        ),
    ]
    return table + [(f"gate {gate.flag}", _gate(gate)) for gate in report.gates]


def output_name(report: ConversionReport) -> str:
    """What the values of the output are: "logits" or "scores"."""
    return "scores" if report.settings.quantization.scores else "logits"


def network_name(report: ConversionReport) -> str:
    """The network with the options of its builder, as `mobilenet_v1 width=0.25`."""
    options = (f"{name}={value}" for name, value in sorted(report.options.items()))
    return " ".join([report.settings.model.name, *options])


def _form(report: ConversionReport) -> str:
    lowering = report.settings.lowering
    if lowering.way == "direct":
        return "direct: layer by layer"
    gains = (f"{g.decision}: {g.chosen} ({g.ratio:.3f})" for g in report.forms)
    ratio = report.float32_ratio
    float32 = [] if ratio is None else [f"float32 would take {ratio:.2f} of the time"]
    return "; ".join([f"for {lowering.target} cores", *gains, *float32])


def _weights(weights: WeightsOrigin) -> str:
    return weights.origin + (f", of {weights.source}" if weights.source else "")


def _origin(inputs: Inputs) -> InputsOrigin:
    return InputsOrigin(inputs.origin, len(inputs), inputs.sha256, inputs.skipped)


def _tensor(tensor: IoTensor) -> str:
    shape = " x ".join(map(str, tensor.shape))
    if not tensor.scale:
        return f"{tensor.dtype} {shape}"
    return f"{tensor.dtype} {shape}, scale {tensor.scale:.6g}, zero point {tensor.zero_point}"


def _readers(report: ConversionReport) -> str:
    audit, scores = report.audit, report.settings.quantization.scores
    return compatible_readers(
        audit.input.dtype, audit.output.dtype, report.preprocessing, scores=scores
    )


def _float(audit: Audit) -> str:
    return ", ".join(f"{n} {name}" for name, n in audit.float_operators.items()) or "none"


def _delegation(audit: Audit) -> str:
    outside = ", ".join(f"{n} {name}" for name, n in audit.undelegated_operators.items())
    partitions = audit.delegate_partitions
    return f"{partitions} partition{'s' * (partitions != 1)}, outside: {outside or 'none'}"


def _mixed(mixed: MixedPrecision, target: str) -> str:
    layers = (
        f"{x.layer} {x.dtype}" + ("" if x.gain_db is None else f" ({x.gain_db:+.1f} dB)")
        for x in mixed.layers
    )
    costs = [
        f"{mixed.size_bytes:+,} bytes",
        f"{mixed.operators:+} operators",
        f"{mixed.partitions:+} partitions",
        f"{mixed.float_multiply_adds:.1f} % of the multiply-adds in float32",
    ]
    if mixed.cost_ratio is not None:
        costs.append(f"{mixed.cost_ratio:.3f} of the full-int8 file's cost on {target}")
    return f"{', '.join(layers) or 'no layer'}: {', '.join(costs)}"


def _loads(report: ConversionReport) -> str:
    results = {True: "loads and runs it", False: "does NOT run it", None: "not installed"}
    version = report.versions.get("tflite-runtime", "")
    return f"{version} {results[report.audit.loads_in_tflite_runtime]}".strip()


def _fake_quantized(fidelity: Fidelity) -> list[tuple[str, str]]:
    agreement = fidelity.fake_quantized_agreement
    if agreement is None:
        return []
    text = f"{agreement:.1f} % of inputs: the rounded network in Keras has the file's best class"
    return [("fake-quantized = file", text)]


def _training(report: ConversionReport) -> str:
    data, number = report.settings.qat.data, len(report.training)
    losses = dict.fromkeys((report.training[0], report.training[-1]))  # one of a single epoch
    loss = " to ".join(f"{epoch.loss:.4f}" for epoch in losses)
    return f"{number} epoch{'s' * (number != 1)} of {data}, loss {loss}"


def _gate(gate: Gate) -> str:
    verdict = "passed" if gate.passed else "MISSED"
    width = f" (95 % interval {_interval(gate.interval)}: too wide)" if gate.is_undecided else ""
    return f"{gate.value:.2f}{width}, limit {gate.limit:g}: {verdict}"


def _interval(interval: Interval | None) -> str:
    assert interval is not None  # there is a top-1
    return f"{interval[0]:.1f} to {interval[1]:.1f}"


def _inputs(origin: InputsOrigin) -> str:
    skipped = f", {len(origin.skipped)} unreadable" if origin.skipped else ""
    return f"{origin.count} inputs: {origin.origin}{skipped}"
