"""Renders a bundle's README.md, its model card, from `templates/`."""

import jinja2

from convert import command_line
from convert.bundle.card import snippets
from convert.bundle.report import ConversionReport, network_name, output_name, rows
from convert.settings import Estimator, Precision
from keras_models import registry
from keras_models.accuracy import has_top5
from keras_models.checkpoints import bundled
from shufflelite.display import markdown, printable

FAMILIES = {  # module of the builder: what the network is
    "alexnet": "AlexNet, the winner of the ImageNet challenge of 2012; a baseline",
    "augshufflenet": "AugShuffleNet: ShuffleNet V2's units, whose halves exchange channels before "
    "the last convolution",
    "efficientnet_v2": "EfficientNetV2: inverted bottlenecks, fused ones first, found by a search "
    "for fast training",
    "mobilenet_v1": "MobileNet V1: a chain of depthwise separable convolutions",
    "mobilenet_v2": "MobileNet V2: inverted residuals with linear bottlenecks",
    "mobilenet_v3": "MobileNet V3: inverted bottlenecks with squeeze-excite and hard swish, found "
    "by a search for low latency",
    "shufflenet_v1": "ShuffleNet V1: grouped pointwise convolutions, with channel shuffles between "
    "them",
    "shufflenet_v2": "ShuffleNet V2: half of the channels bypasses each unit, and a channel "
    "shuffle mixes both halves",
    "structure_units": "A plain network, to compare ShuffleNet with at equal cost",
}
RANGES = {
    Estimator.MINMAX: "holds all observed values",
    Estimator.PERCENTILE: "leaves out the outermost 0.01 % of the observed values on either side",
    Estimator.MSE: "minimizes the squared error of rounding and clipping",
}
PRECISIONS = {
    Precision.FLOAT32: "Nothing: weights and activations are float32.",
    Precision.FLOAT16: "Weights are stored in float16; everything computes in float32.",
    Precision.DYNAMIC: "Weights are int8; activations are float32 and quantized at run time.",
    Precision.INT8: "Full int8: weights and activations are int8, sums int32.",
    Precision.INT16X8: "Weights are int8, activations int16.",
}


def to_markdown(report: ConversionReport, *, title: str, has_labels: bool) -> str:
    """The bundle's README; the same report gives the same text."""
    model, quantization = report.settings.model, report.settings.quantization
    entry = registry.find(model.name)
    return (
        environment()
        .get_template("README.md.j2")
        .render(
            snippets.variables(
                report.audit.input, report.audit.output, report.preprocessing, output_name(report)
            ),
            title=title,
            report=report,
            entry=entry,
            family=FAMILIES[entry.builder.partition(":")[0].rpartition(".")[2]],
            network=network_name(report),
            published=registry.published(
                model.name,
                report.options,
                resolution=model.input_resolution,
                num_classes=model.classes,
            ),
            has_top5=has_top5(model.classes),
            bundled_license=bundled.LICENSE,
            precision=PRECISIONS[quantization.precision],
            ranges=RANGES[quantization.ranges],
            has_labels=has_labels,
            rows=rows(report),
            command=command_line.line(report.settings),
        )
    )


def environment() -> jinja2.Environment:
    """The templates, with the filters that they use."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("convert.bundle.card"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: printable(value) if isinstance(value, str) else value,
    )
    made.filters |= {
        "markdown": markdown,
        "float32": snippets.float32,
        "signed": snippets.signed,
        "paragraph": lambda text: " ".join(text.split()) + "\n",  # one line of Markdown
    }
    return made
