"""Progressive learning, against Algorithm 1."""

from keras_models.train.progressive import stage
from keras_models.train.settings import (
    Augment,
    Data,
    NetworkSettings,
    Progressive,
    Training,
    TrainingSettings,
)


def settings(sizes: str, *, stages: int = 4) -> TrainingSettings:
    """EfficientNetV2-S as its paper's Table 6 trains it: 128 to 300 pixels in four stages."""
    return TrainingSettings(
        NetworkSettings("efficientnet_v2_s", {"dropout": 0.3, "stochastic_depth": 0.2}, 384),
        Data("x"),
        "out",
        augment=Augment(crop="resized", randaugment_layers=2, randaugment_magnitude=15, mixup=0.2),
        training=Training(epochs=350, resolution=300),
        progressive=Progressive(
            stages, 128, sizes, {"dropout": 0.1}, randaugment_magnitude=5, mixup=0.0
        ),
    )


STARTS = (0, 88, 175, 263)  # the first epoch of each quarter of 350


def test_sizes_grow_as_algorithm_1_says() -> None:
    found = [stage(settings("paper"), epoch).resolution for epoch in STARTS]
    assert found == [128, 185, 242, 300]


def test_sizes_grow_as_the_released_code_does() -> None:
    found = [stage(settings("code"), epoch).resolution for epoch in STARTS]
    assert found == [171, 214, 257, 300]


def test_stages_are_equally_long() -> None:
    sizes = [stage(settings("paper"), epoch).resolution for epoch in range(350)]
    assert [sizes.index(size) for size in (128, 185, 242, 300)] == list(STARTS)


def test_regularization_grows_with_the_sizes() -> None:
    found = [stage(settings("code"), epoch) for epoch in STARTS]
    magnitudes = [one.augment.randaugment_magnitude for one in found]
    dropouts = [one.options["dropout"] for one in found]
    mixups = [one.augment.mixup for one in found]
    for values, first, last in ((magnitudes, 5, 15), (dropouts, 0.1, 0.3), (mixups, 0, 0.2)):
        steps = [first + (last - first) * index / 3 for index in range(4)]
        assert max(abs(a - b) for a, b in zip(values, steps, strict=True)) < 1e-12
    assert {one.options["stochastic_depth"] for one in found} == {0.2}


def test_a_training_without_stages_is_as_it_is_set() -> None:
    plain = TrainingSettings(NetworkSettings("mobilenet_v1", {"width": 0.5}, 96), Data("x"), "out")
    assert stage(plain, 0) == stage(plain, plain.training.epochs - 1)
    assert stage(plain, 0).resolution == 96
    assert stage(plain, 0).augment == plain.augment
