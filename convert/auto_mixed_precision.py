"""Which layers of an int8 file to compute in float32, so that it reaches the user's limits.

A layer's own signal to noise does not tell what it costs the logits: noise from the first layers
grows on its way, that of the last does not.  So each layer is tried, in the file itself.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import numpy as np
import tf_keras as keras

from convert import keras_graph
from convert.calibration_data import Inputs
from convert.quantization import mixed_precision
from convert.quantization.mixed_precision import Mixed, Precise
from convert.settings import ConversionSettings, Verification
from convert.verification import gates, runner, verify

SAMPLES = 64  # inputs that a layer is tried on
FIRST = 100  # layers tried in the first round, from the network's input on
PROMISING = 8  # of them, that are tried again; beside the neighbours of those that are float32
MOST = 8  # layers


def apply(
    data: bytes,
    model: keras.Model,
    deployed: keras.Model,
    chosen: Mapping[str, str],
    inputs: Inputs,
    settings: ConversionSettings,
    on_step: Callable[[int, int], None],
) -> tuple[bytes, Mixed]:
    """Returns an int8 file with layers at higher precision: those chosen, and those found.

    Args:
      data: The file, int8 throughout.
      model: The float network.
      deployed: Its deployment form, with the weights that float32 is to have.
      chosen: The user's layers -> their dtypes.
      inputs: What the file is verified on.
      settings: The limits, and whether to look for layers.
      on_step: Called with the number of layers found and the most that may be.
    """
    operators = mixed_precision.operators_of(data, deployed, mixed_precision.layers(deployed))
    layers = dict(chosen)
    gains: dict[str, float] = {}
    if settings.quantization.auto_precision:
        expected = verify.logits(model, inputs)
        gains = find(data, deployed, chosen, expected, inputs, settings.verification, on_step)
        layers |= dict.fromkeys(gains, "float32")
    changed = mixed_precision.apply(data, deployed, layers)
    before, after = verify.audit(data), verify.audit(changed)
    return changed, Mixed(
        tuple(
            Precise(name, operators[name].type, dtype, gains.get(name))
            for name, dtype in layers.items()
        ),
        sum(after.operators.values()) - sum(before.operators.values()),
        after.delegate_partitions - before.delegate_partitions,
    )


def find(
    data: bytes,
    deployed: keras.Model,
    chosen: Mapping[str, str],
    expected: np.ndarray,
    inputs: Inputs,
    wanted: Verification,
    on_step: Callable[[int, int], None],
) -> dict[str, float]:
    """Finds layers, the one that gains most first, until every limit is reached.

    Returns what each gains of the logits' signal to noise, in decibels, on top of those before it:
    some gain only together.  Where the limits cannot be reached, as many as come nearest to them.

    Args:
      data: The file, int8 throughout.
      deployed: Its deployment form.
      chosen: Layers that are at higher precision already -> their dtypes.
      expected: The float network's logits of `inputs`, (inputs, classes).
      inputs: What the file is verified on.
      wanted: The limits.
      on_step: Called with the number of layers found and the most that may be.
    """
    sample = replace(inputs, values=inputs.values[:SAMPLES], labels=None)
    beside = _neighbours(
        deployed, mixed_precision.operators_of(data, deployed, mixed_precision.layers(deployed))
    )
    found: list[str] = []
    kept = dict(chosen)
    promising: list[str] = []

    def level(layers: Mapping[str, str]) -> float:
        file = mixed_precision.apply(data, deployed, layers)
        return verify.sqnr_db(expected[:SAMPLES], np.stack(list(runner.run(file, sample))))

    levels = [level(kept)]
    candidates = [name for name in beside if name not in kept][:FIRST]
    while candidates and len(found) < MOST:
        on_step(len(found), MOST)
        file = mixed_precision.apply(data, deployed, kept)
        logits = np.stack(list(runner.run(file, inputs)))
        fidelity = verify.compare_logits(expected, logits, inputs.labels)
        if all(gate.passed for gate in gates.check(fidelity, wanted)):
            break
        tried = {name: level({**kept, name: "float32"}) for name in candidates}
        best = max(tried, key=lambda name: tried[name])
        if not promising:
            promising = sorted(tried, key=lambda name: -tried[name])[:PROMISING]
        kept[best] = "float32"
        found.append(best)
        levels.append(tried[best])
        nearby = {*promising, *(n for name in kept for n in beside[name])}
        candidates = [name for name in beside if name in nearby and name not in kept]
    else:
        found = found[: int(np.argmax(levels))]
    return dict(zip(found, np.diff(levels).tolist(), strict=False))


def _neighbours(deployed: keras.Model, names: Collection[str]) -> dict[str, set[str]]:
    """Each of some layers, in the network's order -> those of them before and behind it."""
    beside: dict[str, set[str]] = {}

    def visit(layer: keras.layers.Layer, read: list[set[str]]) -> set[str]:
        before = set().union(*read)
        if layer.name not in names:
            return before
        beside[layer.name] = before
        for name in before:
            beside[name].add(layer.name)
        return {layer.name}

    keras_graph.interpret(deployed, visit)
    return beside
