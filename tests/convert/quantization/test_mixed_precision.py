"""Layers at higher precision: which, what they gain, and what they cost."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from convert import auto_mixed_precision, autotune, export
from convert.calibration_data import Inputs
from convert.context import Context
from convert.quantization import mixed_precision, quantize
from convert.quantization.tfmot_config import quantized_kernel
from convert.settings import (
    ConversionSettings,
    Lowering,
    Model,
    Precision,
    Quantization,
    Verification,
)
from convert.tflite_model import TfliteModel, override_precision
from convert.verification import gates, runner, verify
from keras_models.counts import count
from keras_models.images.decode import Preprocessing
from shufflelite.errors import InputError
from shufflelite.progress import Progress
from tflite_file.model import read_operators

INT8 = Quantization(precision=Precision.INT8)
KINDS = ["conv1", "depthwise", "reduce", "global_pool", "classifier"]


class Opened:
    """A file whose tensors can be read, by the name of the layer that gives them."""

    def __init__(self, data: bytes) -> None:
        self.file = Interpreter(
            model_content=data,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        self.file.allocate_tensors()
        self.source = verify.audit(data).input
        self.details = {tensor["index"]: tensor for tensor in self.file.get_tensor_details()}
        self.given: dict[str, dict[str, int]] = {}  # layer: dtype: tensor
        for operator in self.file._get_ops_details():
            tensor = self.details[operator["outputs"][0]]
            for layer in tensor["name"].split(";")[0].split("/")[1:2]:
                self.given.setdefault(layer, {})[np.dtype(tensor["dtype"]).name] = tensor["index"]

    def run(self, x: np.ndarray) -> None:
        self.file.set_tensor(self.source.index, runner.quantize(x, self.source))
        self.file.invoke()

    def step(self, layer: str, dtype: str = "int8") -> float:
        return float(self.details[self.given[layer][dtype]]["quantization"][0])

    def values(self, layer: str, dtype: str = "int8") -> np.ndarray:
        """The real values that a layer gives, in one of the dtypes in which it gives them."""
        if layer == "image":
            index, (scale, zero) = self.source.index, (self.source.scale, self.source.zero_point)
        else:
            index = self.given[layer][dtype]
            scale, zero = self.details[index]["quantization"]
        values = self.file.get_tensor(index).astype(np.float64)
        return (values - zero) * scale if scale else values


def keep(toy: Any, dtypes: Mapping[str, str]) -> bytes:
    return mixed_precision.apply(toy.int8, toy.deployed, dtypes)


@pytest.mark.parametrize("name", KINDS)
def test_a_layer_kept_in_float_gives_what_keras_gives_on_what_the_file_has(
    small: Any, name: str
) -> None:
    data = keep(small, {name: "float32"})
    layer = small.deployed.get_layer(name)
    opened = Opened(data)
    before = layer.input.node.layer.name
    for x in list(small.calibration.batches(1))[:3]:
        opened.run(x)
        given = layer(opened.values(before).astype(np.float32)).numpy()
        np.testing.assert_allclose(opened.values(name, "float32"), given, rtol=1e-4, atol=1e-5)
        steps = np.abs(opened.values(name) - given) / opened.step(name)
        clipped = given > opened.values(name).max()  # beyond the range that was found
        assert np.all((steps < 0.51) | clipped)


def test_just_the_kept_layers_compute_in_float_and_in_one_partition(small: Any) -> None:
    data = keep(small, {"expand": "float32", "depthwise": "float32", "conv2": "float32"})
    audit = verify.audit(data)
    assert audit.float_operators == {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 1}
    assert (audit.operators["DEQUANTIZE"], audit.operators["QUANTIZE"]) == (2, 2)
    assert (audit.delegate_partitions, audit.undelegated_operators) == (1, {})
    gates.require(audit, INT8, ["CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D"])
    with pytest.raises(RuntimeError, match="CONV_2D computes in float32 2 times, not 1"):
        gates.require(audit, INT8, ["CONV_2D", "DEPTHWISE_CONV_2D"])
    with pytest.raises(RuntimeError, match="MEAN computes in float32 0 times, not 1"):
        gates.require(audit, INT8, ["CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "MEAN"])


def test_the_float_layers_that_follow_each_other_round_nothing_between_them(small: Any) -> None:
    opened = Opened(keep(small, {"expand": "float32", "depthwise": "float32"}))
    expand, depthwise = (small.deployed.get_layer(name) for name in ("expand", "depthwise"))
    x = next(small.calibration.batches(1))
    opened.run(x)
    read = opened.values(expand.input.node.layer.name).astype(np.float32)
    np.testing.assert_allclose(
        opened.values("depthwise", "float32"), depthwise(expand(read)), rtol=1e-4, atol=1e-5
    )
    assert "int8" not in opened.given["expand"]


def test_layers_with_int16_hand_on_256_times_finer_steps(small: Any) -> None:
    """The same rounded weights as in int8, and all but unrounded values between the layers."""
    data = keep(small, {"expand": "int16", "depthwise": "int16"})
    opened = Opened(data)
    plain = Opened(small.int8)
    assert plain.step("expand") / opened.step("expand", "int16") == pytest.approx(
        32767 / 255,
        rel=0.01,  # around zero: of values that are not negative, half are left
    )
    expand, depthwise = (small.rounded.get_layer(name) for name in ("expand", "depthwise"))
    for layer in (expand, depthwise):
        kernel, bias = layer.get_weights()
        copy = type(layer).from_config(layer.get_config())
        copy.build(layer.input_shape)
        copy.set_weights([quantized_kernel(kernel, layer, per_channel=True), bias])
        if layer is expand:
            first = copy
    x = next(small.calibration.batches(1))
    opened.run(x)
    read = opened.values(expand.input.node.layer.name).astype(np.float32)
    between = first(read).numpy()
    largest = opened.step("expand", "int16") * 32767
    given = opened.values("expand", "int16")
    np.testing.assert_allclose(
        given, np.minimum(between, largest), atol=1.5 * opened.step("expand", "int16")
    )
    behind = copy(given.astype(np.float32)).numpy()
    steps = np.abs(opened.values("depthwise") - behind) / opened.step("depthwise")
    assert np.percentile(steps, 99) < 0.51
    types = [operator.dtypes for operator in read_operators(data)]
    assert types.count(("int16",)) == 3  # with the QUANTIZE before them
    assert verify.audit(data).float_operators == {}


@pytest.fixture(scope="module")
def branches(pictures: Callable[..., np.ndarray]) -> tuple[Any, bytes, Inputs]:
    """A sum that a ReLU clips, and a gate: deployment form, int8 file, inputs."""
    layers = keras.layers
    image = keras.Input((16, 16, 3), name="image")
    a, b = (layers.Conv2D(8, 3, 2, name=name)(image) for name in "ab")
    x = layers.ReLU(name="add_relu")(layers.Add(name="add")([a, b]))
    gate = layers.Activation("sigmoid", name="gate")(layers.Conv2D(8, 1, name="open")(x))
    x = layers.Conv2D(8, 1, name="c")(layers.Multiply(name="gated")([x, gate]))
    x = layers.Dense(4, name="fc")(layers.GlobalAveragePooling2D(name="pool")(x))
    model = keras.Model(image, x, name="branches")
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.4, w.shape) for w in model.get_weights()])
    inputs = Inputs("toy", pictures(12, 16, seed=1), Preprocessing())
    ready = quantize.apply(model, inputs, INT8, Preprocessing())
    return model, export.to_tflite(ready, INT8, None), inputs


def test_what_a_range_clips_stays_clipped_for_those_who_read_it_in_float(
    branches: tuple[Any, bytes, Inputs],
) -> None:
    model, data, inputs = branches
    names = ["add_relu", "open", "gated", "gate", "c"]
    changed = mixed_precision.apply(data, model, dict.fromkeys(names, "float32"))
    opened = Opened(changed)
    opened.run(next(inputs.batches(1)))
    clipped = opened.values("add")  # which the file has in the place of its ReLU
    assert clipped.min() == 0
    assert np.mean(clipped == 0) > 0.2
    opening = model.get_layer("open")(clipped.astype(np.float32)).numpy()
    np.testing.assert_allclose(opened.values("open", "float32"), opening, rtol=1e-4, atol=1e-5)
    gated = clipped / (1 + np.exp(-opening))
    np.testing.assert_allclose(opened.values("gated", "float32"), gated, rtol=1e-4, atol=1e-5)
    expected = np.concatenate([model(x, training=False).numpy() for x in inputs.batches()])
    assert verify.sqnr_db(expected, np.stack(list(runner.run(changed, inputs)))) > 35


def test_a_layer_without_an_int16_kernel_is_refused(branches: tuple[Any, bytes, Inputs]) -> None:
    model, data, _ = branches
    with pytest.raises(InputError, match="--int16 gate: TFLite has no int16 LOGISTIC"):
        mixed_precision.apply(data, model, {"gate": "int16"})


def test_patterns_choose_layers_by_name(small: Any) -> None:
    chosen = mixed_precision.choose(
        small.deployed, {"float32": ["conv*", "pro?ect"], "int16": ["reduce"]}
    )
    assert chosen == {
        "conv1": "float32",
        "conv2": "float32",
        "project": "float32",
        "reduce": "int16",
    }
    assert mixed_precision.choose(small.deployed, {"float32": [], "int16": []}) == {}
    assert set(mixed_precision.choose(small.deployed, {"int16": ["*"]})) == set(small.ranges) - {
        "image"
    }


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (
            {"float32": ["dephtwise"]},
            r"--keep_float to name layers, got 'dephtwise'.*: there are de",
        ),
        ({"int16": ["stage*"]}, r"--int16 to name layers, got 'stage\*', which none has"),
        ({"float32": ["image"]}, "got 'image', which none has"),
        ({"float32": ["conv1"], "int16": ["conv*"]}, "conv1: expected --keep_float or --int16"),
    ],
)
def test_a_name_that_no_layer_has_is_answered_with_those_there_are(
    small: Any, wanted: dict[str, list[str]], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        mixed_precision.choose(small.deployed, wanted)


def find(toy: Any, wanted: Verification, chosen: Mapping[str, str]) -> dict[str, float]:
    expected = verify.logits(toy.model, toy.calibration)
    return auto_mixed_precision.find(
        toy.int8, toy.deployed, chosen, expected, toy.calibration, wanted, lambda done, most: None
    )


def level(toy: Any, names: list[str], count: int) -> float:
    """The logits' signal to noise with those layers in float32, on the first few inputs."""
    inputs = Inputs("few", toy.calibration.values[:count], Preprocessing())
    file = keep(toy, dict.fromkeys(names, "float32"))
    expected = verify.logits(toy.model, inputs)
    return verify.sqnr_db(expected, np.stack(list(runner.run(file, inputs))))


def test_layers_are_found_until_the_limit_is_reached_and_no_further(small: Any) -> None:
    limit = level(small, [], len(small.calibration)) + 1.5
    gains = find(small, Verification(min_sqnr_db=limit), {})
    names = list(gains)
    assert 1 <= len(names) <= 4
    assert level(small, names, len(small.calibration)) >= limit
    assert level(small, names[:-1], len(small.calibration)) < limit
    for number, gain in enumerate(gains.values()):
        before, after = (
            level(small, names[: number + i], auto_mixed_precision.SAMPLES) for i in (0, 1)
        )
        assert gain == pytest.approx(after - before, abs=1e-6)


def test_a_limit_out_of_reach_leaves_the_best_there_is(small: Any) -> None:
    gains = find(small, Verification(min_sqnr_db=199.0), {"conv1": "float32"})
    assert "conv1" not in gains
    most = auto_mixed_precision.FIRST_LAYERS + auto_mixed_precision.MAX_LAYERS
    assert 1 <= len(gains) <= most
    names = ["conv1", *gains]
    reached = [
        level(small, names[:n], auto_mixed_precision.SAMPLES) for n in range(1, len(names) + 1)
    ]
    assert reached[-1] == max(reached)


def test_the_first_layers_are_tried_before_all_others(small: Any) -> None:
    order = ["conv1", "expand"]
    reached = [level(small, order[:n], len(small.calibration)) for n in range(3)]
    assert reached[2] > max(reached[:2])
    gains = find(small, Verification(min_sqnr_db=reached[2]), {})
    assert [*gains] == order


def test_first_layers_that_do_not_gain_are_left_out(
    small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search goes on from the best of them, with the layer that gains most."""
    samples = auto_mixed_precision.SAMPLES
    monkeypatch.setattr(auto_mixed_precision, "MAX_LAYERS", 1)
    names = [*find(small, Verification(min_sqnr_db=199.0), {})]
    monkeypatch.setattr(auto_mixed_precision, "FIRST_LAYERS", 0)
    (best,) = find(small, Verification(min_sqnr_db=199.0), {})
    single = {n: level(small, [n], samples) for n in set(small.ranges) - {"image"}}
    assert best == max(single, key=lambda name: single[name])
    assert level(small, names, samples) >= level(small, names[:-1], samples)


def test_a_limit_that_is_reached_already_asks_for_nothing(small: Any) -> None:
    assert find(small, Verification(min_sqnr_db=5.0, min_agreement=50.0), {}) == {}


@pytest.mark.parametrize("tune", [True, False])
def test_the_cost_is_counted_and_with_tune_measured_beside_the_full_int8_file(
    small: Any, tune: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[tuple[list[bytes], str]] = []

    def measure(files: Sequence[Path], target: str) -> list[float]:
        measured.append(([file.read_bytes() for file in files], target))
        return [1.0, 1.23456]

    monkeypatch.setattr(autotune, "measure", measure)
    lowering = Lowering(target="emulated:a53", tune=tune) if tune else Lowering()
    settings = ConversionSettings(Model("small"), INT8, lowering=lowering)
    context = Context(settings, SimpleNamespace(model=small.model), Progress("test"))
    before = TfliteModel(small.int8, Preprocessing(), small.deployed)
    after = override_precision(context, before, {"conv1": "float32"}, small.calibration)
    assert measured == ([([small.int8, after.data], "emulated:a53")] if tune else [])
    assert after.mixed is not None
    assert after.mixed.cost_ratio == (1.2346 if tune else None)
    assert after.mixed.size_bytes == len(after.data) - len(small.int8)
    assert after.mixed.size_bytes > 3 * 3 * 3 * 8 * 3  # weights of four bytes instead of one
    share = 8 * 8 * 3 * 3 * 3 * 8 / sum(layer.multiply_adds for layer in count(small.deployed))
    assert after.mixed.float_multiply_adds == pytest.approx(100 * share)
