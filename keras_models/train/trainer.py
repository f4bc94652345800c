"""A network in training: its variables, and the step that changes them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from keras_models.checkpoints.files import weight_keys
from keras_models.layers import Tensor
from keras_models.train import augment, schedule
from keras_models.train.distribution import Workers
from keras_models.train.fast_layers import Randomness
from keras_models.train.settings import Augment, TrainingSettings


@dataclass(frozen=True, eq=False)
class Teacher:
    """A network whose answers are a part of what another one learns (arXiv:1503.02531).

    Attributes:
      model: Takes the same inputs, gives logits of the same classes.
      share: Of its probabilities in the targets, the rest are the labels'; 0 to 1.
    """

    model: keras.Model
    share: float


class Trainer:
    """Model, averaged weights and optimizer, as one stage of a training has them.

    Attributes:
      model: What is trained.
    """

    def __init__(
        self,
        build: Callable[[Randomness], keras.Model],
        settings: TrainingSettings,
        augment: Augment,
        *,
        pictures: int,
        workers: Workers,
        teacher: Teacher | None = None,
    ) -> None:
        """Builds the model; an epoch is as many whole batches as `pictures` give."""
        self.settings, self._augment, self._workers = settings, augment, workers
        self._teacher = teacher
        self.batch = min(settings.training.batch, pictures)
        self._local = workers.share(self.batch)
        self.steps_per_epoch = pictures // self.batch
        with workers.strategy.scope():
            self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
            self.model = build(Randomness(settings.seed, self._step))
            self._optimizer = _optimizer(self.model, settings)
            self._averages = _averages(self.model) if settings.training.ema else []

    @property
    def step(self) -> int:
        """How many steps were made."""
        return int(self._step.numpy())

    @property
    def steps(self) -> int:
        """How many steps the training has."""
        return self.steps_per_epoch * self.settings.training.epochs

    def learning_rate(self, step: int) -> float:
        """The rate of that step."""
        training = self.settings.training
        return schedule.learning_rate(
            step,
            steps=self.steps,
            warmup_steps=training.warmup_epochs * self.steps_per_epoch,
            maximum=training.learning_rate,
        )

    def batches(self, pictures: int) -> Iterator[np.ndarray]:
        """This worker's indices of the batches left of this epoch, which has its own order."""
        epoch, done = divmod(self.step, self.steps_per_epoch)
        order = np.random.default_rng([self.settings.seed, epoch]).permutation(pictures)
        for start in range(done, self.steps_per_epoch):
            batch = order[start * self.batch : (start + 1) * self.batch]
            yield self._workers.own(batch)

    def train(self, images: np.ndarray, labels: np.ndarray) -> tuple[float, int]:
        """Makes one step on this worker's uint8 pictures.

        Returns:
          The mean loss of all workers' pictures and how many of them were right.
        """
        self._optimizer.learning_rate.assign(self.learning_rate(self.step))
        loss, right = self._train(*self._workers.distribute(images, labels))
        return float(loss), int(right)

    def variables(self) -> dict[str, tf.Variable]:
        """Everything that makes the next step what it is, by name."""
        named = {"step": self._step}
        named |= {f"model/{key}": weight for key, weight in self._weights()}
        keys = [key for key, _ in self._weights()]
        named |= {f"averaged/{k}": v for k, v in zip(keys, self._averages, strict=False)}
        for number, variable in enumerate(self._optimizer.variables):
            named[f"optimizer/{number:04}"] = variable
        return named

    def weights(self) -> dict[str, np.ndarray]:
        """The weights to evaluate and keep: the averages, where there are."""
        kept = self._averages or [weight for _, weight in self._weights()]
        keys = [key for key, _ in self._weights()]
        return {key: weight.numpy() for key, weight in zip(keys, kept, strict=True)}

    def take(self, variables: Mapping[str, tf.Variable]) -> None:
        """Goes on from the `variables` of another trainer of this network."""
        for name, variable in self.variables().items():
            variable.assign(variables[name].numpy())

    def _weights(self) -> Iterator[tuple[str, tf.Variable]]:
        for layer in self.model.layers:
            keys = weight_keys(layer.name, [weight.name for weight in layer.weights])
            yield from zip(keys, layer.weights, strict=True)

    @tf.function(reduce_retracing=True)
    def _train(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        strategy = self._workers.strategy
        each = strategy.run(self._train_replica, args=(images, labels))
        self._average(of_replica=False)
        self._step.assign_add(1)
        loss, right = (strategy.reduce("SUM", value, axis=None) for value in each)
        return loss, right

    def _train_replica(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        settings, local = self.settings, self._local
        seed = tf.stack([tf.constant(settings.seed, tf.int64), self._step])
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        draw = augment.Draw(seed, total=self.batch, first=replica * local, local=local)
        targets = tf.one_hot(labels, self.model.output.shape[-1])
        smoothing = settings.training.label_smoothing
        targets = targets * (1 - smoothing) + smoothing / targets.shape[-1]
        inputs = augment.augment(images, self._augment, self.model.input.shape[1], draw)
        inputs = augment.normalize(inputs, settings.seen)
        inputs, targets = augment.mixup(inputs, targets, self._augment.mixup, draw)
        if self._teacher:
            answers = tf.nn.softmax(self._teacher.model(inputs, training=False))
            targets += self._teacher.share * (answers - targets)
        scaled = settings.training.precision == "float16"
        with tf.GradientTape() as tape:
            logits = tf.cast(self.model(inputs, training=True), tf.float32)
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))
            loss *= local / self.batch  # the optimizer adds the workers' gradients up
            objective = self._optimizer.get_scaled_loss(loss) if scaled else loss
        variables = self.model.trainable_variables
        gradients = tape.gradient(objective, variables)
        if scaled:
            gradients = self._optimizer.get_unscaled_gradients(gradients)
        self._optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self._average(of_replica=True)
        right = tf.argmax(logits, axis=1) == labels
        return loss, tf.reduce_sum(tf.cast(right, tf.int32))

    def _average(self, *, of_replica: bool) -> None:
        """Averages the variables that each replica has its own of (batch norms'), or the others."""
        done = tf.cast(self._step + 1, tf.float32)
        # In the first steps the decay is lower, or the average would remember the random weights.
        decay = tf.minimum(self.settings.training.ema, (1 + done) / (10 + done))
        for mean, (_, value) in zip(self._averages, self._weights(), strict=False):
            if (value.synchronization is tf.VariableSynchronization.ON_READ) == of_replica:
                mean.assign_sub((1 - decay) * (mean - value))


def _averages(model: keras.Model) -> list[tf.Variable]:
    return [
        tf.Variable(
            weight,
            trainable=False,
            synchronization=weight.synchronization,
            aggregation=weight.aggregation,
        )
        for layer in model.layers
        for weight in layer.weights
    ]


def _optimizer(model: keras.Model, settings: TrainingSettings) -> Any:
    training = settings.training
    common = {
        "weight_decay": training.weight_decay,
        "global_clipnorm": training.clip_norm,
        "jit_compile": False,
    }
    if training.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(momentum=training.momentum, nesterov=True, **common)
    else:
        optimizer = keras.optimizers.AdamW(**common)
    # Behind a batch norm a weight's size does not matter, and a depthwise kernel's nine weights
    # cannot overfit: MobileNet V1's paper found little or no decay on them important (Section 3.3).
    kept = ["gamma", "beta", "bias"] + ["depthwise_kernel"] * (not training.decay_depthwise)
    optimizer.exclude_from_weight_decay(
        var_list=[v for v in model.trainable_variables if any(f"/{k}:" in v.name for k in kept)]
    )
    optimizer.build(model.trainable_variables)
    if training.precision == "float16":
        return keras.mixed_precision.LossScaleOptimizer(optimizer)
    return optimizer
