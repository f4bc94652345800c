"""Experiments: what TOML becomes, and the exact words about what is wrong with it."""

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from shufflelite import config
from shufflelite.errors import InputError


class Schedule(enum.Enum):
    COSINE = "cosine"
    STEP = "step"


@dataclass(frozen=True)
class Model:
    name: str
    width: float = 1.0


@dataclass(frozen=True)
class Train:
    epochs: int = 10
    learning_rate: float = 0.1
    nesterov: bool = True
    schedule: Schedule = Schedule.COSINE
    precision: Literal["float32", "mixed"] = "float32"
    limit: int | None = None
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    milestones: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"expected 'epochs' >= 1, got {self.epochs}.")


@dataclass(frozen=True)
class Experiment:
    model: Model
    train: Train
    seed: int = 0
    teacher: Model | None = None


@dataclass(frozen=True)
class Stage:
    name: str
    sides: int | tuple[int, ...] = ()
    model: Model = Model("none")


@dataclass(frozen=True)
class Plan:
    stage: tuple[Stage, ...] = ()


def load(text: str, overrides: tuple[str, ...] = ()) -> Experiment:
    Path("a.toml").write_text(text, encoding="utf-8")
    return config.load("a.toml", Experiment, overrides)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_toml_becomes_dataclasses_and_absent_keys_their_defaults() -> None:
    experiment = load("""
        seed = 3
        [model]
        name = "shufflenet_v2"
        width = 1
        [train]
        schedule = "step"
        precision = "mixed"
        limit = 100
        mean = [1, 2.5, 3]
        milestones = [60, 80]
        """)
    train = Train(
        schedule=Schedule.STEP,
        precision="mixed",
        limit=100,
        mean=(1.0, 2.5, 3.0),
        milestones=(60, 80),
    )
    assert experiment == Experiment(Model("shufflenet_v2", 1.0), train, seed=3)
    assert isinstance(experiment.model.width, float)


def test_overrides_win_and_are_toml_or_else_strings() -> None:
    overrides = (
        "model.name=mobilenet_v1",
        "train.learning_rate=1e-3",
        "train.nesterov=false",
        "train.milestones=[1, 2]",
        "train.epochs=4",
        "seed=5",
        "train.epochs = 7",
    )
    experiment = load('[model]\nname = "x"\nwidth = 0.5\n', overrides)
    train = Train(epochs=7, learning_rate=1e-3, nesterov=False, milestones=(1, 2))
    assert experiment == Experiment(Model("mobilenet_v1", 0.5), train, seed=5)


def test_a_table_that_may_be_left_out_is_none_then() -> None:
    experiment = load('[model]\nname = "x"\n', ("teacher.name=y",))
    assert experiment.teacher == Model("y")
    assert load('[model]\nname = "x"\n').teacher is None
    with pytest.raises(InputError, match="expected 'teacher' to be a table, got 1"):
        load('teacher = 1\n[model]\nname = "x"\n')


@pytest.mark.parametrize("more", ["", '[teacher]\nname = "y"\n'])
def test_to_dict_is_read_back_as_the_same(more: str) -> None:
    experiment = load(f'[model]\nname = "x"\n[train]\nschedule = "step"\nmilestones = [1]\n{more}')
    plain = config.to_dict(experiment)
    assert plain["train"]["schedule"] == "step"
    assert plain["train"]["milestones"] == [1]
    assert plain["train"]["limit"] is None
    assert config.build(plain, Experiment) == experiment


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("epoch = 1", "unknown key 'epoch'. Did you mean 'epochs'?"),
        ("epochs = 'ten'", "expected 'epochs' to be an integer, got 'ten'."),
        ("epochs = true", "expected 'epochs' to be an integer, got True."),
        ("epochs = 1.0", "expected 'epochs' to be an integer, got 1.0."),
        ("learning_rate = '0.1'", "expected 'learning_rate' to be a number, got '0.1'."),
        ("learning_rate = true", "expected 'learning_rate' to be a number, got True."),
        ("nesterov = 1", "expected 'nesterov' to be true or false, got 1."),
        ("limit = 'all'", "expected 'limit' to be an integer, got 'all'."),
        ("schedule = 'x'", "expected 'schedule' to be one of 'cosine', 'step', got 'x'."),
        ("precision = 'x'", "expected 'precision' to be one of 'float32', 'mixed', got 'x'."),
        ("mean = [1]", "expected 'mean' to be a list of a number, a number, a number, got [1]."),
        ("milestones = ['a']", "expected 'milestones' to be an integer, got 'a'."),
        ("milestones = 3", "expected 'milestones' to be a list of an integer, ..., got 3."),
        ("epochs = 0", "expected 'epochs' >= 1, got 0."),
    ],
)
def test_a_wrong_entry_is_named_with_its_place(train: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load(f"[model]\nname = 'x'\n[train]\n{train}\n")
    assert str(caught.value) == f"a.toml [train]: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\n", "a.toml [model]: missing key 'name'."),
        ("[trian]\n", "a.toml: unknown key 'trian'. Did you mean 'train'?"),
        ("[zoo]\n", "a.toml: unknown key 'zoo'. Known keys: model, train, seed, teacher."),
        ("train = 3\n", "a.toml: expected 'train' to be a table, got 3."),
    ],
)
def test_a_wrong_table_is_named(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=3", "unknown key 'epoch'. Did you mean 'epochs'?"),
        ("trian.epochs=3", "unknown key 'trian'. Did you mean 'train'?"),
        ("train.epochs=x", "expected 'epochs' to be an integer, got 'x'."),
        ("train.epochs=0", "expected 'epochs' >= 1, got 0."),
        ("train=3", "expected 'train' to be a table, got 3."),
        ("train.epochs", "expected section.key=value."),
        (".epochs=3", "expected section.key=value."),
    ],
)
def test_a_wrong_override_is_named_and_not_the_file(override: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load("", (override,))
    assert str(caught.value) == f"--set {override}: {message}"


def test_wrong_syntax_is_one_line_with_its_position() -> None:
    with pytest.raises(InputError, match=r"^a\.toml: not valid TOML: .*line 2, column 8.*\.$"):
        load("[train]\nepochs 3\n")


def test_an_absent_file_is_named() -> None:
    with pytest.raises(InputError, match=r"^b\.toml: expected a TOML file \(No such file"):
        config.load("b.toml", Experiment)


def load_plan(text: str, overrides: tuple[str, ...] = ()) -> Plan:
    Path("a.toml").write_text(text, encoding="utf-8")
    return config.load("a.toml", Plan, overrides)


def test_an_array_of_tables_becomes_a_tuple_of_dataclasses() -> None:
    plan = load_plan("""
        [[stage]]
        name = "a"
        sides = [224, 192]
        [[stage]]
        name = "b"
        sides = 128
        model.name = "net"
        model.width = 0.5
        """)
    assert plan == Plan((Stage("a", (224, 192)), Stage("b", 128, Model("net", 0.5))))
    assert config.build(config.to_dict(plan), Plan) == plan
    assert load_plan("") == Plan()
    assert load_plan("", ('stage=[{name = "c"}]',)) == Plan((Stage("c"),))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[[stage]]\nname = "a"\n[[stage]]\nnam = "b"\n',
            "a.toml [stage 2]: unknown key 'nam'. Did you mean 'name'?",
        ),
        ("[[stage]]\n", "a.toml [stage 1]: missing key 'name'."),
        (
            '[[stage]]\nname = "a"\nmodel.width = 1\n',
            "a.toml [stage 1.model]: missing key 'name'.",
        ),
        (
            '[stage]\nname = "a"\n',
            "a.toml: expected 'stage' to be an array of tables: [[stage]], got {'name': 'a'}.",
        ),
        ("stage = [1]\n", "a.toml: expected 'stage' to be an array of tables: [[stage]], got [1]."),
    ],
)
def test_a_wrong_table_of_an_array_is_named_by_its_number(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_plan(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = " + "9" * 5000, "a.toml: not valid TOML: Exceeds the limit"),
        ("seed = " + "[" * 5000, "a.toml: not valid TOML: "),
        (
            "[train]\nlearning_rate = " + "9" * 400,
            "expected 'learning_rate' to be a number, got 99",
        ),
        ("x" * 5000 + " = 1", "a.toml: unknown key 'xxx"),
        ("seed = '" + "x" * 5000 + "'", "a.toml: expected 'seed' to be an integer, got 'xxx"),
    ],
)
def test_what_is_of_any_length_is_one_short_line(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load(text)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 5000])
def test_an_override_that_toml_cannot_read_is_a_string(value: str) -> None:
    assert config.parse_override(f"a.b={value}") == (("a", "b"), value)
