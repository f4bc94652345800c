"""The epochs of a training, with its checkpoints, log and progress."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from keras_models.accuracy import Accuracy
from keras_models.images.datasets import Pictures
from keras_models.train import checkpoint, outputs, progressive
from keras_models.train.checkpoint import EpochMetrics, TrainingState
from keras_models.train.distribution import Replicas
from keras_models.train.settings import TrainingSettings
from keras_models.train.trainer import Trainer
from shufflelite.errors import InputError
from shufflelite.progress import Progress


class Loop:
    """A training in progress; `make_trainer` makes the trainer of an epoch, counted from 0."""

    def __init__(
        self,
        settings: TrainingSettings,
        progress: Progress,
        train: Pictures,
        make_trainer: Callable[[int], Trainer],
        replicas: Replicas,
        initial_weights: str,
        measure: Callable[[Mapping[str, np.ndarray]], Accuracy] | None = None,
    ) -> None:
        """`initial_weights` identifies them; `measure` evaluates weights on the test pictures."""
        self.settings, self.progress, self.train = settings, progress, train
        self.measure, self.start = measure, f"{train.sha256} {initial_weights}"
        self.out = Path(settings.out)
        self.make_trainer, self.replicas = make_trainer, replicas
        self.trainer, self.stage = make_trainer(0), progressive.stage_settings(settings, 0)
        if self.trainer.batch < settings.training.batch:
            progress.warn(
                f"a batch of {settings.training.batch} is more than the pictures: "
                f"each step takes all {self.trainer.batch}."
            )
        self.state = TrainingState()
        self.accuracy: Accuracy | None = None
        self.started = time.monotonic()
        self.first_step = 0

    def run(self) -> None:
        """Trains to the last step, from the checkpoint on if there is one."""
        path, trainer = self.out / outputs.CHECKPOINT, self.trainer
        if path.exists():
            self.state = checkpoint.restore(path, trainer.variables(), self.settings, self.start)
            self.first_step = trainer.step
            self.progress.tell(f"continues at step {trainer.step} of {trainer.steps}")
        while self.trainer.step < self.trainer.steps:
            self._epoch()

    def _epoch(self) -> None:
        """Completes the current epoch, evaluates, and writes the files."""
        number = len(self.state.epochs) + 1
        self._enter_stage(number - 1)
        trainer, total = self.trainer, self.trainer.steps_per_epoch
        saved = start = time.monotonic()
        with self.progress.stage(f"epoch {number}/{self.settings.training.epochs}") as on_step:
            step = trainer.step % total
            for images, labels in self.train.read(trainer.batches(len(self.train))):
                loss, right = trainer.train(images, labels)
                self._check(math.isfinite(loss))
                step += 1
                now = time.monotonic()
                self.state = replace(
                    self.state,
                    loss_sum=self.state.loss_sum + loss,
                    right=self.state.right + right,
                    seconds=self.state.seconds + now - start,
                )
                start = now
                # All machines save after the same step, though their clocks differ.
                due = self.replicas.any(now - saved > self.settings.save_every_s)
                if due and step < total:
                    self._save(self._arrays())
                    saved = start = time.monotonic()
                on_step(step, total)
            self._evaluate()
        self._end_epoch(number)

    def finish(self) -> None:
        """Evaluates, if this run has not yet, and writes the last weights."""
        if self.measure and not self.accuracy:
            with self.progress.stage("evaluate"):
                self._evaluate()
        self._write_weights(outputs.LAST)

    def _enter_stage(self, epoch: int) -> None:
        if (stage := progressive.stage_settings(self.settings, epoch)) != self.stage:
            before, self.stage = self.trainer, stage
            self.trainer = self.make_trainer(epoch)
            self.trainer.copy_variables(before.variables())

    def _evaluate(self) -> None:
        if self.measure:
            self.accuracy = self.measure(self.trainer.weights())

    def _end_epoch(self, number: int) -> None:
        trainer, state = self.trainer, self.state
        pictures = trainer.steps_per_epoch * trainer.batch
        row = EpochMetrics(
            epoch=number,
            learning_rate=trainer.learning_rate(trainer.step - 1),
            loss=state.loss_sum / trainer.steps_per_epoch,
            top1=100 * state.right / pictures,
            images_per_s=pictures / state.seconds,
        )
        if test := self.accuracy:
            row = replace(row, test_loss=test.loss, test_top1=test.top1, test_top5=test.top5)
        best = max((e.test_top1 for e in state.epochs if e.test_top1 is not None), default=-1.0)
        self.state = TrainingState((*state.epochs, row))
        arrays = self._arrays()
        if row.test_top1 is not None and row.test_top1 > best:
            self._write_weights(outputs.BEST)
        self._save(arrays)
        if self.replicas.chief:
            outputs.write_log(self.out / outputs.LOG, self.state.epochs)
            if self.settings.tensorboard:
                outputs.write_events(self.out / "tensorboard", row)
        self._report(row)

    def _report(self, row: EpochMetrics) -> None:
        trainer = self.trainer
        s_per_step = (time.monotonic() - self.started) / (trainer.step - self.first_step)
        remaining_s = s_per_step * (trainer.steps - trainer.step)
        test = "" if row.test_top1 is None else f", test top-1 {row.test_top1:.2f} %"
        what = "top-1" if trainer.learns_labels else "agreement with the teacher"
        self.progress.tell(
            f"loss {row.loss:.4f}, {what} {row.top1:.2f} %{test}, {row.images_per_s:.0f} images/s"
            + (f"; {remaining_s / 60:.1f} min left" if remaining_s else "")
        )

    def _check(self, finite: bool) -> None:
        if not finite:
            saved = (self.out / outputs.CHECKPOINT).exists()
            raise InputError(
                f"Expected a finite loss, got inf or nan at step {self.trainer.step} of "
                f"{self.trainer.steps}: lower the learning rate, or set training.clip_norm"
                + ("; the last checkpoint is kept." if saved else ".")
            )

    def _arrays(self) -> dict[str, np.ndarray]:
        # All machines take part in reading the variables that they share; one writes them.
        arrays = {name: np.asarray(v.numpy()) for name, v in self.trainer.variables().items()}
        self._check(all(np.isfinite(array).all() for array in arrays.values()))
        return arrays

    def _save(self, arrays: dict[str, np.ndarray]) -> None:
        if self.replicas.chief:
            path = self.out / outputs.CHECKPOINT
            checkpoint.save(path, arrays, self.state, self.settings, self.start)

    def _write_weights(self, name: str) -> None:
        arrays, epoch = self.trainer.weights(), self.state.epochs[-1]
        if self.replicas.chief:
            path, settings = self.out / name, self.settings
            outputs.write_weights(path, arrays, settings, self.train, epoch, self.accuracy)
