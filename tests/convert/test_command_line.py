"""The command that makes a bundle again, read back by the program's own flags."""

import json
import shlex
import sys
from dataclasses import replace

import pytest

from convert import command_line
from convert.settings import (
    ConversionSettings,
    Estimator,
    Lowering,
    Model,
    Precision,
    Qat,
    Quantization,
    Rounding,
    Verification,
)
from shufflelite import config
from shufflelite.errors import FlagError, InputError
from tests import forkserver

ODD = 'it\'s a "folder", née $HOME/%s'
CASES = [
    ConversionSettings(Model("shufflenet_v2")),
    ConversionSettings(
        Model(
            "augshufflenet",
            {"width": 0.5, "stem": "cifar", "allow_any_width": True, "split_ratio": 0.25},
            resolution=32,
            num_classes=10,
            weights=ODD,
        ),
        Quantization(
            precision=Precision.INT8,
            io_dtype="uint8",
            per_channel=False,
            rounding=Rounding.NEAREST,
            calibration=ODD,
            ranges=Estimator.PERCENTILE,
            keep_float=("conv1", "stage2_*"),
        ),
        Verification(data="a b.csv", max_accuracy_drop=1.5, min_sqnr_db=10.0),
        Lowering(target="emulated:a53", tune=True),
        Qat(epochs=2, data="train", batch=64, learning_rate=1e-4, crop="none", flip=False),
        out="elsewhere",
        c_array=True,
        seed=7,
    ),
    ConversionSettings(
        Model("shufflenet_v1", {"groups": 3}), Quantization(Precision.FLOAT16, scores=True)
    ),
]
READ = """
import json, sys
from absl import flags
from convert import __main__ as command
from shufflelite import config
from shufflelite.flags import define
define(*command.SETTINGS)
for words in json.load(sys.stdin):
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    flags.FLAGS(words)
    print(json.dumps(config.to_dict(command.read_settings())))
"""


def test_the_command_line_of_settings_has_those_settings() -> None:
    commands = [shlex.split(command_line.line(settings)) for settings in CASES]
    assert all(words[:3] == ["python", "-m", "convert"] for words in commands)
    done = forkserver.run(
        [sys.executable, "-c", READ],
        input=json.dumps([words[2:] for words in commands]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for settings, found in zip(CASES, done.stdout.splitlines(), strict=True):
        expected = config.to_dict(replace(settings, out="build"))
        assert json.loads(found) == json.loads(json.dumps(expected))


def test_a_short_command_has_short_words() -> None:
    settings = ConversionSettings(Model("shufflenet_v2"), Quantization(precision=Precision.INT8))
    assert command_line.line(settings) == "python -m convert --model shufflenet_v2 --int8"


def test_the_former_flag_of_rounding_names_the_new_one() -> None:
    name = {"model": {"name": "shufflenet_v2"}}
    table = {"quantization": {"bias_correction": False}}
    passed = {"bias_correction": (("quantization", "bias_correction"), True)}
    with pytest.raises(InputError, match=r"^a.toml \[quantization\]: .*rounding = \"nearest\""):
        config.build({**name, **table}, ConversionSettings, origin="a.toml")
    with pytest.raises(FlagError, match=r"^--bias_correction .* --rounding second_order"):
        config.build(name, ConversionSettings, flags=passed)
