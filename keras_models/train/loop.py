"""The epochs of a training, and what is told and written of them."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from keras_models.accuracy import Accuracy
from keras_models.images.datasets import Split
from keras_models.train import checkpoint, outputs, progressive
from keras_models.train.distribution import Workers
from keras_models.train.settings import TrainingSettings
from keras_models.train.trainer import Trainer
from shufflelite.errors import InputError
from shufflelite.progress import Progress


class Loop:
    """A training that is under way; `make_trainer` makes that of an epoch, counted from 0."""

    def __init__(
        self,
        settings: TrainingSettings,
        progress: Progress,
        train: Split,
        make_trainer: Callable[[int], Trainer],
        workers: Workers,
        start: str,
        measure: Callable[[Mapping[str, np.ndarray]], Accuracy] | None = None,
    ) -> None:
        """Starts from weights that `start` tells from others; `measure` tests weights."""
        self.settings, self.progress, self.train = settings, progress, train
        self.measure, self.start = measure, f"{train.sha256} {start}"
        self.out = Path(settings.out)
        self.make_trainer, self.workers = make_trainer, workers
        self.trainer, self.stage = make_trainer(0), progressive.stage(settings, 0)
        if self.trainer.batch < settings.training.batch:
            progress.warn(
                f"a batch of {settings.training.batch} is more than the pictures: "
                f"each step takes all {self.trainer.batch}."
            )
        self.done = checkpoint.Progress()
        self.accuracy: Accuracy | None = None
        self.started = time.monotonic()
        self.started_at = 0  # step

    def run(self) -> None:
        """Trains to the last step, from the checkpoint on where there is one."""
        if (self.out / outputs.CHECKPOINT).exists():
            self._restore()
        while self.trainer.step < self.trainer.steps:
            self._epoch()

    def _restore(self) -> None:
        self.done = checkpoint.restore(
            self.out / outputs.CHECKPOINT,
            self.trainer.variables(),
            self.settings,
            self.start,
        )
        self.started_at = self.trainer.step
        self.progress.tell(f"goes on from step {self.trainer.step} of {self.trainer.steps}")

    def _epoch(self) -> None:
        """Finishes the epoch that is under way, evaluates, writes."""
        number = len(self.done.epochs) + 1
        self._enter_stage(number - 1)
        trainer, total = self.trainer, self.trainer.steps_per_epoch
        saved = start = time.monotonic()
        with self.progress.stage(f"epoch {number}/{self.settings.training.epochs}") as on_step:
            done = trainer.step % total
            for images, labels in self.train.read(trainer.batches(len(self.train))):
                loss, right = trainer.train(images, labels)
                self._check(math.isfinite(loss))
                done += 1
                now = time.monotonic()
                self.done = replace(
                    self.done,
                    loss_sum=self.done.loss_sum + loss,
                    right=self.done.right + right,
                    seconds=self.done.seconds + now - start,
                )
                start = now
                # All save after the same step, though their clocks differ.
                due = self.workers.any(now - saved > self.settings.save_every_s)
                if due and done < total:
                    self._save(self._state())
                    saved = start = time.monotonic()
                on_step(done, total)
            self._evaluate()
        self._end_epoch(number)

    def finish(self) -> None:
        """Evaluates where this run has not, and writes the last weights."""
        if self.measure and not self.accuracy:
            with self.progress.stage("evaluate"):
                self._evaluate()
        self._write_weights(outputs.LAST)

    def _enter_stage(self, epoch: int) -> None:
        if (stage := progressive.stage(self.settings, epoch)) != self.stage:
            before, self.stage = self.trainer, stage
            self.trainer = self.make_trainer(epoch)
            self.trainer.take(before.variables())

    def _evaluate(self) -> None:
        if self.measure:
            self.accuracy = self.measure(self.trainer.weights())

    def _end_epoch(self, number: int) -> None:
        trainer, done = self.trainer, self.done
        pictures = trainer.steps_per_epoch * trainer.batch
        row = checkpoint.Epoch(
            epoch=number,
            learning_rate=trainer.learning_rate(trainer.step - 1),
            loss=done.loss_sum / trainer.steps_per_epoch,
            top1=100 * done.right / pictures,
            images_per_s=pictures / done.seconds,
        )
        if test := self.accuracy:
            row = replace(row, test_loss=test.loss, test_top1=test.top1, test_top5=test.top5)
        best = max((e.test_top1 for e in done.epochs if e.test_top1 is not None), default=-1.0)
        self.done = checkpoint.Progress((*done.epochs, row))
        state = self._state()
        if row.test_top1 is not None and row.test_top1 > best:
            self._write_weights(outputs.BEST)
        self._save(state)
        if self.workers.chief:
            outputs.write_log(self.out / outputs.LOG, self.done.epochs)
        if self.workers.chief and self.settings.tensorboard:
            outputs.write_events(self.out / "tensorboard", self.done.epochs[-1:])
        self._tell(row)

    def _tell(self, row: checkpoint.Epoch) -> None:
        trainer = self.trainer
        pace = (time.monotonic() - self.started) / (trainer.step - self.started_at)
        left = pace * (trainer.steps - trainer.step)
        test = "" if row.test_top1 is None else f", test top-1 {row.test_top1:.2f} %"
        self.progress.tell(
            f"loss {row.loss:.4f}, top-1 {row.top1:.2f} %{test}, {row.images_per_s:.0f} images/s"
            + (f"; {left / 60:.1f} min left" if left else "")
        )

    def _check(self, finite: bool) -> None:
        if not finite:
            begun = (self.out / outputs.CHECKPOINT).exists()
            raise InputError(
                f"Expected a finite loss, got others at step {self.trainer.step} of "
                f"{self.trainer.steps}: lower the learning rate, or set training.clip_norm"
                + ("; the checkpoint before is as it was." if begun else ".")
            )

    def _state(self) -> dict[str, np.ndarray]:
        # All workers take part in reading what they share; one writes it.
        state = {name: np.asarray(v.numpy()) for name, v in self.trainer.variables().items()}
        self._check(all(np.isfinite(array).all() for array in state.values()))
        return state

    def _save(self, state: dict[str, np.ndarray]) -> None:
        if self.workers.chief:
            path = self.out / outputs.CHECKPOINT
            checkpoint.save(path, state, self.done, self.settings, self.start)

    def _write_weights(self, name: str) -> None:
        arrays = self.trainer.weights()
        if self.workers.chief:
            accuracy = asdict(self.accuracy) if self.accuracy else None
            epoch = self.done.epochs[-1]
            path = self.out / name
            outputs.write_weights(path, arrays, self.settings, self.train, epoch, accuracy)
