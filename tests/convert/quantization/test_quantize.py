"""Shared ranges and fake quantization, against the converted file."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tf_keras as keras

from convert import export, keras_graph
from convert.calibration_data import Inputs
from convert.lowering import lower
from convert.quantization import quantize
from convert.quantization.int8_range import Range
from convert.quantization.tfmot_config import kernel_quantizer
from convert.settings import Estimator, Precision, Quantization
from convert.verification import runner, verify
from keras_models import registry
from keras_models.checkpoints.random_weights import randomize
from keras_models.images.decode import Preprocessing
from keras_models.layers import (
    ChannelShuffle,
    ChannelSlice,
    activate,
    average_pool,
    batch_norm,
    conv,
    depthwise_conv,
    image_input,
    max_pool,
    squeeze_excite,
    stochastic_depth,
)

COMPUTE = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.Dense,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.Add,
)
ALIKE = [  # mean and std, equal for all channels
    (127.5, 127.5),
    (0.0, 1.0),
    (0.0, 255.0),
    (128.0, 128.0),
    (127.3, 64.0),
    (127.7, 64.0),
]
IMAGENET = Preprocessing((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
PER_CHANNEL = [
    IMAGENET,
    Preprocessing((103.53, 116.28, 123.675), (57.375, 57.12, 58.395), channel_order="bgr"),
    Preprocessing((0.4, 127.5, 254.6), (50.0, 60.0, 70.0)),
    Preprocessing((127.5, 120.0, 100.3), (127.5, 127.5, 127.5)),
]


@pytest.fixture(
    scope="module", params=[("torchvision", "imagenet"), ("megvii", "cifar")], ids=lambda p: p[0]
)
def shufflenet_v2(request: pytest.FixtureRequest) -> Any:
    variant, stem = request.param
    return lower(
        registry.create(
            "shufflenet_v2",
            width=0.5,
            variant=variant,
            stem=stem,
            input_shape=(32, 32, 3),
            num_classes=10,
        )
    )


def computed_in(model: Any) -> dict[str, set[str]]:
    """Layer name -> the layers whose values it gives."""

    def step(layer: Any, read: list[set[str]]) -> set[str]:
        computes = isinstance(layer, COMPUTE) or not read
        return {layer.name} if computes else set.union(*read)

    return keras_graph.interpret(model, step)


def input_tensor(preprocessing: Preprocessing, dtype: str) -> runner.IoTensor:
    """The file's input, with the scale and zero point that TFLite gives to that range."""
    range_ = quantize.input_range(preprocessing)
    scale = (range_.high - range_.low) / 255
    lowest = -128 if dtype == "int8" else 0
    zero_point = lowest - round(range_.low / scale)
    return runner.IoTensor("image", 0, dtype, (1, 256, 1, 3), float(np.float32(scale)), zero_point)


def all_pixels() -> np.ndarray:
    return np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 256, 1, 3)


def test_every_computing_layer_is_in_exactly_one_group(shufflenet_v2: Any) -> None:
    groups = quantize.shared_ranges(shufflenet_v2)
    grouped = Counter(name for group in groups for name in group)
    computing = [layer.name for layer in shufflenet_v2.layers if isinstance(layer, COMPUTE)]
    assert grouped == Counter([*computing, shufflenet_v2.input_names[0]])


def test_all_that_meets_in_a_concat_shares_a_group(shufflenet_v2: Any) -> None:
    group_of = {
        name: i for i, group in enumerate(quantize.shared_ranges(shufflenet_v2)) for name in group
    }
    met = [
        names
        for name, names in computed_in(shufflenet_v2).items()
        if isinstance(shufflenet_v2.get_layer(name), keras.layers.Concatenate)
    ]
    assert len(met) >= 16  # one a unit, more where more than five meet
    for names in met:
        assert len({group_of[name] for name in names}) == 1


def test_what_meets_shares_a_range_within_a_stage_alone(shufflenet_v2: Any) -> None:
    shared = [group for group in quantize.shared_ranges(shufflenet_v2) if len(group) > 1]
    stages = [{name.partition("_")[0] for name in group} for group in shared]
    assert all(len(names) == 1 for names in stages)
    assert set().union(*stages) == {"stage2", "stage3", "stage4"}
    assert all("_project" in name for group in shared for name in group)
    for stage, units in (("stage2", 5), ("stage3", 9), ("stage4", 5)):
        longest = max((g for g in shared if g[0].startswith(stage)), key=len)
        # one a unit, two in the first: the channels that live until the end of the stage
        assert len({name.rpartition("_project")[0] for name in longest}) == units


def test_a_chain_shares_no_range() -> None:
    model = lower(registry.create("mobilenet_v1", width=0.25, input_shape=(32, 32, 3)))
    groups = quantize.shared_ranges(model)
    assert all(len(group) == 1 for group in groups)
    assert len(groups) == 1 + 27 + 2  # the input, convolutions, pooling and classifier


def test_groups_that_meet_in_a_later_concat_become_one() -> None:
    inputs = keras.Input((4, 4, 2), name="image")
    a, b, c, d = (keras.layers.Conv2D(2, 1, name=name)(inputs) for name in "abcd")
    ab = keras.layers.Concatenate(name="ab")([a, b])
    cd = keras.layers.Concatenate(name="cd")([c, d])
    joined = keras.layers.Concatenate(name="joined")([ChannelShuffle(2)(cd), ab])
    out = keras.layers.Conv2D(1, 1, name="out")(ChannelSlice(0, 3)(joined))
    groups = quantize.shared_ranges(keras.Model(inputs, out))
    assert sorted(map(sorted, groups)) == [["a", "b", "c", "d"], ["image"], ["out"]]


@pytest.mark.parametrize(("mean", "std"), ALIKE)
@pytest.mark.parametrize(("dtype", "offset"), [("int8", 128), ("uint8", 0)])
def test_a_pixel_is_a_step_where_all_channels_are_alike(
    mean: float, std: float, dtype: str, offset: int
) -> None:
    preprocessing = Preprocessing((mean,) * 3, (std,) * 3)
    x = preprocessing.to_input(all_pixels())
    stored = runner.quantize(x, input_tensor(preprocessing, dtype))
    assert stored.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(stored.astype(int), all_pixels().astype(int) - offset)


@pytest.mark.parametrize("preprocessing", PER_CHANNEL)
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_channels_of_their_own_lose_half_a_step_at_most(
    preprocessing: Preprocessing, dtype: str
) -> None:
    range_ = quantize.input_range(preprocessing)
    tensor = input_tensor(preprocessing, dtype)
    step = (range_.high - range_.low) / 255
    assert range_.low / step == pytest.approx(round(range_.low / step), abs=1e-9), "zero is a step"
    limits = np.iinfo(dtype)
    assert limits.min <= tensor.zero_point <= limits.max
    x = preprocessing.to_input(all_pixels())
    low, high = preprocessing.input_range
    assert (x.min(), x.max()) == pytest.approx((low, high))
    found = (runner.quantize(x, tensor).astype(int) - tensor.zero_point) * tensor.scale
    assert np.abs(found - x).max() <= (0.5 + 2e-3) * step  # verify rounds down from x.499


def test_rounded_outputs_are_steps_of_their_ranges(small: Any) -> None:
    ranges = quantize.choose_ranges(
        small.deployed, small.calibration, Estimator.MSE, small.calibration.preprocessing
    )
    fake = quantize.fake_quantize(small.deployed, ranges)
    probe = keras.Model(fake.inputs, [fake.get_layer(_wrapped(name)).output for name in ranges])
    for (name, range_), values in zip(
        ranges.items(), probe(next(small.calibration.batches(8)), training=False), strict=True
    ):
        step = (range_.high - range_.low) / 255
        steps = values.numpy().astype(np.float64) / step
        np.testing.assert_allclose(steps, np.round(steps), atol=2e-3, err_msg=name)
        zero = round(-range_.low / step)
        assert steps.min() > -zero - 0.01
        assert steps.max() < 255 - zero + 0.01
        assert len(np.unique(np.round(steps))) > 25, f"{name}: few steps are used"


def _wrapped(name: str) -> str:
    return "image_quantize" if name == "image" else name


def test_fake_quantization_rounds_each_layer_as_numpy_does(small: Any) -> None:
    ranges = {
        "image": Range(-0.5, 0.9),
        "conv1": Range(-0.21, 1.5),
        "conv2": Range(0.0, 4.0),
        "classifier": Range(-1.0, 0.6),
    }
    fake = quantize.fake_quantize(small.deployed, ranges)
    x = next(small.calibration.batches(8))

    def step(layer: Any, values: list[np.ndarray]) -> np.ndarray:
        """The deployed network in float, rounded where a range is given."""
        y = layer(values if len(values) > 1 else values[0]).numpy() if values else x
        if layer.name not in ranges:
            return y
        range_ = ranges[layer.name]
        size = (range_.high - range_.low) / 255
        zero = np.round(-range_.low / size)
        return ((np.clip(np.round(y / size) + zero, 0, 255) - zero) * size).astype(np.float32)

    expected = keras_graph.interpret(small.deployed, step)["classifier"]
    step_size = 1.6 / 255
    # a value on the edge between two steps may fall to either side, and move what follows
    difference = np.abs(fake(x, training=False).numpy() - expected) / step_size
    assert difference.max() < 1.5
    assert np.mean(difference < 0.5) > 0.95


def test_fake_quantization_rounds_no_weights_and_keeps_the_network_fed(small: Any) -> None:
    before = [w.copy() for w in small.deployed.get_weights()]
    fake = quantize.fake_quantize(
        small.deployed, {"image": Range(-1.0, 1.0), "conv1": Range(0.0, 1.0)}
    )
    for layer in small.deployed.layers:
        for ours, theirs in zip(
            layer.get_weights(), fake.get_layer(layer.name).trainable_weights, strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
    fake.set_weights([np.zeros_like(w) for w in fake.get_weights()])
    for ours, theirs in zip(before, small.deployed.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture(scope="module")
def gated(pictures: Callable[..., np.ndarray]) -> tuple[Any, Any, Inputs]:
    """A network with all that needs more than convolutions, its deployment form, its inputs."""
    inputs = x = image_input((64, 64, 3), total_stride=8)
    x = conv_bn(x, 8, kernel=3, strides=2, padding="symmetric", name="conv1")
    x = activate(x, "hard_swish", name="conv1")
    x = activate(x, "relu", name="positive")
    x = max_pool(x, padding="symmetric", name="max_pool")
    shortcut = average_pool(x, padding="symmetric", name="pool")
    x = activate(conv_bn(x, 12, groups=2, name="reduce"), "relu", name="reduce")
    x = depthwise_conv(x, strides=2, padding="symmetric", name="depthwise")
    x = conv_bn(x, 16, groups=2, name="expand")
    x = keras.layers.Concatenate(name="concat")([shortcut, x])
    x = branch = activate(x, "relu", name="concat")
    x = activate(conv_bn(x, 24, name="swished"), "swish", name="swished")
    x = squeeze_excite(x, 8, gate="hard_sigmoid", name="hard")
    x = squeeze_excite(x, 8, activation="swish", name="soft")
    x = stochastic_depth(conv_bn(x, 24, name="linear"), 0.2, name="linear")
    x = activate(keras.layers.Add(name="add")([branch, x]), "relu", name="add")
    x = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
    x = activate(keras.layers.Dense(20, name="fc1")(x), "hard_swish", name="fc1")
    model = keras.Model(inputs, keras.layers.Dense(10, name="classifier")(x), name="gated")
    randomize(model, seed=0)
    calibration = Inputs("toy", pictures(12, 64, seed=1), Preprocessing())
    return model, lower(model, integer=True), calibration


def conv_bn(x: Any, filters: int, *, name: str, **options: Any) -> Any:
    x = conv(x, filters, name=name, **options)
    return batch_norm(x, epsilon=1e-3, momentum=0.9, name=name)


@pytest.mark.parametrize("per_channel", [True, False])
def test_every_activation_and_padding_is_int8_in_one_partition(
    gated: tuple[Any, Any, Inputs], per_channel: bool
) -> None:
    model, deployed, inputs = gated
    settings = Quantization(precision=Precision.INT8, per_channel=per_channel)
    calibrated = quantize.calibrate(deployed, inputs, settings, Preprocessing())
    ready = quantize.fake_quantize(calibrated.rounded, calibrated.ranges, per_channel=per_channel)
    data = export.to_tflite(ready, settings, None)
    audit = verify.audit(data)
    assert audit.float_operators == {}
    assert audit.requantizations == 0
    assert (audit.delegate_partitions, audit.undelegated_operators) == (1, {})
    assert not audit.operators.keys() & {"RELU", "MINIMUM", "HARD_SWISH", "AVERAGE_POOL_2D"}
    fidelity = verify.fidelity(data, model, calibrated.deployed, inputs)
    assert fidelity.sqnr_db > 30
    assert fidelity.layers[0].sqnr_db > 24


def test_a_relu_that_reads_a_layer_alone_has_the_range_in_its_place(
    gated: tuple[Any, Any, Inputs],
) -> None:
    _, deployed, inputs = gated
    found = quantize.choose_ranges(deployed, inputs, Estimator.MSE, Preprocessing())
    for clipped, relu, high in (
        ("add", "add_relu", np.inf),
        ("hard_se_expand", "hard_se_expand_hard_sigmoid", 1.0),
        ("conv1_hard_swish_scale", "conv1_hard_swish_gate", 1.0),
        ("conv1_hard_swish", "positive_relu", np.inf),
    ):
        assert clipped not in found
        assert found[relu].low == 0
        assert 0 < found[relu].high <= high


def test_a_sigmoid_has_the_range_that_tflite_prescribes(gated: tuple[Any, Any, Inputs]) -> None:
    _, deployed, inputs = gated
    found = quantize.choose_ranges(deployed, inputs, Estimator.MSE, Preprocessing())
    for name in ("swished_swish_gate", "soft_se_reduce_swish_gate", "soft_se_expand_sigmoid"):
        assert found[name] == Range(0.0, 255 / 256)


def with_logits(scale: float) -> tuple[Any, np.ndarray]:
    """A network whose logits are `scale` times the layer before them, and pictures for it."""
    inputs = keras.Input((1, 1, 3), name="image")
    hidden = keras.layers.Dense(50, name="hidden")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(50, name="logits")(hidden))
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 50))
    model.set_weights([kernel, np.zeros(50), scale * np.eye(50), np.zeros(50)])
    return model, np.clip(rng.normal(127.5, 40, (1000, 1, 1, 3)), 0, 255).astype(np.uint8)


def test_logits_keep_all_of_their_values_where_other_layers_are_clipped() -> None:
    model, pictures = with_logits(1.0)
    logits = model(Preprocessing().to_input(pictures)).numpy()
    found = quantize.choose_ranges(
        model, Inputs("test", pictures, Preprocessing()), Estimator.PERCENTILE, Preprocessing()
    )
    assert (found["logits"].low, found["logits"].high) == (logits.min(), logits.max())
    assert logits.min() < found["hidden"].low
    assert found["hidden"].high < logits.max()


@pytest.mark.parametrize(("scale", "least", "most"), [(1.0, 2, 2), (5.0, 1.05, 1.95), (60.0, 1, 1)])
def test_logits_of_undecided_synthetic_inputs_leave_room_for_a_class_that_is_certain(
    scale: float, least: float, most: float
) -> None:
    model, pictures = with_logits(scale)
    values = Preprocessing().to_input(pictures)
    found = quantize.choose_ranges(model, Inputs("made", values), Estimator.MSE, Preprocessing())
    logits = np.sort(model(values).numpy().astype(np.float64), axis=1)
    assert found["logits"].low == pytest.approx(logits.min())
    headroom = found["logits"].high / logits.max()
    assert least - 1e-6 <= headroom <= most + 1e-6
    if least < most:
        undecided = np.exp(logits[:, :-1]).sum(axis=1).max()  # of the classes beside the best
        certain = np.exp(found["logits"].high)
        assert certain / (certain + undecided) == pytest.approx(0.9999, abs=1e-6)


def test_ranges_are_those_of_each_layers_values(small: Any) -> None:
    inputs = small.calibration
    ranges = quantize.choose_ranges(small.deployed, inputs, Estimator.MINMAX, inputs.preprocessing)
    assert ranges["image"] == quantize.input_range(inputs.preprocessing)
    assert ranges["conv1"] == ranges["project"]  # they meet in the concat
    x = np.concatenate(list(inputs.batches(8)))
    alone = {name: [name] for name in ("expand", "depthwise", "conv2")}
    for name, sources in {**alone, "conv1": ["conv1", "project"]}.items():
        outputs = [small.deployed.get_layer(source).output for source in sources]
        values = [np.ravel(y) for y in keras.Model(small.deployed.inputs, [outputs])(x)[0]]
        expected = (min(np.min(np.concatenate(values)), 0), max(np.max(np.concatenate(values)), 0))
        assert (ranges[name].low, ranges[name].high) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.FLOAT16, Precision.DYNAMIC])
def test_float_activations_need_no_calibration(small: Any, precision: Precision) -> None:
    settings = Quantization(precision=precision)
    assert quantize.apply(small.deployed, None, settings, Preprocessing()) is small.deployed


def test_int16_rounds_weights_and_leaves_ranges_to_the_converter(small: Any) -> None:
    settings = Quantization(precision=Precision.INT16X8)
    found = quantize.apply(small.deployed, small.calibration, settings, Preprocessing())
    assert [layer.name for layer in found.layers] == [layer.name for layer in small.deployed.layers]
    for layer in found.layers:
        if layer.get_weights():
            kernel, bias = layer.get_weights()
            original = small.deployed.get_layer(layer.name).get_weights()
            step = kernel_quantizer(layer, per_channel=True).step(original[0]).numpy()
            np.testing.assert_allclose(kernel / step, np.rint(kernel / step), atol=1e-4)
            assert not np.array_equal(bias, original[1])


def test_a_shallow_network_keeps_its_logits_in_int8(
    small: Any, pictures: Callable[..., np.ndarray]
) -> None:
    fresh = Inputs("fresh", pictures(40, 16, seed=9), Preprocessing())
    x = np.concatenate(list(fresh.batches(8)))
    expected = small.model(x, training=False).numpy()
    found = verify.sqnr_db(expected, small.fake_quantized(x, training=False).numpy())
    assert found > 25  # 8 bits of a tensor that uses them all: 40 dB and more, for each layer
