"""The variables of a training, and the step that changes them."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from keras_models.checkpoints.files import weight_keys
from keras_models.layers import Tensor
from keras_models.train import augment, schedule
from keras_models.train.distribution import Replicas
from keras_models.train.fast_layers import Randomness
from keras_models.train.settings import Augment, TrainingSettings
from keras_models.train.teacher import Teacher


class Trainer:
    """Model, averaged weights and optimizer of one stage of a training."""

    def __init__(
        self,
        build: Callable[[Randomness], keras.Model],
        settings: TrainingSettings,
        augment: Augment,
        *,
        pictures: int,
        replicas: Replicas,
        teacher: Teacher | None = None,
    ) -> None:
        """Builds the model; an epoch has all complete batches of that number of `pictures`."""
        self.settings, self._augment, self._replicas = settings, augment, replicas
        self._teacher = teacher
        self.batch = min(settings.training.batch, pictures)
        self._local = replicas.share(self.batch)
        self.steps_per_epoch = pictures // self.batch
        with replicas.strategy.scope():
            self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
            self.model = build(Randomness(settings.seed, self._step))
            self._optimizer = _optimizer(self.model, settings)
            self._averages = _averages(self.model) if settings.training.ema else []

    @property
    def step(self) -> int:
        """The number of completed steps."""
        return int(self._step.numpy())

    @property
    def steps(self) -> int:
        """The number of steps of the training."""
        return self.steps_per_epoch * self.settings.training.epochs

    @property
    def learns_labels(self) -> bool:
        """Whether labels have an influence; otherwise the teacher's best class replaces them."""
        return self._teacher is None or self._teacher.share < 1

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step."""
        training = self.settings.training
        return schedule.learning_rate(
            step,
            steps=self.steps,
            warmup_steps=training.warmup_epochs * self.steps_per_epoch,
            maximum=training.learning_rate,
        )

    def batches(self, pictures: int) -> Iterator[np.ndarray]:
        """Yields this process's indices of the remaining batches of the epoch, in its own order."""
        epoch, first = divmod(self.step, self.steps_per_epoch)
        order = np.random.default_rng([self.settings.seed, epoch]).permutation(pictures)
        for start in range(first, self.steps_per_epoch):
            batch = order[start * self.batch : (start + 1) * self.batch]
            yield self._replicas.local_part(batch)

    def train(self, images: np.ndarray, labels: np.ndarray) -> tuple[float, int]:
        """Makes one step on this process's uint8 pictures.

        Returns:
          The mean loss of the pictures of all processes, and how many were classified as their
          labels say (as the teacher does, unless `learns_labels`).
        """
        self._optimizer.learning_rate.assign(self.learning_rate(self.step))
        loss, right = self._train(*self._replicas.distribute(images, labels))
        return float(loss), int(right)

    def variables(self) -> dict[str, tf.Variable]:
        """Everything that the next step depends on, by name."""
        named = {"step": self._step}
        named |= {f"model/{key}": weight for key, weight in self._weights()}
        keys = [key for key, _ in self._weights()]
        named |= {f"averaged/{k}": v for k, v in zip(keys, self._averages, strict=False)}
        for number, variable in enumerate(self._optimizer.variables):
            named[f"optimizer/{number:04}"] = variable
        return named

    def weights(self) -> dict[str, np.ndarray]:
        """The weights to evaluate and write: the averages, if there are any."""
        kept = self._averages or [weight for _, weight in self._weights()]
        keys = [key for key, _ in self._weights()]
        return {key: weight.numpy() for key, weight in zip(keys, kept, strict=True)}

    def copy_variables(self, variables: Mapping[str, tf.Variable]) -> None:
        """Copies the `variables` of another trainer of this network."""
        for name, variable in self.variables().items():
            variable.assign(variables[name].numpy())

    def _weights(self) -> Iterator[tuple[str, tf.Variable]]:
        for layer in self.model.layers:
            keys = weight_keys(layer.name, [weight.name for weight in layer.weights])
            yield from zip(keys, layer.weights, strict=True)

    @tf.function(reduce_retracing=True)
    def _train(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        strategy = self._replicas.strategy
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
        inputs = augment.normalize(inputs, settings.input_preprocessing)
        inputs, targets = augment.mixup(inputs, targets, self._augment.mixup, draw)
        teacher, softened = self._teacher, None
        if teacher:
            answers = teacher.model(inputs, training=False)
            softened = tf.nn.softmax(answers / teacher.temperature)
            if not self.learns_labels:
                labels = tf.argmax(answers, axis=1)
        scaled = settings.training.precision == "float16"
        with tf.GradientTape() as tape:
            logits = tf.cast(self.model(inputs, training=True), tf.float32)
            loss = _cross_entropy(targets, logits)
            if teacher:
                distilled = _cross_entropy(softened, logits / teacher.temperature)
                distilled *= teacher.temperature**2
                loss = (1 - teacher.share) * loss + teacher.share * distilled
            loss *= local / self.batch  # the optimizer sums the gradients of the replicas
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
        """Averages the variables of each replica (batch norms'), or those that replicas share."""
        steps = tf.cast(self._step + 1, tf.float32)
        # A lower decay in the first steps, or the average would keep the random weights.
        decay = tf.minimum(self.settings.training.ema, (1 + steps) / (10 + steps))
        for mean, (_, value) in zip(self._averages, self._weights(), strict=False):
            if (value.synchronization is tf.VariableSynchronization.ON_READ) == of_replica:
                mean.assign_sub((1 - decay) * (mean - value))


def _cross_entropy(targets: Tensor, logits: Tensor) -> Tensor:
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))


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
    # The size of a weight before a batch norm does not matter, and the nine weights of a depthwise
    # kernel cannot overfit: little or no decay on them is important (MobileNet V1, Section 3.3).
    undecayed = ["gamma", "beta", "bias"] + ["depthwise_kernel"] * (not training.decay_depthwise)
    optimizer.exclude_from_weight_decay(
        var_list=[
            v for v in model.trainable_variables if any(f"/{k}:" in v.name for k in undecayed)
        ]
    )
    optimizer.build(model.trainable_variables)
    if training.precision == "float16":
        return keras.mixed_precision.LossScaleOptimizer(optimizer)
    return optimizer
