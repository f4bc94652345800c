"""What a person asks of a file that someone else made, answered in sentences."""

import numpy as np

from convert.bundle.card.languages import NORMALIZED, PIXEL
from convert.bundle.card.snippets import digits, kind_of_input
from convert.bundle.report import InputsOrigin, Report
from convert.quantization.int8_range import TIES
from convert.settings import Estimator, Precision
from convert.verification.runner import Tensor
from keras_models import registry
from keras_models.checkpoints import bundled

FAMILIES = {  # module of the builder: what the network is
    "alexnet": "AlexNet, which won ImageNet's contest of 2012; a baseline",
    "augshufflenet": "AugShuffleNet: ShuffleNet V2's units, with channels that cross between both "
    "halves before the last convolution",
    "efficientnet_v2": "EfficientNetV2: inverted bottlenecks, fused ones first, found by a search "
    "for fast training",
    "mobilenet_v1": "MobileNet V1: depthwise separable convolutions in a row",
    "mobilenet_v2": "MobileNet V2: inverted bottlenecks with linear ends",
    "mobilenet_v3": "MobileNet V3: inverted bottlenecks with squeeze-excite and hard swish, found "
    "by a search for low latency",
    "shufflenet_v1": "ShuffleNet V1: grouped pointwise convolutions, and shuffles of the channels "
    "between them",
    "shufflenet_v2": "ShuffleNet V2: half of the channels goes past each unit, and a shuffle mixes "
    "both halves",
    "structure_units": "A plain network with which ShuffleNet is compared at equal cost",
}
RANGES = {
    Estimator.MINMAX: "holds all values that were seen",
    Estimator.PERCENTILE: "leaves out the outermost 0.01 % of the values on either side",
    Estimator.MSE: "has the least squared error of rounding and clipping",
}
STORED = {
    Precision.FLOAT32: "Nothing: weights and activations are float32.",
    Precision.FLOAT16: "Weights are stored in float16; everything computes in float32.",
    Precision.DYNAMIC: "Weights are int8; activations are float32, and rounded as they come.",
    Precision.INT8: "Full int8: weights and activations are int8, sums int32.",
    Precision.INT16X8: "Weights are int8, activations int16.",
}
NO_LICENSE = "Their licence is not known here: ask whoever made them."


def network(report: Report) -> str:
    """What it is, and what was published of its size and accuracy."""
    model = report.settings.model
    entry = registry.find(model.name)
    family = FAMILIES[entry.builder.partition(":")[0].rpartition(".")[2]]
    options = "".join(f" {name}={value}" for name, value in sorted(report.options.items()))
    told = [
        f"{family} ([paper]({entry.paper})). This one, `{model.name}{options}`, sorts pictures of "
        f"{model.side} x {model.side} pixels into {model.classes} classes, with {report.params:,} "
        f"parameters and {report.multiply_adds / 1e6:.1f} M multiply-adds."
    ]
    if found := registry.published(
        model.name, report.options, resolution=model.side, num_classes=model.classes
    ):
        top1 = f", {found.top1} % top-1 on ImageNet" if found.top1 else ""
        told.append(
            f"Published for it: {found.params:,} parameters, {found.mmadds} M multiply-adds{top1}. "
            f"{entry.note}"
        )
    else:
        told.append("Nothing was published for just these options.")
    return " ".join(told)


def weights(report: Report) -> str:
    """Whose they are, on what terms, and what their own file says of their accuracy."""
    found = report.weights
    if found.origin == "random":
        return "Drawn at random."
    named = {"bundled": "Those that come with ShuffleLite", "imagenet": "The official ones"}
    told = named.get(found.origin, "A file")
    told += f", of {found.source}" if found.source else ""
    told += f" (SHA-256 {found.sha256})." if found.sha256 else "."
    told += f" Licence: {bundled.LICENSE}." if found.origin == "bundled" else f" {NO_LICENSE}"
    if accuracy := found.accuracy:
        low, high = accuracy.interval
        told += (
            f" In float32 they have {accuracy.top1:.2f} % top-1 (95 % interval {low:.2f} to "
            f"{high:.2f}) and {accuracy.top5:.2f} % top-5 on the {accuracy.pictures:,} test "
            "pictures of their training, as their own file says."
        )
    return told


def quantization(report: Report) -> str:
    """What was quantized, and how."""
    settings = report.settings.quantization
    told = [STORED[settings.precision]]
    if settings.precision is Precision.INT8:
        each = "output channel" if settings.per_channel else "tensor"
        told.append(
            f"Weights are symmetric, with a scale for each {each}. Activations are asymmetric, "
            f"with a range for each tensor that {RANGES[settings.ranges]}."
        )
    if report.calibration:
        told.append(f"Calibrated on {_inputs(report.calibration)}.")
    if settings.precision.needs_inputs:
        if settings.equalization:
            told.append("Channels were evened out in size first, which changes nothing in float.")
        how = "were corrected" if settings.bias_correction else "were not corrected"
        told.append(f"Biases {how} for what rounding the weights does to the mean.")
    if epochs := len(report.training):
        qat = report.settings.qat
        told.append(
            f"Then it was trained as it rounds (quantization-aware) for {epochs} "
            f"epoch{'s' * (epochs != 1)} on {qat.data}, with {qat.distillation:.0%} of what it "
            "learnt from the float network's answers."
        )
    if report.mixed and report.mixed.layers:
        layers = ", ".join(f"{x.layer} ({x.dtype})" for x in report.mixed.layers)
        told.append(f"Computed at higher precision: {layers}.")
    return " ".join(told)


def gates(report: Report) -> str:
    """Which limits of the user's the file reached."""
    if not report.gates:
        return "No gate was set."
    told = (
        f"{'passed' if gate.passed else '**MISSED**'} {gate.flag} {gate.limit:g} ({gate.value:.2f})"
        for gate in report.gates
    )
    return f"Gates: {', '.join(told)}."


def source(report: Report) -> str:
    """How a picture becomes the input, step by step, as a Markdown list."""
    tensor, seen = report.audit.input, report.preprocessing
    _, side, _, _ = tensor.shape
    colours = "red, green, blue" if seen.channel_order == "rgb" else "blue, green, red"
    steps = [
        "Decode it, turn it as its EXIF orientation says, put what is transparent on white.",
        f"Scale it, its shape kept, until its shorter side has {seen.shorter_side(side)} pixels: "
        f"{seen.interpolation}, with a filter that grows as the picture shrinks (antialiasing).",
        f"Keep the {side} x {side} pixels in its middle.",
        f"Store them as {_tensor(tensor)}: row by row from the top, of each pixel {colours}. "
        + _stored(report),
    ]
    return "\n".join(f"{number}. {step}" for number, step in enumerate(steps, start=1))


def result(report: Report, *, has_labels: bool) -> str:
    """What the output is, and how it is read."""
    tensor = report.audit.output
    told = f"{_tensor(tensor)}, one number for each class. "
    if tensor.scale:
        told += f"A stored q stands for `{_difference(tensor)}`. "
    if report.settings.quantization.scores:
        told += "They are probabilities. "
    else:
        told += "They are logits: the greatest is the answer, their softmax the probabilities. "
    named = "The first line of `labels.txt` is the name of class 0, the second of class 1."
    return told + (named if has_labels else "The classes have no names here: `--labels FILE`.")


def limits(report: Report) -> list[str]:
    """What the file is not to be trusted with."""
    told = [
        f"It answers with one of its {report.settings.model.classes} classes, whatever it sees.",
        "Libraries resize each in its own way; other pixels than those above cost accuracy that "
        "no figure here tells.",
    ]
    if report.fidelity.top1 is None:
        told.append("Its accuracy was not measured here: no labelled pictures were given.")
    if report.verified_on == report.calibration:
        told.append("It was held against the float network on the inputs of its calibration alone.")
    if not report.audit.loads_in_tflite_runtime and "tflite-runtime" in report.versions:
        version = report.versions["tflite-runtime"]
        told.append(f"Runtimes as old as tflite-runtime {version} do not run it.")
    return told


def _stored(report: Report) -> str:
    tensor, seen = report.audit.input, report.preprocessing
    kind = kind_of_input(tensor, seen)
    if kind == PIXEL["int8"]:
        return "The stored value is that of the pixel, 0 to 255, less 128."
    if kind in PIXEL.values():
        return "The stored value is that of the pixel, 0 to 255."
    mean, std = (", ".join(map(digits, values)) for values in (seen.mean, seen.std))
    told = (
        "A pixel's value p, 0 to 255, becomes x = (p - mean) / std, with "
        f"mean {mean} and std {std} in that order of channels"
    )
    if kind == NORMALIZED:
        return f"{told}."
    limits = np.iinfo(tensor.dtype)
    return (
        f"{told}, and is stored as `floor(x / scale + zero point + {0.5 - TIES})`, at least "
        f"{limits.min} and at most {limits.max}."
    )


def _tensor(tensor: Tensor) -> str:
    told = f"`{tensor.dtype}` {list(tensor.shape)}"
    if not tensor.scale:
        return told
    return f"{told} (scale {digits(tensor.scale)}, zero point {tensor.zero_point})"


def _difference(tensor: Tensor) -> str:
    return f"(q - {tensor.zero_point}) * {digits(tensor.scale)}".replace("- -", "+ ")


def _inputs(origin: InputsOrigin) -> str:
    return f"{origin.count} inputs: {origin.origin} (SHA-256 {origin.sha256})"
