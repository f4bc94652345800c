"""Calibration pictures: real ones pass, what no camera took is told with the number."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert.calibration_data import Inputs
from convert.network import LoadedNetwork, create
from convert.quantization import calibration_check
from convert.resolve_model import complete
from convert.settings import Model
from keras_models.checkpoints import bundled
from keras_models.images import decode, lists
from keras_models.images.decode import Preprocessing

ROOT = Path(__file__).parents[3]
SHARED = ROOT.parent / "shared" / "data"
EXAMPLES = sorted((ROOT / "examples").glob("*.png"))
SIDE = 32


@pytest.fixture(scope="module")
def network() -> LoadedNetwork:
    assert bundled.find("mobilenet_v1")
    return create(complete(Model("mobilenet_v1", weights="bundled")), seed=0, warn=pytest.fail)


def read(files: list[Path], side: int, seen: Preprocessing) -> np.ndarray:
    return decode.read_files(files, resolution=side, preprocessing=seen, warn=pytest.fail)[0]


@pytest.fixture(scope="module")
def examples(network: LoadedNetwork) -> np.ndarray:
    return read(EXAMPLES, SIDE, network.preprocessing)


def warnings(network: LoadedNetwork, values: Any, seen: Preprocessing | None = None) -> list[str]:
    pictures = Inputs("pictures", np.asarray(values, np.uint8), seen or network.preprocessing)
    found = calibration_check.find(pictures, network.model, is_trained=True)
    assert all("\n" not in warning for warning in found)
    return list(found)


def made(kind: str) -> np.ndarray:
    """64 pictures that no camera took."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:SIDE, 0:SIDE][..., None] / SIDE
    first, right, below = rng.uniform(0, 255, (3, 64, 1, 1, 3))
    pictures = {
        "noise": rng.integers(0, 256, (64, SIDE, SIDE, 3)),
        "colours": np.broadcast_to(rng.integers(0, 256, (64, 1, 1, 3)), (64, SIDE, SIDE, 3)),
        "gradients": first + (right - first) * x + (below - first) * y,
    }
    return np.clip(pictures[kind], 0, 255)


def test_pictures_of_the_world_pass(network: LoadedNetwork, examples: np.ndarray) -> None:
    flipped = examples[:, :, ::-1]
    assert len(examples) == calibration_check.MIN_PICTURES
    assert warnings(network, examples) == []
    assert warnings(network, np.concatenate([examples, flipped])) == []
    grey = np.repeat(examples.mean(axis=-1, keepdims=True), 3, axis=-1)
    assert warnings(network, grey) == []


def test_few_and_repeated_pictures_are_counted(
    network: LoadedNetwork, examples: np.ndarray
) -> None:
    assert warnings(network, examples[:6]) == [
        "too few calibration pictures: 6; about 200 are enough"
    ]
    assert warnings(network, np.repeat(examples[:4], 9, axis=0)) == [
        "too few different calibration pictures: 4 of 36; about 200 are enough"
    ]


def test_eight_black_pictures_are_few_and_of_one_colour(network: LoadedNetwork) -> None:
    assert warnings(network, np.zeros((8, SIDE, SIDE, 3))) == [
        "too few different calibration pictures: 1 of 8; about 200 are enough",
        "8 of 8 calibration pictures have one colour",
    ]


@pytest.mark.parametrize("kind", ["noise", "colours", "gradients"])
def test_pictures_that_no_camera_took_contradict_the_batch_norms(
    kind: str, network: LoadedNetwork
) -> None:
    *others, contradiction = warnings(network, made(kind))
    assert contradiction.startswith("calibration pictures contradict the network's batch norms: ")
    assert others == ["64 of 64 calibration pictures have one colour"] * (kind == "colours")
    assert not calibration_check.find(
        Inputs("", made("noise").astype(np.uint8), network.preprocessing),
        network.model,
        is_trained=False,
    )


@pytest.mark.parametrize(
    "wrong",
    [
        Preprocessing((0.0,) * 3, (1.0,) * 3),
        Preprocessing((0.0,) * 3, (255.0,) * 3),
        Preprocessing((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    ],
)
def test_pictures_of_another_normalization_contradict_them(
    wrong: Preprocessing, network: LoadedNetwork, examples: np.ndarray
) -> None:
    (contradiction,) = warnings(network, examples, wrong)
    assert "is the preprocessing that of the weights?" in contradiction


def test_some_pictures_of_one_colour_are_real_too(
    network: LoadedNetwork, examples: np.ndarray
) -> None:
    lids = np.zeros((2, SIDE, SIDE, 3))
    many = np.concatenate([examples, examples[:, :, ::-1], lids])
    assert warnings(network, many) == []
    (warning,) = warnings(network, np.concatenate([many, lids]))
    assert warning == "4 of 24 calibration pictures have one colour"


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no pictures and weights in {SHARED}")
@pytest.mark.parametrize("count", [10, 200])
def test_photographs_pass(count: int) -> None:
    model = Model(
        "mobilenet_v1",
        {"width": 0.25},
        weights=str(SHARED / "mobilenet_v1_0.25_224_imagenet.h5"),
    )
    network = create(complete(model), seed=0, warn=pytest.fail)
    files = lists.find(str(SHARED / "photos" / "labels.csv")).files[:count]
    assert warnings(network, read(list(files), 224, network.preprocessing)) == []
