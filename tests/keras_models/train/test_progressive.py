"""Progressive learning, against Algorithm 1."""

from keras_models.train.progressive import stage_settings
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
    resolutions = [stage_settings(settings("paper"), epoch).resolution for epoch in STARTS]
    assert resolutions == [128, 185, 242, 300]


def test_sizes_grow_as_the_released_code_does() -> None:
    resolutions = [stage_settings(settings("code"), epoch).resolution for epoch in STARTS]
    assert resolutions == [171, 214, 257, 300]


def test_stages_are_equally_long() -> None:
    sizes = [stage_settings(settings("paper"), epoch).resolution for epoch in range(350)]
    assert [sizes.index(size) for size in (128, 185, 242, 300)] == list(STARTS)


def test_regularization_grows_with_the_sizes() -> None:
    stages = [stage_settings(settings("code"), epoch) for epoch in STARTS]
    magnitudes = [stage.augment.randaugment_magnitude for stage in stages]
    dropouts = [stage.options["dropout"] for stage in stages]
    mixups = [stage.augment.mixup for stage in stages]
    for values, first, last in ((magnitudes, 5, 15), (dropouts, 0.1, 0.3), (mixups, 0, 0.2)):
        steps = [first + (last - first) * index / 3 for index in range(4)]
        assert max(abs(a - b) for a, b in zip(values, steps, strict=True)) < 1e-12
    assert {stage.options["stochastic_depth"] for stage in stages} == {0.2}


def test_a_training_without_stages_is_as_it_is_set() -> None:
    plain = TrainingSettings(NetworkSettings("mobilenet_v1", {"width": 0.5}, 96), Data("x"), "out")
    assert stage_settings(plain, 0) == stage_settings(plain, plain.training.epochs - 1)
    assert stage_settings(plain, 0).resolution == 96
    assert stage_settings(plain, 0).augment == plain.augment
