"""Quantization-aware training: what it learns, resumes and refuses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras as keras
from PIL import Image

from convert import pipeline
from convert.context import Context
from convert.conversion import Conversion, resolve
from convert.network import LoadedNetwork, WeightsOrigin
from convert.quantization import qat, quantize
from convert.quantization.tfmot_config import CONVOLVING, kernel_quantizer, quantized_kernel
from convert.settings import ConversionSettings, Model, Precision, Qat, Quantization, Verification
from convert.verification import runner
from keras_models import registry
from keras_models.checkpoints import files
from keras_models.checkpoints.load import load_weights, save
from keras_models.images.datasets import Pictures, load
from keras_models.images.decode import Preprocessing
from keras_models.train import settings as recipes
from keras_models.train.fast_layers import with_fast_layers
from keras_models.train.run import run
from shufflelite.errors import InputError
from shufflelite.progress import Progress

SETTINGS = ConversionSettings(
    model=Model("small", resolution=16, num_classes=10),
    quantization=Quantization(precision=Precision.INT8),
    qat=Qat(epochs=3, data="synthetic:60", batch=16, learning_rate=0.01),
)


class StoppedError(Exception):
    pass


class Silent(Progress):
    """Tells nobody; stops the command after `lines`."""

    def __init__(self, lines: int = 1000) -> None:
        super().__init__("test")
        self.left = lines

    def tell(self, message: str) -> None:
        if self.left == 0:
            raise StoppedError(message)
        self.left -= 1


def train(
    small: Any, out: Path, settings: ConversionSettings = SETTINGS, **changes: Any
) -> tuple[Any, Any]:
    network = LoadedNetwork(small.model, {}, Preprocessing(), WeightsOrigin("random"), None, 0, 0)
    options = {"calibrated": small.rounded, "progress": Silent()} | changes
    context = Context(settings, network, options["progress"])
    context, prepared = qat.prepare(context, out)
    assert prepared
    return qat.train(context, prepared, options["calibrated"], small.ranges, small.deployed)


def same(one: Any, other: Any) -> bool:
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_rounded_in_keras_it_gives_the_files_bits(small: Any, fresh: Any) -> None:
    rounded = quantize.fake_quantize(small.rounded, small.ranges, training=True)
    expected = np.concatenate([rounded(batch).numpy() for batch in fresh.batches()])
    found = np.stack(list(runner.run(small.int8, fresh)))
    step = small.ranges["classifier"].step
    np.testing.assert_array_equal(np.round(found / step), np.round(expected / step))
    # Not so in real numbers, which know neither of factors in float32 nor of fixed point:
    real = quantize.fake_quantize(small.rounded, small.ranges)
    differs = np.concatenate([real(batch).numpy() for batch in fresh.batches()])
    assert np.mean(np.round((found - differs) / step) != 0) > 0.05


@pytest.mark.parametrize("per_channel", [True, False])
def test_weights_are_whole_steps_and_biases_whole_products(small: Any, per_channel: bool) -> None:
    rounded = quantize.fake_quantize(
        small.rounded, small.ranges, per_channel=per_channel, training=True
    )
    rounded(np.zeros((1, 16, 16, 3), np.float32))
    for name, source in (("conv1", "image"), ("depthwise", "expand"), ("conv2", "reduce")):
        kernel, bias = small.rounded.get_layer(name).get_weights()
        layer = rounded.get_layer(name).layer
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        axes = ((0, 1) if depthwise else (0, 1, 2)) if per_channel else None
        steps = np.abs(kernel).max(axis=axes, keepdims=True) / 127
        found = np.asarray(layer.depthwise_kernel if depthwise else layer.kernel)
        np.testing.assert_array_equal(found, np.round(kernel / steps))  # as it last computed
        products = steps.ravel() * (small.ranges[source].high - small.ranges[source].low) / 255
        np.testing.assert_allclose(layer.bias, np.round(bias / products), rtol=1e-6)


def test_it_learns_and_comes_nearer_to_its_teacher(small: Any, tmp_path: Path) -> None:
    blunt = keras.models.clone_model(small.rounded)
    blunt.set_weights([np.round(w * 12) / 12 for w in small.rounded.get_weights()])
    settings = replace(
        SETTINGS,
        qat=replace(SETTINGS.qat, data="synthetic:320", epochs=12, distillation=1.0),
    )
    trained, epochs = train(small, tmp_path / "x", settings, calibrated=blunt)
    assert len(epochs) == 12
    assert epochs[-1].loss < epochs[0].loss
    errors = []
    for form in (blunt, trained):
        rounded = quantize.fake_quantize(form, small.ranges, training=True)
        pairs = ((rounded(x), small.deployed(x)) for x in small.calibration.batches())
        errors.append(np.mean([np.square(a - b).mean() for a, b in pairs]))
    assert errors[1] < 0.7 * errors[0]


def test_what_is_not_connected_stays_so(small: Any, tmp_path: Path) -> None:
    cut = keras.models.clone_model(small.rounded)
    cut.set_weights(small.rounded.get_weights())
    kernel, bias = cut.get_layer("conv2").get_weights()
    kernel[:, :, ::2, ::3] = 0
    cut.get_layer("conv2").set_weights([kernel, bias])
    trained, _ = train(small, tmp_path / "x", calibrated=cut)
    found, _ = trained.get_layer("conv2").get_weights()
    np.testing.assert_array_equal(found == 0, kernel == 0)
    assert not np.array_equal(found, kernel)


@pytest.mark.parametrize("per_channel", [True, False])
def test_it_starts_with_the_rounded_kernels_and_can_leave_each_step(
    small: Any, per_channel: bool
) -> None:
    rng = np.random.default_rng(0)
    rounded = keras.models.clone_model(small.deployed)
    rounded.set_weights(small.deployed.get_weights())
    names = [layer.name for layer in rounded.layers if isinstance(layer, CONVOLVING)]
    for name in names:  # up or down, as the rounding of a whole layer does
        layer = rounded.get_layer(name)
        kernel, *bias = layer.get_weights()
        step = kernel_quantizer(layer, per_channel=per_channel).step(kernel).numpy()
        whole = np.floor(np.abs(kernel / step) + 1e-4 + rng.integers(0, 2, kernel.shape))
        layer.set_weights([np.sign(kernel) * np.minimum(whole, 127) * step, *bias])
    start = qat.unrounded(rounded, small.deployed, per_channel=per_channel)
    for name in names:
        layer = start.get_layer(name)
        forms = (rounded, small.deployed, start)
        expected, floats, kernel = (form.get_layer(name).get_weights()[0] for form in forms)
        found = quantized_kernel(kernel, layer, per_channel=per_channel)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
        np.testing.assert_array_equal(kernel == 0, floats == 0)
        assert (np.abs(kernel - floats) <= np.abs(expected - floats) + 1e-7).all()


def test_an_interrupted_training_ends_with_the_same_bits(small: Any, tmp_path: Path) -> None:
    whole, epochs = train(small, tmp_path / "whole")
    for lines in (2, 4, 1):  # pictures and then two lines an epoch, or one that it goes on
        with pytest.raises(StoppedError):
            train(small, tmp_path / "parts", progress=Silent(lines))
    parts, again = train(small, tmp_path / "parts")
    assert same(parts, whole)
    assert not same(whole, small.rounded)
    assert again == epochs


def test_a_training_that_began_otherwise_is_not_gone_on_with(small: Any, tmp_path: Path) -> None:
    train(small, tmp_path / "x")
    for changes, told in (
        ({"calibrated": small.deployed}, "other initial weights"),
        (
            {"settings": replace(SETTINGS, qat=replace(SETTINGS.qat, distillation=0.1))},
            "other initial w",
        ),
        (
            {"settings": replace(SETTINGS, qat=replace(SETTINGS.qat, batch=8))},
            r"has qat\.batch = 16, not 8: repeat its settings",
        ),
    ):
        with pytest.raises(InputError, match=told):
            train(small, tmp_path / "x", **changes)


def test_pictures_of_other_classes_are_refused(small: Any, tmp_path: Path) -> None:
    three = keras.Model(
        small.model.inputs, keras.layers.Dense(3, name="three")(small.model.layers[-2].output)
    )
    network = LoadedNetwork(three, {}, Preprocessing(), WeightsOrigin("random"), None, 0, 0)
    named = replace(network, model=small.model, class_names=("stripes0", *"abcdefghi"))
    remedy = ".*or pass --distillation 1 to train without labels"
    for other, told in (
        (network, "the 3 classes of the network, got 10 in unknown order"),
        (named, "got 'stripes1', a name that none of them has"),
    ):
        with pytest.raises(InputError, match=told + remedy):
            qat.prepare(Context(SETTINGS, other, Silent()), tmp_path / "x")
        assert not (tmp_path / "x").exists()
        without = replace(SETTINGS, qat=replace(SETTINGS.qat, distillation=1.0))
        _, prepared = qat.prepare(Context(without, other, Silent()), tmp_path / "x")
        assert prepared
        assert prepared.share == 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty pictures, and two lists: with labels of all ten classes, and of three of them."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    images, labels = next(synthetic(30, 16, seed=3).read([np.arange(30)]))
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:02}.png")
    for name, classes in (("all", 10), ("some", 3)):
        rows = [f"pictures/{n:02}.png,{label % classes}" for n, label in enumerate(labels)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["file,label", *rows]))
    return folder


def with_data(data: Path, **qat_settings: Any) -> ConversionSettings:
    settings = Qat(epochs=2, data=str(data), batch=10, learning_rate=0.01)
    return replace(SETTINGS, qat=replace(settings, **qat_settings))


def test_without_labels_it_learns_from_the_float_network_alone(
    small: Any, folder: Path, tmp_path: Path
) -> None:
    trained, epochs = train(small, tmp_path / "x", with_data(folder))
    assert not same(trained, small.rounded)
    labelled = with_data(tmp_path / "all.csv", distillation=1.0)
    again, agreement = train(small, tmp_path / "y", labelled)
    assert same(trained, again), "labels have no influence"
    assert agreement == epochs
    mixed, _ = train(
        small, tmp_path / "z", replace(labelled, qat=replace(labelled.qat, distillation=0.9))
    )
    assert not same(trained, mixed)


@pytest.mark.parametrize(
    ("source", "distillation", "share"),
    [
        ("pictures", None, 1.0),
        ("all.csv", None, 0.5),
        ("all.csv", 0.0, 0.0),
        ("some.csv", None, 1.0),  # labels of three classes would teach to forget the others
        ("some.csv", 0.25, 0.25),
    ],
)
def test_labels_have_weight_if_each_class_has_some_or_if_the_user_says_so(
    source: str, distillation: float | None, share: float, small: Any, folder: Path
) -> None:
    network = LoadedNetwork(small.model, {}, Preprocessing(), WeightsOrigin("random"), None, 0, 0)
    settings = with_data(folder.parent / source, distillation=distillation)
    context, prepared = qat.prepare(Context(settings, network, Silent()), folder.parent / "x")
    assert prepared
    assert prepared.share == context.settings.qat.distillation == share
    assert prepared.pictures.known_labels.any() == (share < 1)


@pytest.mark.parametrize(
    ("pictures", "batch", "epochs", "rate"),
    [
        (50_000, 128, 1, 1e-3),
        (1_280, 128, 6, 1e-3),
        (200, 20, 6, 1e-3 * 20 / 128),
        (100, 16, 10, 1e-3 / 8),
        (5, 16, 60, 1e-3 / 8),  # a step takes them all
    ],
)
def test_few_pictures_get_small_batches_at_a_lower_rate(
    pictures: int, batch: int, epochs: int, rate: float
) -> None:
    found = qat._complete(Qat(data="x"), pictures, 1.0)
    assert found == Qat(epochs, "x", batch, pytest.approx(rate), 1.0)
    chosen = Qat(3, "x", 64, 0.01)
    assert qat._complete(chosen, pictures, 0.5) == replace(chosen, distillation=0.5)


@pytest.mark.parametrize(
    ("source", "changes", "told"),
    [
        ("pictures", {"distillation": 0.5}, "expected labels for --distillation 0.5, found none"),
        ("some.csv", {"distillation": 0.0}, "expected pictures of each class, found none of 3, 4"),
        ("pictures", {"batch": 15}, r"has qat\.batch = 10, not 15: repeat its settings"),
        ("all.csv", {"distillation": 1.0}, "has other training pictures"),
        ("absent", {}, "expected a folder of pictures or a .csv file"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_the_network_is_quantized(
    source: str,
    changes: dict[str, Any],
    told: str,
    small: Any,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = LoadedNetwork(small.model, {}, Preprocessing(), WeightsOrigin("random"), None, 0, 0)
    settings = replace(with_data(folder), out=str(folder.parent / "out"))
    conversion = Conversion(settings, folder.parent / "bundle")
    train(small, qat.folder(conversion.folder), settings)  # its bundle is not written
    monkeypatch.setattr(pipeline, "create", lambda *args, **kwargs: network)
    monkeypatch.setattr(pipeline, "lower", pytest.fail)
    settings = with_data(folder.parent / source, **changes)
    with pytest.raises(InputError, match=told):
        pipeline.run(replace(conversion, settings=settings), Silent())


FAMILIES: dict[str, tuple[dict[str, Any], int, int]] = {  # options, side, epochs of float
    "shufflenet_v1": ({"width": 0.25, "stem": "cifar"}, 32, 5),
    "shufflenet_v2": ({"width": 0.5, "stem": "cifar"}, 32, 5),
    "augshufflenet": ({"width": 0.5, "stem": "cifar"}, 32, 5),
    "mobilenet_v1": ({"width": 0.25, "stem": "cifar"}, 32, 5),
    "mobilenet_v2": ({"width": 0.35}, 64, 5),
    "mobilenet_v3_small": ({}, 64, 5),
    "efficientnet_v2_b0": ({}, 32, 14),
}


def trained(name: str, options: dict[str, Any], side: int, epochs: int, out: Path) -> Path:
    """Weights of a network that tells the stripes apart."""
    recipe = recipes.Training(epochs=epochs, batch=32, learning_rate=0.03, weight_decay=1e-3)
    settings = recipes.TrainingSettings(
        recipes.NetworkSettings(name, options, side),
        recipes.Data("synthetic:640"),
        str(out),
        augment=recipes.Augment(crop="none", flip=False),
        training=recipe,
    )
    weights = run(settings, Progress("test")).weights
    model = registry.create(name, input_shape=(side, side, 3), num_classes=10, **options)
    load_weights(model, files.read(weights), origin="test")
    model = with_fast_layers(model)  # of which XLA compiles nothing
    # So few steps are too short a memory for the moving averages: the statistics, all at once.
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    images, _ = next(synthetic(320, side, seed=1).read([np.arange(320)]))
    model(Preprocessing().to_input(images), training=True)
    save(model, out / "weights.npz")
    return out / "weights.npz"


def synthetic(count: int, side: int, *, seed: int) -> Pictures:
    return load(
        f"synthetic:{count}",
        resolution=side,
        preprocessing=Preprocessing(),
        seed=seed,
        warn=pytest.fail,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_trains_in_int8_and_its_file_computes_what_was_trained(
    name: str, tmp_path: Path
) -> None:
    options, side, epochs = FAMILIES[name]
    weights = trained(name, options, side, epochs, tmp_path / "float")
    images, labels = next(synthetic(300, side, seed=2).read([np.arange(300)]))
    data = tmp_path / "pictures.npz"
    np.savez(data, images=images, labels=labels)
    folder, report = pipeline.run(
        resolve(
            ConversionSettings(
                model=Model(name, options, resolution=side, num_classes=10, weights=str(weights)),
                quantization=Quantization(precision=Precision.INT8, calibration=str(data)),
                qat=Qat(epochs=1, data="synthetic:640", batch=32, crop="none", flip=False),
                verification=Verification(data=str(data)),
                out=str(tmp_path / "out"),
            )
        ),
        Progress("test"),
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == [folder.name]
    audit, fidelity = report.audit, report.fidelity
    assert audit.float_operators == {}
    assert audit.requantizations == 0
    assert (audit.delegate_partitions, audit.undelegated_operators) == (1, {})
    assert fidelity.top1 is not None
    assert fidelity.top1 > 80
    assert fidelity.fake_quantized_agreement == 100
