"""Several devices or machines in one training: tf.distribute, by one setting."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from shufflelite.errors import InputError


class WorkerLostError(Exception):
    """Another machine of the training does not answer any more."""


@contextlib.contextmanager
def lost_workers(several: bool) -> Iterator[None]:
    """Raises WorkerLostError where an operation fails because one of several machines does."""
    try:
        yield
    except (
        tf.errors.AbortedError,
        tf.errors.DeadlineExceededError,
        tf.errors.InternalError,
        tf.errors.UnavailableError,
    ) as error:
        if not several:
            raise
        raise WorkerLostError(str(error)) from error


@dataclass(frozen=True, eq=False)
class Workers:
    """Which of the replicas run here: `first` to `first + local` of all."""

    strategy: tf.distribute.Strategy
    first: int = 0
    local: int = 1
    chief: bool = True  # the one that writes
    several: bool = False  # processes

    @property
    def replicas(self) -> int:
        """How many replicas all workers have together."""
        return self.strategy.num_replicas_in_sync

    def share(self, batch: int) -> int:
        """How many pictures of a batch a replica takes; raises InputError for a broken number."""
        if batch % self.replicas:
            raise InputError(
                f"Expected a batch that {self.replicas} replicas can share, got {batch} pictures."
            )
        return batch // self.replicas

    def own(self, batch: np.ndarray) -> np.ndarray:
        """The part of a batch that is of this worker."""
        share = self.share(len(batch))
        return batch[self.first * share : (self.first + self.local) * share]

    def distribute(self, *arrays: np.ndarray) -> tuple[Any, ...]:
        """Gives each replica of this worker its part of what `own` chose."""
        if self.replicas == 1:
            return tuple(map(tf.convert_to_tensor, arrays))

        def part(array: np.ndarray) -> Any:
            share = len(array) // self.local

            def of_replica(context: Any) -> Any:
                start = (context.replica_id_in_sync_group - self.first) * share
                return tf.convert_to_tensor(array[start : start + share])

            return self.strategy.experimental_distribute_values_from_function(of_replica)

        return tuple(map(part, arrays))

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true on any machine; all must ask after the same step."""
        if not self.several:
            return flag
        flags = self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(int(flag))
        )
        return bool(self.strategy.reduce("SUM", flags, axis=None))


def create(name: str) -> Workers:
    """Starts what `settings.Distribution` names; before anything else of TensorFlow.

    Raises:
      InputError: several machines, and no TF_CONFIG that says which.
      WorkerLostError: one of them did not come, or went, before all were there.
    """
    if name == "one":
        return Workers(tf.distribute.get_strategy())
    if name == "mirrored":
        strategy = tf.distribute.MirroredStrategy()
        return Workers(strategy, 0, strategy.num_replicas_in_sync)
    if "TF_CONFIG" not in os.environ:
        raise InputError(
            "distribution.strategy = 'multi_worker' needs the environment variable TF_CONFIG, as "
            '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", '
            '"index": 0}}, with an index of its own on each machine.'
        )
    try:
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        index, machines = resolver.task_id, len(resolver.cluster_spec().as_dict()["worker"])
        with lost_workers(machines > 1):
            strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"TF_CONFIG: {error}") from error
    local = strategy.num_replicas_in_sync // machines
    return Workers(strategy, index * local, local, chief=index == 0, several=machines > 1)
