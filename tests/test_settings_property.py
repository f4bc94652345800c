"""Laws of every setting of every command, by whichever way its value comes.

A value of the right type in its range arrives unchanged; any other value, and any unknown key, is
one line of an error that the commands print, exiting with 1 or 2.  The settings, their types and
ranges are read from the dataclasses, the options of networks from the builders: a new one is tested
as soon as it is declared.
"""

import dataclasses
import enum
import math
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Literal
from unittest import mock

import pytest
from absl import app
from absl import flags as absl_flags
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from android_bench import __main__ as bench
from android_bench.sweep import SweepSettings
from convert import __main__ as convert
from convert import classify
from convert.accuracy import __main__ as accuracy
from convert.settings import ConversionSettings
from keras_models import __main__ as models
from keras_models import option_flags, registry
from keras_models.train import __main__ as train
from keras_models.train import publish
from keras_models.train.settings import TrainingSettings
from shufflelite import config, flags
from shufflelite.config import Setting
from shufflelite.errors import InputError

COMMANDS = {
    "android_bench": bench,
    "convert": convert,
    "convert.accuracy": accuracy,
    "convert.classify": classify,
    "keras_models": models,
    "keras_models.train": train,
    "keras_models.train.publish": publish,
}
FILES = (ConversionSettings, TrainingSettings, SweepSettings)  # what TOML files hold
NEEDED = {  # values of keys without which a table is incomplete
    ConversionSettings: {"model": {"name": "shufflenet_v2"}},
    TrainingSettings: {
        "network": {"name": "shufflenet_v2", "options": {"width": 0.5}},
        "data": {"train": "synthetic:20"},
        "out": "x",
        "training": {"epochs": 1000},
    },
    SweepSettings: {"grid": [{"model": "shufflenet_v2"}]},
}
FORMER = ("bias_correction",)  # names of before: any value is refused with the present name
RELATED = {  # settings whose range depends on another setting: values that are right beside NEEDED
    "training.epochs": st.integers(2, 10**6),
    "training.warmup_epochs": st.floats(0, 999),
    "progressive.stages": st.integers(1, 1000),
    "progressive.options": st.fixed_dictionaries({"width": st.floats(0, 9)}),
    "network.options": st.fixed_dictionaries({"width": st.floats(0, 9)}),
    "preprocessing.mean": st.tuples(*[st.floats(0, 255)] * 3),
    "preprocessing.std": st.tuples(*[st.floats(1, 255)] * 3),
    "preprocessing.channel_order": st.sampled_from(["rgb", "bgr"]),
    "preprocessing.crop_fraction": st.floats(0.01, 1),
    "preprocessing.interpolation": st.sampled_from(["bilinear", "bicubic"]),
    "preprocessing.source": st.text(max_size=9),
}
KEYS_OF_MAPPINGS = st.sampled_from(["width", "groups", "stem", "anything"])
WORDS = st.characters(codec="utf-8", exclude_characters=",", exclude_categories=("C", "Z"))
RULES = settings(
    max_examples=15,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
ANYTHING = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=9),
    st.sampled_from(["no", "False", "yes", "0.5", "1", "", "nan"]),
    st.lists(st.integers() | st.text(max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A setting of a file."""

    schema: type
    keys: tuple[str, ...]
    kind: Any
    setting: Setting

    def __str__(self) -> str:
        return f"{self.schema.__name__}-{'.'.join(self.keys)}"

    def place(self, value: Any) -> dict[str, Any]:
        """A whole file with this value."""
        return _placed(NEEDED[self.schema], self.keys, value)

    def read(self, built: Any) -> Any:
        """The value in the settings."""
        for key in self.keys:
            built = getattr(built[0] if isinstance(built, tuple) else built, key)
        return built


def _placed(table: Any, keys: Sequence[str], value: Any) -> Any:
    if isinstance(table, list):
        return [_placed(table[0], keys, value)]
    first, *rest = keys
    return {**table, first: _placed(table.get(first, {}), rest, value) if rest else value}


def leaves(schema: type, table: Any = None, keys: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """Every setting of a file but claims, which are checked where they are read."""
    table = table or schema
    for field in dataclasses.fields(table):
        kind = config.hints(table)[field.name]
        inner = [arg for arg in (kind, *typing.get_args(kind)) if dataclasses.is_dataclass(arg)]
        if field.name == "claim":
            continue
        if inner:
            yield from leaves(schema, inner[0], (*keys, field.name))
        else:
            yield Leaf(schema, (*keys, field.name), kind, config.setting_of(field))


LEAVES = [leaf for s in FILES for leaf in leaves(s) if leaf.keys[-1] not in FORMER]
SINGLE = [leaf for leaf in LEAVES if leaf.keys[0] not in ("grid", "preprocessing")]


def right(kind: Any, setting: Setting) -> st.SearchStrategy[Any]:
    """Values of a type, and in a range."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in config._UNIONS:
        return st.one_of(*(right(arg, setting) for arg in args if arg is not type(None)))
    if origin is Literal or setting.choices:
        return st.sampled_from(args or setting.choices)
    if isinstance(kind, enum.EnumMeta):
        return st.sampled_from([choice.value for choice in kind])
    if origin is Mapping:
        return st.dictionaries(KEYS_OF_MAPPINGS, right(args[1], setting), max_size=2)
    if origin is tuple:
        repeated = args[-1] is ...
        items = st.lists(right(args[0], setting), min_size=1, max_size=3)
        return items if repeated else st.tuples(*(right(arg, setting) for arg in args))
    numbers: dict[Any, Callable[[], st.SearchStrategy[Any]]] = {
        bool: st.booleans,
        str: lambda: st.text(WORDS, max_size=9),
        int: lambda: st.integers(_least(setting), _most(setting)).filter(setting.allows),
        float: lambda: st.floats(_lowest(setting), _most(setting)).filter(setting.allows),
    }
    return numbers[kind]()


def _lowest(setting: Setting) -> float:
    bounds = [bound for bound in (setting.least, setting.above) if bound is not None]
    return float(max(bounds)) if bounds else -1e9


def _least(setting: Setting) -> Any:
    bounds = [bound for bound in (setting.least, setting.above) if bound is not None]
    return math.ceil(max(bounds)) if bounds else -(10**9)


def _most(setting: Setting) -> Any:
    bounds = [bound for bound in (setting.most, setting.below) if bound is not None]
    return math.floor(min(bounds)) if bounds else 10**9


def is_right(value: Any, kind: Any, setting: Setting) -> bool:
    """The same by a second description, as these tests hold the first against it."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in config._UNIONS:
        return any(is_right(value, arg, setting) for arg in args)
    if origin is Literal or setting.choices:
        return type(value) is str and value in (args or setting.choices)
    if isinstance(kind, enum.EnumMeta):
        return type(value) is str and value in [choice.value for choice in kind]
    if origin is Mapping:
        return isinstance(value, dict) and all(
            is_right(item, args[1], setting) for item in value.values()
        )
    if origin is tuple:
        kinds = args[:1] * len(value) if args[-1] is ... and isinstance(value, list) else args
        return (
            isinstance(value, list)
            and len(kinds) == len(value)
            and all(is_right(v, k, Setting()) for v, k in zip(value, kinds, strict=True))
        )
    if kind in (int, float):
        kinds = (int, float) if kind is float else (int,)
        return type(value) in kinds and math.isfinite(value) and setting.allows(value)
    return type(value) is kind


def expected_of(value: Any, kind: Any) -> Any:
    """The right value as the settings hold it."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in config._UNIONS:
        fitting = [arg for arg in args if is_right(_listed(value), arg, Setting())]
        return expected_of(value, fitting[0])
    if isinstance(kind, enum.EnumMeta):
        return kind(value)
    if origin is Mapping:
        return {key: expected_of(item, args[1]) for key, item in value.items()}
    if origin is tuple:
        return tuple(expected_of(item, args[0]) for item in value)
    return float(value) if kind is float else value


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def same(one: Any, other: Any) -> bool:
    """Equal, and of one type, whatever they hold."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def refused(call: Callable[[], Any], *words: str) -> None:
    """What is called refuses in one line that has the words; anything else is a defect."""
    with pytest.raises((InputError, app.UsageError, absl_flags.Error)) as caught:
        call()
    text = str(caught.value)
    assert len(text.splitlines()) == 1, text
    assert len(text) < 700
    for word in words:
        assert word in text


@pytest.mark.parametrize("leaf", LEAVES, ids=str)
def test_a_right_value_of_a_file_arrives_unchanged(leaf: Leaf) -> None:
    @RULES
    @given(RELATED.get(".".join(leaf.keys), right(leaf.kind, leaf.setting)))
    def check(value: Any) -> None:
        built = config.build(leaf.place(value), leaf.schema)
        assert same(leaf.read(built), expected_of(value, leaf.kind))
        assert config.build(config.to_dict(built), leaf.schema) == built

    check()


@pytest.mark.parametrize("leaf", LEAVES, ids=str)
def test_any_other_value_of_a_file_is_refused_with_its_key(leaf: Leaf) -> None:
    @RULES
    @given(ANYTHING.filter(lambda value: not is_right(value, leaf.kind, leaf.setting)))
    def check(value: Any) -> None:
        refused(lambda: config.build(leaf.place(value), leaf.schema), leaf.keys[-1])

    check()


@pytest.mark.parametrize("leaf", SINGLE, ids=str)  # arrays of tables are replaced as a whole
def test_an_override_is_the_same_as_the_file_and_is_blamed(leaf: Leaf) -> None:
    name = ".".join(leaf.keys)
    bare = st.text("abcdefghij-_", min_size=1, max_size=9)

    @RULES
    @given(st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False), bare))
    def check(value: Any) -> None:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        override = f"{name}={text}"

        def build() -> Any:
            return config.build(NEEDED[leaf.schema], leaf.schema, [override])

        _, parsed = config.parse_override(override)
        try:
            expected = config.build(leaf.place(parsed), leaf.schema)
        except InputError:
            refused(build, f"--set {override}: ")
        else:
            assert build() == expected

    check()


@pytest.mark.parametrize("leaf", LEAVES, ids=str)
def test_an_unknown_key_is_refused_in_every_table(leaf: Leaf) -> None:
    keys = (*leaf.keys[:-1], f"{leaf.keys[-1]}x")
    mapping = _placed(NEEDED[leaf.schema], keys, 1)
    refused(lambda: config.build(mapping, leaf.schema), f"unknown key {keys[-1]!r}", "Did you mean")


def parse(command: Any, words: Sequence[str]) -> Any:
    """The settings of a command line, as the command reads them."""
    with mock.patch.dict(absl_flags.FLAGS._flags(), clear=True):
        flags.define(*command.SETTINGS)
        absl_flags.FLAGS(["command", *words])
        if command is convert:
            return convert.read_settings(), flags.read(convert.ConvertFlags)
        if command is models:
            return (models.read_flags(),)
        return tuple(flags.read(schema) for schema in command.SETTINGS)


FLAGS = [
    (command, flag)
    for command, module in COMMANDS.items()
    for schema in module.SETTINGS
    for flag in flags.flags_of(schema)
    if flag.name not in ("option", "config", "set", *FORMER)
]


def _base(command: str, flag: flags.Flag) -> list[str]:
    return ["--model=shufflenet_v2"] if command == "convert" and flag.name != "model" else []


@pytest.mark.parametrize(("command", "flag"), FLAGS, ids=lambda x: getattr(x, "name", x))
def test_a_right_value_of_a_flag_arrives_unchanged(command: str, flag: flags.Flag) -> None:
    @RULES
    @given(right(flag.kind, flag.setting))
    def check(value: Any) -> None:
        if flag.kind is bool:
            words = [f"--{'' if value else 'no'}{flag.name}"]
        else:
            listed = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value
            words = [f"--{flag.name}={listed}"]
        if isinstance(value, list) and "" in value:
            return  # a list of no words, or of an empty one, is written alike
        found = None
        for built in parse(COMMANDS[command], [*_base(command, flag), *words]):
            found = _at(built, flag.keys) if _has(built, flag.keys) else found
        expected = (str(listed),) if flag.setting.repeats else expected_of(value, flag.kind)
        assert same(found, expected)

    check()


def _has(built: Any, keys: Sequence[str]) -> bool:
    return any(field.name == keys[0] for field in dataclasses.fields(built))


def _at(built: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        built = built[key] if isinstance(built, Mapping) else getattr(built, key)
    return built


@pytest.mark.parametrize(("command", "flag"), FLAGS, ids=lambda x: getattr(x, "name", x))
def test_any_other_value_of_a_flag_is_refused(command: str, flag: flags.Flag) -> None:
    module, base = COMMANDS[command], _base(command, flag)
    refused(lambda: parse(module, [*base, f"--{flag.name}x=1"]), f"{flag.name}x")
    if flag.kind in (str, tuple[str, ...]) and not flag.setting.choices:
        return  # any text is right

    @RULES
    @given(
        st.one_of(
            st.text("abxyz-,", min_size=1, max_size=9), st.integers().map(str), st.floats().map(str)
        )
    )
    def check(text: str) -> None:
        value: Any = text
        for read in (int, float) if flag.kind is float else (int,):
            try:
                value = read(text)
                break
            except ValueError:
                continue
        if flag.kind is bool and text in ("0", "1", "y", "n", "t", "f", "yes", "no"):
            return
        if flag.kind == tuple[float, ...]:
            try:
                numbers = list(map(float, text.split(",")))
            except ValueError:
                numbers = [math.nan]
            value = numbers
        if not is_right(value, flag.kind, flag.setting):
            refused(lambda: parse(module, [*base, f"--{flag.name}={text}"]), flag.name)

    check()


ARGUMENTS = [
    (name, key)
    for name in registry.names()
    for key in registry.arguments(name)
    if key not in ("input_shape", "num_classes", *registry.find(name).options)
]


@pytest.mark.parametrize(("name", "key"), ARGUMENTS)
def test_an_option_reaches_the_builder_unchanged_or_is_refused(name: str, key: str) -> None:
    kind = registry.arguments(name)[key].kind
    received: dict[str, Any] = {}

    def build(**options: Any) -> None:
        received.clear()
        received.update(options)

    module = SimpleNamespace(**{registry.find(name).builder.partition(":")[2]: build})

    @RULES
    @given(st.one_of(right(kind, Setting()), ANYTHING))
    def check(value: Any) -> None:
        if is_right(value, kind, Setting()):
            with mock.patch.object(registry.importlib, "import_module", return_value=module):
                registry.create(name, **{key: value})
            assert same(received[key], expected_of(value, kind))
        else:
            refused(lambda: registry.create(name, **{key: value}), name, repr(key))

    check()


@pytest.mark.parametrize(("name", "key"), ARGUMENTS)
def test_an_option_on_the_command_line_has_the_value_of_the_builder(name: str, key: str) -> None:
    kind = registry.arguments(name)[key].kind
    words = st.sampled_from(["no", "yes", "False", "True", "cifar", "nan", "[1]", "{a = 1}", ""])

    @RULES
    @given(st.one_of(words, st.booleans(), st.integers(), st.floats(allow_nan=False)))
    def check(value: Any) -> None:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        _, typed = config.parse_override(f"x={text}")

        def options() -> Any:
            settings, _ = parse(convert, [f"--model={name}", f"--option={key}={text}"])
            return registry.check(name, settings.model.options)[key]

        if is_right(typed, kind, Setting()):
            assert same(options(), expected_of(typed, kind))
        else:
            refused(options, key)

    check()


def test_an_option_by_two_flags_is_refused() -> None:
    for flag in flags.flags_of(option_flags.OptionFlags):
        if flag.name != "option":
            value = f"--{flag.name}" if flag.kind is bool else f"--{flag.name}=1"
            words = ["--model=shufflenet_v2", value, f"--option={flag.name}=1"]
            refused(lambda words=words: parse(convert, words), "expected one of them")
