"""The options that a scripted target runs fastest are the ones that are chosen."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter

from convert import autotune
from convert.lowering import lower
from convert.lowering.options import GENERIC, Grouped, LoweringOptions, decisions
from convert.settings import ConversionSettings, Lowering, Model, Precision, Quantization
from keras_models.layers import ChannelShuffle
from shufflelite.errors import InputError
from shufflelite.progress import Progress

INT8 = Quantization(precision=Precision.INT8)


@pytest.fixture
def network() -> Any:
    """Two grouped convolutions with a shuffle between them, at 8x8, and a split at 4x4."""
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(8, 1, name="first")(x)
    x = keras.layers.Conv2D(8, 1, groups=2, name="before")(x)
    x = ChannelShuffle(2, name="shuffle")(x)
    x = keras.layers.Conv2D(8, 1, groups=2, name="behind")(x)
    x = keras.layers.MaxPooling2D(name="pool")(x)
    x = ChannelShuffle(4, name="another")(x)
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="classifier")(x))


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ConversionSettings:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lowering = Lowering(target="emulated:a53", tune=True)
    return ConversionSettings(Model("any"), lowering=lowering, quantization=INT8)


@pytest.fixture
def progress() -> Progress:
    return Progress("test")


def scripted(monkeypatch: pytest.MonkeyPatch, costs: dict[str, float]) -> list[list[str]]:
    """Measures by the options that each file was made with; returns what was measured, in turn."""
    lowered_last = ""
    made: list[str] = []
    measured: list[list[str]] = []

    def lowered(model: Any, *, integer: bool, options: LoweringOptions) -> Any:
        nonlocal lowered_last
        assert integer
        lowered_last = json.dumps([d.current(options) for d in decisions(model)])
        return lower(model, options=options)

    def stand_in(deployed: Any, quantization: Quantization) -> bytes:
        made.append(lowered_last)
        return b"file"

    def measure(files: Sequence[Path], target: str) -> list[float]:
        assert target == "emulated:a53"
        options = made[-len(files) :]
        measured.append(options)
        return [costs.get(one, 1.0) / costs.get(options[0], 1.0) for one in options]

    monkeypatch.setattr(autotune, "lower", lowered)
    monkeypatch.setattr(autotune, "measure", measure)
    monkeypatch.setattr(autotune, "stand_in", stand_in)
    return measured


def test_each_decision_keeps_the_fastest_way_beside_the_others_so_far(
    network: Any, settings: ConversionSettings, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = {
        '["sliced", "split"]': 0.8,
        '["dense", "split"]': 0.7,
        '["dense", "whole"]': 0.6,
        '["along", "whole"]': 0.1,  # an alternative that no decision, one after the other, meets
    }
    measured = scripted(monkeypatch, costs)
    tuned = autotune.tune(network, settings, progress)
    assert tuned.options == LoweringOptions(
        grouped={8: Grouped.DENSE}, whole_outputs=frozenset({4})
    )
    assert [(gain.chosen, gain.ratio) for gain in tuned.gains] == [
        ("dense", 0.7),
        ("whole", 0.8571),
    ]
    assert measured[1] == ['["dense", "split"]', '["dense", "whole"]']


def test_what_gains_next_to_nothing_stays_as_it_was(
    network: Any, settings: ConversionSettings, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, {'["sliced", "split"]': 0.997})
    assert autotune.tune(network, settings, progress).options == GENERIC


def test_an_alternative_that_makes_the_file_too_large_is_not_measured(
    network: Any, settings: ConversionSettings, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dense, the two grouped convolutions have 64 weights more, of 139."""
    costs = {'["dense", "split"]': 0.5, '["sliced", "split"]': 0.9}
    for limit, fastest in ((40.0, Grouped.SLICED), (50.0, Grouped.DENSE)):
        scripted(monkeypatch, costs)
        limited = replace(settings, lowering=replace(settings.lowering, max_size_growth=limit))
        assert autotune.tune(network, limited, progress).options.grouped == {8: fastest}


def test_what_was_measured_is_kept_for_that_network_and_target(
    network: Any, settings: ConversionSettings, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, {'["sliced", "split"]': 0.8})
    tuned = autotune.options_for(network, settings, progress)
    assert tuned.options.grouped == {8: Grouped.SLICED}
    later = replace(settings, lowering=Lowering(target="emulated:a53"))
    assert autotune.options_for(network, later, progress) == tuned
    (cached,) = (autotune.cache_folder() / "forms").iterdir()
    for damaged in ("{", "[]", cached.read_text().replace("0.8", '"x"')):
        cached.write_text(damaged)
        with pytest.raises(
            InputError, match="expected measured forms; pass --tune to measure again"
        ):
            autotune.options_for(network, later, progress)
    elsewhere = replace(settings, lowering=Lowering(target="emulated:a76"))
    assert autotune.options_for(network, elsewhere, progress) == autotune.Tuned(GENERIC)
    assert (
        autotune.options_for(network, replace(settings, lowering=Lowering()), progress).options
        == GENERIC
    )


def test_a_target_that_cannot_measure_is_refused_before_any_file_is_made(
    network: Any, settings: ConversionSettings, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(files: Sequence[Path], target: str) -> list[float]:
        assert files[0].stat().st_size > 0
        raise InputError(f"--target {target}: is not there")

    monkeypatch.setattr(autotune, "measure", measure)
    monkeypatch.setattr(autotune, "lower", lambda *_, **__: pytest.fail("a network was lowered"))
    with pytest.raises(InputError, match="--target emulated:a53: is not there"):
        autotune.options_for(network, settings, progress)


@pytest.mark.parametrize(("ratio", "warned"), [(0.93, True), (1.0, True), (1.9, False)])
def test_the_float32_file_is_timed_beside_the_chosen_int8_file(
    network: Any,
    settings: ConversionSettings,
    progress: Progress,
    monkeypatch: pytest.MonkeyPatch,
    ratio: float,
    warned: bool,
) -> None:
    """The ratios of ShuffleNet V2 1.0x: 0.93 on a core with AVX2 alone, above 1 with VNNI."""
    timed: list[list[set[str]]] = []

    def measure(files: Sequence[Path], target: str) -> list[float]:
        assert target == "host"
        timed.append([_types(path) for path in files])
        return [1.0, ratio] if timed[-1][-1] == {"float32"} else [1.0 for _ in files]

    monkeypatch.setattr(autotune, "measure", measure)
    on_host = replace(settings, lowering=Lowering(target="host", tune=True))
    tuned = autotune.options_for(network, on_host, progress)
    assert timed[-1] == [{"int8"}, {"float32"}]
    assert tuned.float32_ratio == ratio
    later = replace(settings, lowering=Lowering(target="host"))
    assert autotune.options_for(network, later, progress) == tuned
    warnings = tuned.warnings("host")
    assert bool(warnings) is warned
    assert all(f"float32 takes {ratio:.2f} of int8's time on host" in text for text in warnings)


def _types(path: Path) -> set[str]:
    """Types of the file's input and output."""
    interpreter = Interpreter(str(path))
    ends = [*interpreter.get_input_details(), *interpreter.get_output_details()]
    return {np.dtype(tensor["dtype"]).name for tensor in ends}


def test_emulated_cores_do_not_compare_precisions(
    network: Any, settings: ConversionSettings, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instructions of different precisions take different times."""
    scripted(monkeypatch, {})
    tuned = autotune.tune(network, settings, progress)
    assert tuned.float32_ratio is None
    assert tuned.warnings("emulated:a53") == ()


@pytest.mark.slow
def test_files_are_measured_by_the_benchmark_command(network: Any, tmp_path: Path) -> None:
    files = [tmp_path / "one.tflite", tmp_path / "other.tflite"]
    for path, way in zip(files, (Grouped.ALONG, Grouped.DENSE), strict=True):
        deployed = lower(network, integer=True, options=LoweringOptions(grouped={8: way}))
        path.write_bytes(autotune.stand_in(deployed, INT8))
    first, other = autotune.measure(files, "host")
    assert first == 1
    assert other > 0
    with pytest.raises(InputError, match=r"--target emulated:a9: .*a53"):
        autotune.measure(files, "emulated:a9")
