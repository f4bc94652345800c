"""Models as graphs: sources, order, copies."""

from typing import Any

import numpy as np
import pytest
import tf_keras as keras

from convert import keras_graph


@pytest.fixture
def branching() -> Any:
    """image -> a -> b -> joined and a -> joined, read twice; `b` comes first in the join."""
    inputs = keras.Input((4, 4, 2), name="image")
    a = keras.layers.Conv2D(3, 1, name="a")(inputs)
    b = keras.layers.Conv2D(3, 3, padding="same", name="b")(a)
    joined = keras.layers.Concatenate(name="joined")([b, a])
    added = keras.layers.Add(name="added")([joined, joined])
    return keras.Model(inputs, added)


def test_sources_are_the_layers_read_in_the_order_of_the_arguments(branching: Any) -> None:
    assert keras_graph.sources(branching) == {
        "image": [],
        "a": ["image"],
        "b": ["a"],
        "joined": ["b", "a"],
        "added": ["joined", "joined"],
    }


def test_interpret_visits_each_layer_once_after_what_it_reads(branching: Any) -> None:
    visited: list[str] = []

    def step(layer: Any, values: list[str]) -> str:
        visited.append(layer.name)
        return f"{layer.name}({', '.join(values)})"

    values = keras_graph.interpret(branching, step)
    assert values["added"] == "added({0}, {0})".format("joined(b(a(image())), a(image()))")
    assert sorted(visited) == ["a", "added", "b", "image", "joined"]


def test_interpret_with_the_layers_themselves_is_the_model(branching: Any) -> None:
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype(np.float32)

    def step(layer: Any, values: list[Any]) -> Any:
        return layer(values if len(values) > 1 else values[0]) if values else x

    np.testing.assert_array_equal(keras_graph.interpret(branching, step)["added"], branching(x))


def test_a_graph_of_copies_computes_the_same_from_weights_of_its_own(branching: Any) -> None:
    def step(layer: Any, values: list[Any]) -> Any:
        if not values:
            return keras.Input(layer.input_shape[0][1:], name=layer.name)
        clone = keras_graph.clone(layer, type(layer), layer.get_config())
        return clone(values if len(values) > 1 else values[0])

    values = keras_graph.interpret(branching, step)
    copy = keras.Model(values["image"], values["added"])
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype(np.float32)
    expected = branching(x).numpy()
    np.testing.assert_array_equal(copy(x), expected)
    branching.get_layer("a").set_weights(
        [np.zeros_like(w) for w in branching.get_layer("a").get_weights()]
    )
    np.testing.assert_array_equal(copy(x), expected)
