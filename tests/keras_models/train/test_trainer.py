"""Single steps of training, against their formulas."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from keras_models.train import distribution
from keras_models.train.fast_layers import with_fast_layers
from keras_models.train.settings import Augment, Data, NetworkSettings, Training, TrainingSettings
from keras_models.train.teacher import Teacher
from keras_models.train.trainer import Trainer

PLAIN = Augment(crop="none", flip=False)
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
LABELS = np.arange(8) % 10


def make(
    model: Any, *, augment: Augment = PLAIN, teacher: Teacher | None = None, **training: Any
) -> Trainer:
    recipe = {"epochs": 4, "batch": 8, "warmup_epochs": 0.0, **training}
    settings = TrainingSettings(
        NetworkSettings("toy"), Data("x"), "out", training=Training(**recipe)
    )
    replicas = distribution.create("one")
    build = functools.partial(with_fast_layers, model)
    return Trainer(build, settings, augment, pictures=17, replicas=replicas, teacher=teacher)


def values(trainer: Trainer) -> dict[str, np.ndarray]:
    return {name: np.asarray(v.numpy()) for name, v in trainer.variables().items()}


def gradients(model: Any, smoothing: float = 0.0) -> tuple[float, dict[str, np.ndarray]]:
    """Loss and gradients by Keras' own layers, on inputs as Preprocessing makes them."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    targets = np.eye(10)[LABELS] * (1 - smoothing) + smoothing / 10
    with tf.GradientTape() as tape:
        logits = copy(IMAGES / np.float32(127.5) - 1, training=True)
        loss = -tf.reduce_mean(tf.reduce_sum(targets * tf.nn.log_softmax(logits), axis=1))
    grads = tape.gradient(loss, copy.trainable_variables)
    names = [variable.name.removesuffix(":0") for variable in copy.trainable_variables]
    return float(loss), dict(zip(names, (g.numpy() for g in grads), strict=True))


def test_a_step_of_sgd_is_nesterovs_with_decay_apart(toy: Any) -> None:
    trainer = make(toy, learning_rate=0.2, momentum=0.8, weight_decay=0.1, label_smoothing=0.1)
    before = values(trainer)
    loss, grads = gradients(toy, 0.1)
    found, right = trainer.train(IMAGES, LABELS)
    assert found == pytest.approx(loss, rel=1e-5)
    assert 0 <= right <= 8
    after = values(trainer)
    for name, gradient in grads.items():
        decayed = name.endswith("/kernel")  # neither batch norm nor bias nor depthwise kernel
        expected = before[f"model/{name}"] * (1 - 0.2 * 0.1 * decayed) - 0.2 * 1.8 * gradient
        np.testing.assert_allclose(after[f"model/{name}"], expected, rtol=1e-4, atol=1e-6)


def test_depthwise_kernels_decay_where_that_is_set(toy: Any) -> None:
    name = "model/depthwise/depthwise_kernel"
    kept, decayed = (
        values_after_a_step(make(toy, learning_rate=0.2, weight_decay=0.1, decay_depthwise=flag))
        for flag in (False, True)
    )
    initial = toy.get_layer("depthwise").depthwise_kernel.numpy()
    np.testing.assert_allclose(kept[name] - decayed[name], 0.2 * 0.1 * initial, atol=1e-6)


def values_after_a_step(trainer: Trainer) -> dict[str, np.ndarray]:
    trainer.train(IMAGES, LABELS)
    return values(trainer)


def test_gradients_are_clipped_by_the_norm_of_all_together(toy: Any) -> None:
    _, grads = gradients(toy)
    norm = np.sqrt(sum(np.square(g).sum() for g in grads.values()))
    trainer = make(
        toy, learning_rate=0.2, momentum=0.0, weight_decay=0.0, clip_norm=float(norm / 4)
    )
    before = values(trainer)
    after = values_after_a_step(trainer)
    for name, gradient in grads.items():
        expected = before[f"model/{name}"] - 0.2 * gradient / 4
        np.testing.assert_allclose(after[f"model/{name}"], expected, rtol=1e-4, atol=1e-6)


def test_a_first_step_of_adamw_is_the_sign_of_the_gradient(toy: Any) -> None:
    _, grads = gradients(toy)
    trainer = make(toy, optimizer="adamw", learning_rate=0.01, weight_decay=0.0)
    before = values(trainer)
    after = values_after_a_step(trainer)
    for name, gradient in grads.items():
        clear = np.abs(gradient) > 1e-3  # where Adam's epsilon is below 0.4 % of it
        step = (after[f"model/{name}"] - before[f"model/{name}"])[clear]
        np.testing.assert_allclose(step, -0.01 * np.sign(gradient[clear]), rtol=4e-3)


def fixed_teacher(share: float, temperature: float = 1.0) -> tuple[Teacher, np.ndarray]:
    """A teacher that says the next class, and its logits."""
    answers = (3 * np.eye(10)[(LABELS + 1) % 10] - 1).astype(np.float32)
    image = keras.Input((8, 8, 3))
    fixed = keras.layers.Lambda(lambda x: tf.constant(answers) + 0 * tf.reduce_sum(x))(image)
    return Teacher(keras.Model(image, fixed), share, temperature), answers


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_a_teachers_softened_answers_are_a_part_of_the_loss(toy: Any, temperature: float) -> None:
    teacher, answers = fixed_teacher(0.7, temperature)
    trainer = make(toy, teacher=teacher)
    loss, _ = trainer.train(IMAGES, LABELS)
    copy = keras.models.clone_model(toy)
    copy.set_weights(toy.get_weights())
    logits = copy(IMAGES / np.float32(127.5) - 1, training=True).numpy()

    def cross_entropy(targets: np.ndarray, logits: np.ndarray) -> float:
        return -float(np.mean(np.sum(targets * tf.nn.log_softmax(logits), axis=1)))

    softened = tf.nn.softmax(answers / temperature).numpy()
    expected = 0.3 * cross_entropy(np.eye(10)[LABELS], logits)
    expected += 0.7 * temperature**2 * cross_entropy(softened, logits / temperature)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_learned_from_the_teacher_alone_labels_have_no_influence(toy: Any) -> None:
    steps = []
    for labels in (LABELS, 0 * LABELS):
        trainer = make(toy, teacher=fixed_teacher(1.0)[0], learning_rate=0.3)
        for _ in range(8):
            _, right = trainer.train(IMAGES, labels)
        steps.append((right, values(trainer)))
    assert steps[0][0] == steps[1][0] > 0, "classes of the teacher, not those of the labels"
    for name, value in steps[0][1].items():
        np.testing.assert_array_equal(value, steps[1][1][name], err_msg=name)


def test_averages_follow_weights_and_statistics(toy: Any) -> None:
    trainer = make(toy, ema=0.7)
    means = {k: v for k, v in values(trainer).items() if k.startswith("averaged/")}
    assert len(means) == len(toy.weights)
    for step in range(1, 9):
        now = values_after_a_step(trainer)
        decay = min(0.7, (1 + step) / (10 + step))
        for name in means:
            value = now[name.replace("averaged/", "model/")]
            means[name] = decay * means[name] + (1 - decay) * value
    for name, mean in means.items():
        np.testing.assert_allclose(now[name], mean, rtol=1e-4, atol=1e-6, err_msg=name)
        np.testing.assert_array_equal(trainer.weights()[name.removeprefix("averaged/")], now[name])


def test_an_epoch_has_each_picture_once_and_its_own_order(toy: Any) -> None:
    trainer = make(toy)
    orders = []
    for _ in range(2):
        batches = list(trainer.batches(17))
        assert [len(batch) for batch in batches] == [8, 8]
        assert len(set(np.concatenate(batches))) == 16
        orders.append(np.concatenate(batches).tolist())
        trainer.train(IMAGES, LABELS)
        np.testing.assert_array_equal(list(trainer.batches(17)), batches[1:])
        trainer.train(IMAGES, LABELS)
    assert orders[0] != orders[1]


@pytest.mark.parametrize(
    "recipe",
    [
        {"ema": 0.9},
        {"optimizer": "adamw", "clip_norm": 1.0},
        {"precision": "float16", "learning_rate": 0.01},
    ],
    ids=str,
)
def test_variables_are_all_that_the_next_steps_depend_on(
    recipe: dict[str, Any], toy: Any, randomize: Callable[[Any], Any]
) -> None:
    augment = Augment(pad=2, randaugment_layers=1, mixup=0.2, cutout=2)
    first = make(toy, augment=augment, **recipe)
    for _ in range(3):
        first.train(IMAGES, LABELS)
    other = make(randomize(toy), augment=augment, **recipe)
    other.copy_variables(first.variables())
    expected = [first.train(IMAGES, LABELS) for _ in range(3)]
    assert [other.train(IMAGES, LABELS) for _ in range(3)] == expected
    assert len({loss for loss, _ in expected}) == 3
    for name, value in values(first).items():
        np.testing.assert_array_equal(values(other)[name], value, err_msg=name)


def test_float16_scales_the_loss_and_learns_what_float32_does(toy: Any) -> None:
    losses = {}
    for precision in ("float32", "float16"):
        trainer = make(toy, precision=precision, learning_rate=0.05, epochs=20)
        losses[precision] = [trainer.train(IMAGES, LABELS)[0] for _ in range(30)]
    np.testing.assert_allclose(losses["float16"], losses["float32"], rtol=0.02)
    assert losses["float16"][-1] < 0.8 * losses["float16"][0]
