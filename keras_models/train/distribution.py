"""Several devices or machines in one training, by tf.distribute."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from shufflelite.errors import InputError


class WorkerLostError(Exception):
    """Another machine of the training does not answer."""


@contextlib.contextmanager
def lost_workers(several_machines: bool) -> Iterator[None]:
    """Turns the errors of TensorFlow for a machine that is gone into WorkerLostError."""
    try:
        yield
    except (
        tf.errors.AbortedError,
        tf.errors.DeadlineExceededError,
        tf.errors.InternalError,
        tf.errors.UnavailableError,
    ) as error:
        if not several_machines:
            raise
        raise WorkerLostError(str(error)) from error


@dataclass(frozen=True, eq=False)
class Replicas:
    """The replicas of the model; `first` to `first + local` of them run in this process."""

    strategy: tf.distribute.Strategy
    first: int = 0
    local: int = 1
    chief: bool = True  # the process that writes the files
    several_machines: bool = False

    @property
    def count(self) -> int:
        """The number of replicas on all machines together."""
        return self.strategy.num_replicas_in_sync

    def share(self, batch: int) -> int:
        """Pictures of a batch for each replica; raises InputError for a fraction."""
        if batch % self.count:
            raise InputError(
                f"Expected a batch that {self.count} replicas can share, got {batch} pictures."
            )
        return batch // self.count

    def local_part(self, batch: np.ndarray) -> np.ndarray:
        """The part of a batch for the replicas of this process."""
        share = self.share(len(batch))
        return batch[self.first * share : (self.first + self.local) * share]

    def distribute(self, *arrays: np.ndarray) -> tuple[Any, ...]:
        """Divides the `local_part` of arrays among the replicas of this process."""
        if self.count == 1:
            return tuple(map(tf.convert_to_tensor, arrays))

        def distributed(array: np.ndarray) -> Any:
            share = len(array) // self.local

            def of_replica(context: Any) -> Any:
                start = (context.replica_id_in_sync_group - self.first) * share
                return tf.convert_to_tensor(array[start : start + share])

            return self.strategy.experimental_distribute_values_from_function(of_replica)

        return tuple(map(distributed, arrays))

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true on any machine; all machines call it after the same step."""
        if not self.several_machines:
            return flag
        flags = self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(int(flag))
        )
        return bool(self.strategy.reduce("SUM", flags, axis=None))


def create(name: str) -> Replicas:
    """Creates the strategy of that name in `settings.Distribution`, before any use of TensorFlow.

    Raises:
      InputError: "multi_worker" without a valid TF_CONFIG.
      WorkerLostError: a machine did not come, or was lost, before all had connected.
    """
    if name == "one":
        return Replicas(tf.distribute.get_strategy())
    if name == "mirrored":
        strategy = tf.distribute.MirroredStrategy()
        return Replicas(strategy, 0, strategy.num_replicas_in_sync)
    if "TF_CONFIG" not in os.environ:
        raise InputError(
            "distribution.strategy = 'multi_worker' needs the environment variable TF_CONFIG, as "
            '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", '
            '"index": 0}}, with another index on each machine.'
        )
    try:
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        index, machines = resolver.task_id, len(resolver.cluster_spec().as_dict()["worker"])
        with lost_workers(machines > 1):
            strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"TF_CONFIG: {error}") from error
    local = strategy.num_replicas_in_sync // machines
    return Replicas(strategy, index * local, local, chief=index == 0, several_machines=machines > 1)
