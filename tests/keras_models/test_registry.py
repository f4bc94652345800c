"""Names, builders, defaults and published figures, without TensorFlow."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from keras_models import registry
from shufflelite.errors import InputError

ROOT = Path(__file__).parents[2]
DEEP = ("efficientnet_v2_l", "efficientnet_v2_m", "efficientnet_v2_xl")  # a minute to build and run


def test_names_are_sorted_and_match_shell_patterns() -> None:
    assert registry.names() == sorted(registry.MODELS)
    assert registry.names("shuffle*") == [n for n in registry.names() if n.startswith("shuffle")]
    assert registry.names("*_v2") != registry.names()
    assert registry.names("alex") == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shuflenet_v2", "Unknown model 'shuflenet_v2'. Did you mean 'shufflenet_v2'?"),
        ("MobileNetV1", "Unknown model 'MobileNetV1'. Did you mean 'mobilenet_v1'?"),
        ("yolo", f"Unknown model 'yolo'. Known: {', '.join(sorted(registry.MODELS))}."),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_or_all(name: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        registry.create(name)


def test_an_unknown_option_is_refused_with_the_known_ones() -> None:
    message = "mobilenet_v1 has no option 'groups'; it takes width, stem, padding, allow_any_width."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        registry.create("mobilenet_v1", width=0.25, groups=3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("shufflenet_v2", {"residual": "no"}, "'residual' to be true or false, got 'no'."),
        ("shufflenet_v2", {"squeeze_excite": "False"}, "'squeeze_excite' to be true or false, got"),
        ("shufflenet_v1", {"groups": 3.0}, "'groups' to be an integer, got 3.0."),
        ("shufflenet_v2", {"align": 16.0}, "'align' to be an integer, got 16.0."),
        ("mobilenet_v1", {"width": True}, "'width' to be a number, got True."),
        ("mobilenet_v1", {"width": "0.5"}, "'width' to be a number, got '0.5'."),
        ("mobilenet_v1", {"width": float("nan")}, "'width' to be a number, got nan."),
        ("mobilenet_v1", {"width": float("inf")}, "'width' to be a finite number, got inf."),
        ("mobilenet_v1", {"stem": 1}, "'stem' to be a string, got 1."),
        ("efficientnet_v2_b0", {"dropout": "no"}, "'dropout' to be a number, got 'no'."),
        ("mobilenet_v1", {"num_classes": 2.0}, "'num_classes' to be an integer, got 2.0."),
        ("mobilenet_v1", {"input_shape": (32, 32)}, "'input_shape' to be a list of an integer, "),
    ],
)
def test_an_option_of_another_type_is_refused(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(f'{name}: expected {message}')}"):
        registry.create(name, **options)


def test_a_whole_number_stands_for_a_number_and_none_for_the_default() -> None:
    typed = registry.check("mobilenet_v1", {"width": 1, "stem": None})
    assert typed == {"width": 1.0}
    assert type(typed["width"]) is float


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in DEEP else ())
        for name in registry.names()
    ],
)
def test_a_network_maps_images_to_logits_under_its_own_name(name: str) -> None:
    model: Any = registry.create(name, input_shape=(64, 96, 3), num_classes=7)
    assert model.name == name
    assert model.input_names == ["image"]
    assert model.output.shape == (None, 7)
    assert model.output.dtype == "float32"
    assert "softmax" not in model.to_json()


def test_the_registry_equals_the_set_of_builders() -> None:
    builders = {  # whatever returns a keras.Model
        f"keras_models.{path.stem}:{node.name}"
        for path in (ROOT / "keras_models").glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
        and node.returns is not None
        and ast.unparse(node.returns) == "keras.Model"
    }
    assert builders == {entry.builder for entry in registry.MODELS.values()}


@pytest.mark.parametrize("name", registry.names())
def test_defaults_are_those_of_the_builder_and_the_options_that_make_the_network(name: str) -> None:
    entry = registry.find(name)
    module, function = entry.builder.split(":")
    arguments = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    own = {key: p.default for key, p in arguments.items() if p.default is not p.empty}
    assert registry.defaults(name) == {**own, **entry.options}
    kinds = {key: p.annotation for key, p in arguments.items()}
    assert {key: a.kind for key, a in registry.arguments(name).items()} == kinds


@pytest.mark.parametrize(
    ("name", "options", "num_classes", "top1"),
    [
        ("shufflenet_v2", {}, 1000, 69.4),
        ("shufflenet_v2", {"stem": "imagenet", "allow_any_width": True}, 1000, 69.4),
        ("shufflenet_v2", {"stem": "cifar"}, 1000, None),
        ("shufflenet_v2", {"align": 1}, 1000, 69.4),
        ("shufflenet_v2", {"align": 16}, 1000, None),
        ("shufflenet_v2", {}, 10, None),
        ("shufflenet_v1", {}, 1000, 67.4),  # with 3 groups
        ("xception_like", {}, 1000, 66.4),  # of 140 million multiply-adds
        ("xception_like", {"mflops": 38, "padding": "symmetric"}, 1000, 54.9),
    ],
)
def test_what_was_published_is_of_just_that_network(
    name: str, options: dict[str, Any], num_classes: int, top1: float | None
) -> None:
    found = registry.published(name, options, resolution=224, num_classes=num_classes)
    assert (found and found.top1) == top1
    assert registry.published(name, options, resolution=223, num_classes=num_classes) is None


def test_the_registry_does_not_load_tensorflow() -> None:
    code = (
        "import sys; from keras_models import registry; registry.defaults('mobilenet_v1');"
        "assert not {'tensorflow', 'tf_keras', 'numpy'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=1200)
