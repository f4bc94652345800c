"""The prose of the model card: what it says of each file, and what it says first."""

from dataclasses import replace

import pytest

from convert.bundle.card import render
from convert.bundle.report import ConversionReport, rows
from convert.network import WeightsOrigin
from convert.quantization.mixed_precision import LayerOverride, MixedPrecision
from convert.quantization.qat import QatEpoch
from convert.settings import Estimator, Lowering, Model, Precision, Qat, Quantization, Rounding
from convert.verification.gates import Gate
from keras_models import registry
from keras_models.accuracy import Accuracy
from tests.convert.bundle.test_writer import make_report


def card(report: ConversionReport, *, has_labels: bool = True) -> str:
    return render.to_markdown(report, title="net_int8", has_labels=has_labels)


def paragraph(text: str, start: str) -> str:
    """The only line that starts so."""
    (line,) = (line for line in text.splitlines() if line.startswith(start))
    return line


def quantized(quantization: Quantization, **changes: object) -> str:
    report = make_report()
    settings = replace(
        report.settings,
        quantization=quantization,
        qat=Qat(epochs=2, data="photos", distillation=0.5),
    )
    return paragraph(card(replace(report, settings=settings, **changes)), "**Quantized.** ")


def weights_of(report: ConversionReport) -> str:
    return paragraph(card(report), "**Weights.** ")


def test_random_weights_come_before_anything_else() -> None:
    random = card(replace(make_report(), weights=WeightsOrigin("random")))
    title, blank, warning = random.splitlines()[:3]
    assert (title, blank) == ("# net_int8", "")
    assert "RANDOM WEIGHTS" in warning
    assert "predictions mean nothing" in warning
    assert "RANDOM" not in card(make_report())


def test_a_missed_gate_comes_before_anything_else() -> None:
    assert card(make_report(passed=False)).splitlines()[2].startswith("> **This file missed a gate")
    assert "missed a gate" not in card(make_report())
    text = paragraph(card(make_report(passed=False)), "Gates: ")
    assert "passed min_agreement 90 (92.50)" in text
    assert "**MISSED** min_sqnr_db 15 (21.25)" in text


def test_counts_stand_beside_the_published_ones() -> None:
    text = paragraph(card(make_report()), "MobileNet V1: ")
    assert "470,072 parameters and 41.0 M multiply-adds" in text
    assert "(https://arxiv.org/abs/1704.04861)" in text
    assert "Published for it: 470,072 parameters, 41 M multiply-adds, 49.8 % top-1" in text
    other = replace(make_report(), options={"width": 0.25, "stem": "cifar"})
    assert "No figures are published" in paragraph(card(other), "MobileNet V1: ")


def test_every_network_of_the_registry_has_a_description() -> None:
    for name in registry.names():
        model = Model(name, {})
        report = make_report()
        report = replace(report, options={}, settings=replace(report.settings, model=model))
        if "like" not in name:
            assert f"([paper]({registry.find(name).paper}))" in card(report)
    builders = {registry.find(name).builder.partition(":")[0] for name in registry.names()}
    assert {f"keras_models.{family}" for family in render.FAMILIES} == builders


def test_weights_are_described_with_license_hash_and_accuracy() -> None:
    text = weights_of(make_report())
    assert "keras_applications" in text
    assert f"SHA-256 {'ab' * 32}" in text
    assert "license is not known" in text
    accuracy = Accuracy(10_000, 0.4, 86.95, 99.58, (86.28, 87.6))
    bundled = WeightsOrigin("bundled", "shufflelite shufflenet_v2", "cd" * 32, accuracy)
    text = weights_of(replace(make_report(), weights=bundled))
    assert "License: Apache-2.0" in text
    assert "86.95 % top-1 (95 % interval 86.28 to 87.60) and 99.58 % top-5 on the 10,000" in text


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        (Quantization(precision=Precision.INT8), "one scale per output channel"),
        (Quantization(precision=Precision.INT8, per_channel=False), "one scale per tensor"),
        (
            Quantization(precision=Precision.INT8, ranges=Estimator.MINMAX),
            "holds all observed values",
        ),
        (Quantization(precision=Precision.INT8), "Calibrated on 200 inputs: photos"),
        (Quantization(precision=Precision.INT8), "were rounded together"),
        (Quantization(precision=Precision.INT8, rounding=Rounding.NEAREST), "to the nearest step"),
        (Quantization(precision=Precision.INT8, equalization=True), "evened out"),
        (Quantization(precision=Precision.INT16X8), "Weights are int8, activations int16."),
        (Quantization(precision=Precision.DYNAMIC), "quantized at run time"),
        (Quantization(precision=Precision.FLOAT16), "stored in float16"),
        (Quantization(), "weights and activations are float32"),
    ],
)
def test_the_card_says_how_the_file_was_quantized(
    quantization: Quantization, expected: str
) -> None:
    assert expected in quantized(quantization)


def test_the_card_says_whether_channels_fill_their_range() -> None:
    scaled = "scaled to fill the int8 range"
    assert scaled in quantized(Quantization(precision=Precision.INT8, calibration="photos"))
    assert scaled not in quantized(Quantization(precision=Precision.INT8))  # synthetic inputs


def test_the_card_has_training_and_layers_at_higher_precision() -> None:
    int8 = Quantization(precision=Precision.INT8)
    epochs = (QatEpoch(2.0, 30.0), QatEpoch(1.0, 60.0))
    assert "for 2 epochs on photos; the float network's logits have a weight of 50%" in quantized(
        int8, training=epochs
    )
    mixed = MixedPrecision((LayerOverride("conv1", "CONV_2D", "float32", None),), 2, 1, 1032, 12.5)
    assert "higher precision: conv1 (float32)" in quantized(int8, mixed=mixed)
    assert "higher precision" not in quantized(int8)


def test_the_cost_of_higher_precision_is_in_bytes_and_on_the_target() -> None:
    report = make_report()
    layers = (LayerOverride("conv1", "CONV_2D", "float32", 3.25),)
    mixed = MixedPrecision(layers, 2, 0, 1032, 12.5)
    counted = (
        "conv1 float32 (+3.2 dB): +1,032 bytes, +2 operators, +0 partitions, 12.5 % of the "
        "multiply-adds in float32"
    )
    assert dict(rows(replace(report, mixed=mixed)))["higher precision"] == counted
    lowering = Lowering(target="emulated:a53", tune=True)
    report = replace(report, settings=replace(report.settings, lowering=lowering))
    report = replace(report, mixed=replace(mixed, cost_ratio=1.0314))
    measured = f"{counted}, 1.031 of the full-int8 file's cost on emulated:a53"
    assert dict(rows(report))["higher precision"] == measured
    assert f"| higher precision | {measured} |" in card(report)


def test_the_two_agreements_have_names_that_say_what_is_compared() -> None:
    report = make_report()
    table = dict(rows(report))
    assert table["agreement with float"] == "92.5 % of inputs keep their best class"
    assert "fake-quantized = file" not in table
    fidelity = replace(report.fidelity, fake_quantized_agreement=100.0)
    text = card(replace(report, fidelity=fidelity))
    assert (
        "| fake-quantized = file | 100.0 % of inputs: the rounded network in Keras has the file's "
        "best class |"
    ) in text


def test_the_input_is_described_to_the_pixel() -> None:
    text = card(make_report())
    assert "its shorter side has 256 pixels: bilinear" in text
    assert "Keep the central 224 x 224 pixels" in text
    assert "`uint8` [1, 224, 224, 3] (scale 0.007843138, zero point 128)" in text
    assert "red, green, blue. The stored value is the pixel value, 0 to 255.\n" in text


def test_the_output_is_described_with_the_meaning_of_its_values() -> None:
    text = paragraph(card(make_report()), "`uint8` [1, 1000]")
    assert "`uint8` [1, 1000] (scale 0.1, zero point 100)" in text
    assert "`(q - 100) * 0.1`" in text
    assert "logits" in text
    assert "labels.txt" in text
    assert "no names" not in text
    assert "no names" in card(make_report(), has_labels=False)


def test_limits_say_what_was_not_measured() -> None:
    report = make_report()
    assert "was not measured" not in card(report)
    unlabelled = replace(report, fidelity=replace(report.fidelity, top1=None, top1_difference=None))
    assert "was not measured" in card(unlabelled)


def test_limits_hold_the_warnings() -> None:
    doubtful = replace(make_report(), warnings=("it must not be given to a|GPU", "two: 3 dB"))
    lines = card(doubtful).partition("## Limits")[2].splitlines()
    assert r"- It must not be given to a\|GPU." in lines
    assert "- Two: 3 dB." in lines


def test_top5_is_shown_where_it_can_be_wrong() -> None:
    accuracy = Accuracy(10_000, 0.4, 86.95, 99.58, (86.28, 87.6))
    report = replace(make_report(), weights=WeightsOrigin("bundled", "x", "cd" * 32, accuracy))
    model = report.settings.model
    for classes, shown in ((1000, True), (6, True), (5, False)):
        settings = replace(report.settings, model=replace(model, num_classes=classes))
        of_classes = replace(report, settings=settings)
        assert ("top-5" in card(of_classes)) is shown
        assert ("99.58 %" in weights_of(of_classes)) is shown
        assert ("top-5" in dict(rows(of_classes))) is shown


def test_a_gate_with_a_wide_interval_says_so_in_its_row() -> None:
    few = Gate("max_accuracy_drop", 1.0, 0.0, passed=True, interval=(-39.0, 39.0))
    many = replace(few, interval=(-0.3, 0.5))
    table = dict(rows(replace(make_report(), gates=(few,))))
    expected = "0.00 (95 % interval -39.0 to 39.0: too wide), limit 1: passed"
    assert table["gate max_accuracy_drop"] == expected
    table = dict(rows(replace(make_report(), gates=(many,))))
    assert table["gate max_accuracy_drop"] == "0.00, limit 1: passed"


def test_the_loss_of_one_epoch_is_one_figure() -> None:
    report = make_report()
    settings = replace(report.settings, qat=Qat(epochs=2, data="photos", distillation=0.5))
    one, other = QatEpoch(2.0, 30.0), QatEpoch(1.0, 60.0)
    for epochs, text in (
        ((one,), "1 epoch of photos, loss 2.0000"),
        ((one, other), "2 epochs of photos, loss 2.0000 to 1.0000"),
    ):
        table = rows(replace(report, settings=settings, training=epochs))
        assert dict(table)["trained in int8"] == text


def test_the_command_and_the_versions_make_it_again() -> None:
    text = card(make_report())
    assert (
        "\n    python -m convert --model mobilenet_v1 --width 0.25 --int8 --io_dtype uint8 " in text
    )
    again = "tensorflow 2.21.0: the same inputs give the same bytes, SHA-256 "
    assert f"{again}{make_report().sha256}" in text


def test_a_name_with_a_bar_stays_in_its_cell() -> None:
    report = make_report()
    odd = replace(report, verified_on=replace(report.verified_on, origin="cats|dogs"))
    assert r"| verified on | 50 inputs: cats\|dogs |" in card(odd)
