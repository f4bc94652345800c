"""Automatic mixed precision: finds layers to compute in float32 until the file passes its gates.

The quantization noise of a layer does not predict its effect on the logits: noise of the first
layers grows on its way, that of the last does not. So the first layers, which are also small, are
tried before all others, and each layer is tried in the file itself.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import numpy as np
import tf_keras as keras

from convert import keras_graph
from convert.calibration_data import Inputs
from convert.quantization import mixed_precision
from convert.quantization.mixed_precision import LayerOverride, MixedPrecision
from convert.settings import ConversionSettings, Verification
from convert.verification import gates, runner, verify
from keras_models import counts

SAMPLES = 64  # inputs that a layer is tried on
FIRST_LAYERS = 3  # of the network, tried before all others: a convolution and a separable one
FIRST_ROUND = 100  # layers tried in the first round, starting at the network's input
PROMISING = 8  # best layers of the first round, tried again with the neighbours of float32 layers
MAX_LAYERS = 8  # that are searched for, beyond the first ones


def apply(
    data: bytes,
    model: keras.Model,
    deployed: keras.Model,
    overrides: Mapping[str, str],
    inputs: Inputs,
    settings: ConversionSettings,
    on_step: Callable[[int, int], None],
) -> tuple[bytes, MixedPrecision]:
    """Returns an int8 file with some layers at higher precision: those chosen and those found.

    Args:
      data: The full-int8 file.
      model: The float network.
      deployed: Its deployment form, with the weights to use in float32.
      overrides: The layers that the user chose -> their dtypes.
      inputs: Inputs that the file is verified on.
      settings: The limits, and whether to search for layers.
      on_step: Called with the number of layers found and the maximum.
    """
    operators = mixed_precision.operators_of(data, deployed, mixed_precision.layers(deployed))
    layers = dict(overrides)
    gains: dict[str, float] = {}
    if settings.quantization.auto_precision:
        expected = verify.logits(model, inputs)
        gains = find(data, deployed, overrides, expected, inputs, settings.verification, on_step)
        layers |= dict.fromkeys(gains, "float32")
    changed = mixed_precision.apply(data, deployed, layers)
    before, after = verify.audit(data), verify.audit(changed)
    multiply_adds = {layer.name: layer.multiply_adds for layer in counts.count(deployed)}
    in_float = sum(
        multiply_adds[operators[name].layer] for name, dtype in layers.items() if dtype == "float32"
    )
    return changed, MixedPrecision(
        tuple(
            LayerOverride(name, operators[name].type, dtype, gains.get(name))
            for name, dtype in layers.items()
        ),
        sum(after.operators.values()) - sum(before.operators.values()),
        after.delegate_partitions - before.delegate_partitions,
        after.size_bytes - before.size_bytes,
        100 * in_float / sum(multiply_adds.values()),
    )


def find(
    data: bytes,
    deployed: keras.Model,
    overrides: Mapping[str, str],
    expected: np.ndarray,
    inputs: Inputs,
    limits: Verification,
    on_step: Callable[[int, int], None],
) -> dict[str, float]:
    """Finds layers until every limit is reached.

    The first layers come first, in the network's order, as far as they gain together; then the
    layer with the largest gain, again and again.

    Returns layer -> its gain in signal to quantization noise of the logits, in decibels, beyond the
    layers before it: some layers gain only together. If the limits cannot be reached, returns the
    layers that come closest.

    Args:
      data: The full-int8 file.
      deployed: Its deployment form.
      overrides: Layers that are at higher precision already -> their dtypes.
      expected: The float network's logits for `inputs`, (inputs, classes).
      inputs: Inputs that the file is verified on.
      limits: The limits.
      on_step: Called with the number of layers found and the maximum.
    """
    sample = replace(inputs, values=inputs.values[:SAMPLES], labels=None)
    neighbours = _neighbours(
        deployed, mixed_precision.operators_of(data, deployed, mixed_precision.layers(deployed))
    )
    others = [name for name in neighbours if name not in overrides]

    def with_float(names: Collection[str]) -> bytes:
        layers = {**overrides, **dict.fromkeys(names, "float32")}
        return mixed_precision.apply(data, deployed, layers)

    def sqnr_db(names: Collection[str]) -> float:
        logits = np.stack(list(runner.run(with_float(names), sample)))
        return verify.sqnr_db(expected[:SAMPLES], logits)

    def passes(names: Collection[str]) -> bool:
        on_step(len(names), FIRST_LAYERS + MAX_LAYERS)
        logits = np.stack(list(runner.run(with_float(names), inputs)))
        fidelity = verify.compare_logits(expected, logits, inputs.labels)
        return all(gate.passed for gate in gates.check(fidelity, limits))

    found: list[str] = []
    levels = [sqnr_db(found)]
    passed = passes(found)
    for name in others[:FIRST_LAYERS]:
        if passed:
            break
        found.append(name)
        levels.append(sqnr_db(found))
        passed = passes(found)
    if not passed:
        found = found[: int(np.argmax(levels))]
    limit = len(found) + MAX_LAYERS
    promising: list[str] = []
    candidates = [name for name in others[:FIRST_ROUND] if name not in found]
    while not passed and candidates and len(found) < limit:
        levels = levels[: len(found) + 1]
        tried = {name: sqnr_db([*found, name]) for name in candidates}
        best = max(tried, key=lambda name: tried[name])
        if not promising:
            promising = sorted(tried, key=lambda name: -tried[name])[:PROMISING]
        found.append(best)
        levels.append(tried[best])
        passed = passes(found)
        nearby = {*promising, *(n for name in [*overrides, *found] for n in neighbours[name])}
        candidates = [name for name in others if name in nearby and name not in found]
    if not passed:
        found = found[: int(np.argmax(levels))]
    return dict(zip(found, np.diff(levels).tolist(), strict=False))


def _neighbours(deployed: keras.Model, names: Collection[str]) -> dict[str, set[str]]:
    """Each of these layers, in the network's order -> those directly before and behind it."""
    neighbours: dict[str, set[str]] = {}

    def visit(layer: keras.layers.Layer, inputs: list[set[str]]) -> set[str]:
        before = set().union(*inputs)
        if layer.name not in names:
            return before
        neighbours[layer.name] = before
        for name in before:
            neighbours[name].add(layer.name)
        return {layer.name}

    keras_graph.interpret(deployed, visit)
    return neighbours
