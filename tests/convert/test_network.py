"""What weights tell of themselves: the accuracy that was measured with them."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from convert import network
from convert.settings import Model
from keras_models import registry
from keras_models.accuracy import Accuracy
from keras_models.checkpoints import native
from keras_models.checkpoints.load import model_arrays
from keras_models.images.decode import Preprocessing

OPTIONS = {"width": 0.25, "stem": "cifar"}
TOLD = Accuracy(200, 1.5, 61.5, 83.0, (54.6, 68.0))


@pytest.fixture(scope="module")
def save(tmp_path_factory: pytest.TempPathFactory) -> Callable[[object], Path]:
    """Writes weights that say where they come from."""
    model = registry.create("mobilenet_v1", input_shape=(32, 32, 3), num_classes=3, **OPTIONS)
    arrays = model_arrays(model)
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"

    def write(origin: Any) -> Path:
        seen = Preprocessing()
        native.save(
            path, arrays, native.Trained("mobilenet_v1", OPTIONS, 32, 3, None, seen, origin)
        )
        return path

    return write


def accuracy(path: Path, *, side: int = 32) -> Accuracy | None:
    asked = Model("mobilenet_v1", OPTIONS, resolution=side, num_classes=3, weights=str(path))
    return network.create(asked, seed=0, warn=lambda text: None).weights.accuracy


def test_weights_that_we_trained_tell_their_accuracy_at_their_own_size(
    save: Callable[[object], Path],
) -> None:
    path = save({"accuracy": asdict(TOLD)})
    assert accuracy(path) == TOLD
    assert accuracy(path, side=64) is None


@pytest.mark.parametrize("origin", [{}, {"accuracy": None}, {"accuracy": {"top1": 3}}, ["odd"]])
def test_weights_that_do_not_tell_it_are_weights_all_the_same(
    origin: object, save: Callable[[object], Path]
) -> None:
    assert accuracy(save(origin)) is None
