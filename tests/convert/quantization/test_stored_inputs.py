"""Inputs of earlier conversions: only those of the same request, only whole ones."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras as keras

from convert import pipeline
from convert.context import Context
from convert.conversion import resolve
from convert.network import LoadedNetwork, WeightsOrigin, create
from convert.quantization import stored_inputs, synthetic_inputs
from convert.quantization.stored_inputs import Request, find, make, store
from convert.resolve_model import complete
from convert.settings import ConversionSettings, Model, Precision, Quantization
from keras_models.checkpoints import bundled
from keras_models.images.decode import Preprocessing
from shufflelite.progress import Progress

BGR = Preprocessing((100.0, 110.0, 120.0), (50.0, 60.0, 70.0), channel_order="bgr")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(synthetic_inputs, "STEPS", 2)
    return tmp_path / "shufflelite" / "synthetic_inputs"


@pytest.fixture
def request_(small_network: Any) -> Request:
    network = LoadedNetwork(small_network, {"a": 1}, BGR, WeightsOrigin("file"), None, 0, 0)
    return Request("small", network, samples=3, seed=4)


def test_stored_inputs_are_those_that_were_made_to_the_last_bit(
    request_: Request, cache: Path
) -> None:
    assert find(request_) is None
    made = make(request_)
    store(request_, made)
    again = find(request_)
    assert again is not None
    np.testing.assert_array_equal(again.values, made.values)
    assert again.values.dtype == made.values.dtype == np.float32
    assert again.synthetic
    assert "stored" in again.origin
    assert [path.suffix for path in cache.iterdir()] == [".inputs"]


CHANGES: dict[str, Callable[[Request], Request]] = {
    "name": lambda r: dataclasses.replace(r, name="other"),
    "seed": lambda r: dataclasses.replace(r, seed=5),
    "samples": lambda r: dataclasses.replace(r, samples=2),
    "options": lambda r: _of_network(r, options={"a": 2}),
    "preprocessing": lambda r: _of_network(r, preprocessing=Preprocessing()),
}


def _of_network(request: Request, **changes: Any) -> Request:
    return dataclasses.replace(request, network=dataclasses.replace(request.network, **changes))


@pytest.mark.parametrize("change", CHANGES)
def test_another_request_gets_none(request_: Request, change: str) -> None:
    store(request_, make(request_))
    assert find(CHANGES[change](request_)) is None


def test_other_weights_and_another_version_get_none(
    request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(request_, make(request_))
    monkeypatch.setattr(synthetic_inputs, "VERSION", -1)
    assert find(dataclasses.replace(request_)) is None
    monkeypatch.undo()
    weight = request_.network.model.weights[0]
    weight.assign(weight * 1.0001)
    assert find(dataclasses.replace(request_)) is None


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[:-9],
    "of another request": lambda data: b"?" * 32 + data[32:],
    "other pixels": lambda data: data[:32] + b"?" * 32 + data[64:],
    "no zlib": lambda data: data[:64] + b"?" * 99,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_ignored_and_made_again(
    request_: Request, cache: Path, damage: str
) -> None:
    made = make(request_)
    store(request_, made)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(DAMAGE[damage](whole))
    assert find(request_) is None
    store(request_, made)
    assert path.read_bytes() == whole


def test_what_was_not_used_longest_makes_room(
    request_: Request, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(request_)
    seeds = [dataclasses.replace(request_, seed=seed) for seed in range(4)]
    for age, request in enumerate(seeds[:3]):
        store(request, made)
        path = stored_inputs._cached(request)
        os.utime(path, (1000 + age, 1000 + age))
    size = path.stat().st_size
    assert find(seeds[0]) is not None  # so 1 is now the oldest
    monkeypatch.setattr(stored_inputs, "MAX_FOLDER_BYTES", 3 * size + size // 2)
    store(seeds[3], made)
    assert [find(request) is not None for request in seeds] == [True, False, True, True]


def test_a_cache_that_cannot_be_written_changes_nothing(request_: Request, cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file, no folder")
    store(request_, make(request_))
    assert find(request_) is None


@pytest.mark.usefixtures("tensorflow_as_it_was")
def test_a_file_made_from_stored_inputs_has_the_same_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Model("shufflenet_v2", {"width": 0.5}, resolution=32, num_classes=10, weights="random")
    outputs = []
    for name, reuse in (("without", False), ("first", True), ("second", True)):
        quantization = Quantization(
            precision=Precision.INT8, calibration_samples=3, calibration_cache=reuse
        )
        settings = ConversionSettings(model, quantization, out=str(tmp_path / name))
        bundle, report = pipeline.run(resolve(settings), Progress("test"))
        assert report.calibration is not None
        stored = "stored with the cache" in report.calibration.origin
        assert stored == (name == "second")
        assert ("stored with the cache" in capsys.readouterr().err) == stored
        outputs.append(((bundle / "model.tflite").read_bytes(), report.calibration.sha256))
    assert outputs[0] == outputs[1] == outputs[2]


@pytest.mark.parametrize("name", bundled.every())
def test_bundled_weights_have_their_inputs_beside_them(name: str) -> None:
    """If this fails, the weights or VERSION are new: run scripts/bundle_inputs.py."""
    settings = ConversionSettings(complete(Model(name, weights="bundled")))
    network = create(settings.model, seed=0, warn=pytest.fail)
    stored = find(stored_inputs.request_of(Context(settings, network, Progress("test"))))
    assert stored is not None
    assert "stored with the weights" in stored.origin
    assert stored.values.shape == (64, 32, 32, 3)
    noise = np.random.default_rng(0).normal(0, 0.5, stored.values.shape).astype(np.float32)
    assert statistics_error(network.model, stored.values) < (
        statistics_error(network.model, np.clip(noise, -1, 1)) / 5
    )


def statistics_error(model: Any, inputs: np.ndarray) -> float:
    """Mean squared error of the means before each batch norm, in stored variances."""
    norms = [n for n in model.layers if isinstance(n, keras.layers.BatchNormalization)]
    probe = keras.Model(model.inputs, [n.input for n in norms])
    return float(
        np.mean(
            [
                np.mean((np.mean(x, (0, 1, 2)) - n.moving_mean) ** 2 / (n.moving_variance + 1e-3))
                for n, x in zip(norms, probe(inputs, training=False), strict=True)
            ]
        )
    )
