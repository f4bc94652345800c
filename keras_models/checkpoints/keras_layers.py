"""The layers of a Keras model, from the description in its file; nothing of it is built or run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shufflelite.display import one_line


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer or operation.

    Attributes:
      kind: Its class; of an operation such as `x / 127.5` its name, "truediv".
      name: In the file.
      config: As Keras describes it.
      operands: What it is called with: layers, and numbers as arrays.
    """

    kind: str
    name: str
    config: Mapping[str, Any]
    operands: tuple["Layer | np.ndarray", ...] = ()

    @property
    def inputs(self) -> list["Layer"]:
        """Those of `operands` that are layers."""
        return [operand for operand in self.operands if isinstance(operand, Layer)]


def read(model: Mapping[str, Any]) -> list[Layer]:
    """Lists the layers of a model and of the models within it, each behind its inputs.

    The last is the model's output.  Keras 2 describes calls in lists, Keras 3 in dicts.

    Raises:
      Exception: of any kind; the description is not one of Keras'.
    """
    layers: list[Layer] = []
    output = _call(model, (), layers)
    return [*(layer for layer in layers if layer is not output), output]


def numbers(value: object) -> np.ndarray:
    """Returns a number, or a list or array of numbers, as Keras describes them."""
    if isinstance(value, Mapping):
        value = value["config"]["value"]
    return np.asarray(value, np.float64)


def _call(
    described: Mapping[str, Any], operands: Sequence[Layer | np.ndarray], layers: list[Layer]
) -> Layer:
    config = described["config"]
    inner = config if isinstance(config, list) else config.get("layers")
    if isinstance(inner, list):
        return _model(config, inner, operands, layers)
    kind = described["class_name"]
    if kind == "TFOpLambda":
        kind = config["function"].rpartition(".")[2]
    if not isinstance(config, Mapping):
        raise TypeError("a layer without configuration")
    layers.append(Layer(one_line(kind), one_line(config["name"]), config, tuple(operands)))
    return layers[-1]


def _model(
    config: Any,
    inner: list[Mapping[str, Any]],
    operands: Sequence[Layer | np.ndarray],
    layers: list[Layer],
) -> Layer:
    given = [operand for operand in operands if isinstance(operand, Layer)]
    is_functional = isinstance(config, Mapping) and "output_layers" in config
    outputs: dict[str, Layer] = {}
    output = given[0] if given else None
    for described in inner:
        name = described["config"]["name"]
        if described["class_name"] == "InputLayer" and given:
            output = given.pop(0)
        elif is_functional:
            output = _call(described, [*_operands(described["inbound_nodes"], outputs)], layers)
        else:
            output = _call(described, () if output is None else (output,), layers)
        outputs[name] = output
    if is_functional:
        ends = config["output_layers"]  # [["name", 0, 0]]; in Keras 3 ["name", 0, 0]
        output = outputs[ends[0] if isinstance(ends[0], str) else ends[0][0]]
    assert isinstance(output, Layer)
    return output


def _operands(call: object, outputs: Mapping[str, Layer]) -> Iterator[Layer | np.ndarray]:
    if isinstance(call, Mapping):
        if call.get("class_name") == "__keras_tensor__":
            yield outputs[call["config"]["keras_history"][0]]
        elif "class_name" in call:
            yield numbers(call)
        else:
            for value in call.values():
                yield from _operands(value, outputs)
    elif isinstance(call, list):
        match call:
            case ["_CONSTANT_VALUE", _, value, *rest]:
                yield numbers(value)
                yield from _operands(rest, outputs)
            case [str(name), int(), int(), *rest]:
                yield outputs[name]
                yield from _operands(rest, outputs)
            case [_, *_] if all(isinstance(value, (int, float)) for value in call):
                yield numbers(call)
            case _:
                for value in call:
                    yield from _operands(value, outputs)
    elif isinstance(call, (int, float)) and not isinstance(call, bool):
        yield numbers(call)
