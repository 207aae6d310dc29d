"""Several processes, on one host or on several, that make one training: who is who, and sums over all of them.

Each process computes the gradients of its share of every batch; they are averaged, and each takes the same step. The sums
are TensorFlow's collective operations, over the servers that its ``MultiWorkerMirroredStrategy`` starts. The rest of that
strategy is not used: Keras 3 does not train in its scope, and clips gradients there before it sums them.

A process that ends, for whatever reason, ends the others: they wait for it in the next sum, which then fails.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Tensor = Any

GROUP = 1  # of the collective operations: all processes are in it
_ADDRESS = re.compile(r"[^\s,:/]+:\d{1,5}")


class WorkersError(ValueError):
    """Processes that cannot train together; the message gives the reason and the remedy."""


class Workers:
    """The processes of a training, of which this is one.

    Args:
        number: of this process, from 0; the first one validates and writes.
        count: of all.
    """

    def __init__(self, number: int = 0, count: int = 1) -> None:
        self.number, self.count = number, count
        self._keys = itertools.count(1)  # of sums: all processes make the same ones in the same order
        self._strategy: Any = None  # keeps the connections

    @property
    def is_first(self) -> bool:
        return self.number == 0

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes of a tensor that has one shape in all of them; its gradient is the sum of theirs."""
        if self.count == 1:
            return tensor
        import tensorflow as tf

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def reduce(part: Tensor) -> Any:
            return self._sum(part), self._sum

        return reduce(tensor)

    def _sum(self, part: Tensor) -> Tensor:
        import tensorflow as tf

        return tf.raw_ops.CollectiveReduceV2(
            input=part, group_size=self.count, group_key=GROUP, instance_key=next(self._keys), ordering_token=[],
            merge_op="Add", final_op="Id",
        )  # fmt: skip

    def means(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The means over all processes of float32 tensors, in one sum; None stays None."""
        if self.count == 1:
            return list(tensors)
        import tensorflow as tf

        there = [tensor for tensor in tensors if tensor is not None]
        flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in there], axis=0)
        parts = tf.split(self.total(flat) / self.count, [int(np.prod(tensor.shape)) for tensor in there])
        means = (tf.reshape(part, tensor.shape) for part, tensor in zip(parts, there, strict=True))
        return [None if tensor is None else next(means) for tensor in tensors]

    def from_first(self, value: Any) -> Any:
        """The first process's value, of JSON's kinds; what the others give is not looked at."""
        if self.count == 1:
            return value
        text = np.frombuffer(json.dumps(value).encode(), np.uint8) if self.is_first else np.zeros(0, np.uint8)
        size = int(self._numbers_of_first(np.array([len(text)]))[0])
        text = np.resize(text, size) if self.is_first else np.zeros(size, np.uint8)
        return json.loads(self._numbers_of_first(text).astype(np.uint8).tobytes())

    def level(self, variables: Sequence[Any]) -> None:
        """Sets Keras variables to what the first process's hold."""
        if self.count == 1:
            return
        for variable in variables:
            held = np.asarray(variable.value)
            variable.assign(self._numbers_of_first(held).astype(held.dtype))

    def _numbers_of_first(self, values: np.ndarray) -> np.ndarray:
        """The first process's numbers, whole ones up to 2^53 exactly."""
        import tensorflow as tf

        dtype = tf.float32 if values.dtype == np.float32 else tf.float64
        with tf.device("CPU:0"):
            part = tf.cast(tf.convert_to_tensor(values if self.is_first else np.zeros_like(values)), dtype)
            return np.asarray(self._sum(part))


ALONE = Workers()


def has_lost_others(error: BaseException) -> bool:
    """Whether the exception is a sum's that waited for a process which is gone."""
    return any(kind.__name__ == "OpError" for kind in type(error).__mro__) and "ollective" in str(error)


def workers_given(addresses: str | None, number: int | None) -> tuple[list[str], int]:
    """The addresses of all processes, and which is this one's, from 0; no addresses where this is the only process.

    Args:
        addresses: HOST:PORT of each, separated by commas; None takes what ``TF_CONFIG`` says, as queues of clusters set it.
        number: of this process, from 1.

    Raises:
        WorkersError: they are not to be understood, or do not go together.
    """
    if addresses is None:
        if number is not None:
            raise WorkersError("--worker: which of which processes? name them all with --workers")
        return _of_variable(os.environ.get("TF_CONFIG"))
    listed = [address.strip() for address in addresses.split(",")]
    for address in listed:
        if not _ADDRESS.fullmatch(address) or not 0 < int(address.rpartition(":")[2]) < 65536:
            raise WorkersError(f"--workers: {address or 'nothing'} is no HOST:PORT")
    if len(set(listed)) < len(listed):
        raise WorkersError("--workers: each process needs an address of its own; one stands twice")
    if number is None or not 1 <= number <= len(listed):
        raise WorkersError(f"--worker: must say which of the {len(listed)} processes this is, from 1")
    return (listed, number - 1) if len(listed) > 1 else ([], 0)


def _of_variable(text: str | None) -> tuple[list[str], int]:
    if not text:
        return [], 0
    try:
        config = json.loads(text)
        cluster, task = config.get("cluster", {}), config.get("task", {})
        listed = [*cluster.get("chief", []), *cluster.get("worker", [])]
        number = int(task.get("index", 0)) + (len(cluster.get("chief", [])) if task.get("type") == "worker" else 0)
        if not all(_ADDRESS.fullmatch(address) for address in listed) or not 0 <= number < max(1, len(listed)):
            raise ValueError
    except (ValueError, TypeError, AttributeError) as error:
        raise WorkersError("TF_CONFIG: names no processes that can train; unset it, or give --workers") from error
    return (listed, number) if len(listed) > 1 else ([], 0)


def join(addresses: Sequence[str], number: int) -> Workers:
    """Connects this process with the others, for which it waits; to be called before the first tensor.

    Args:
        addresses: HOST:PORT of each.
        number: of this process, from 0.

    Raises:
        WorkersError: its port cannot be had, or the others do not come.
    """
    import tensorflow as tf

    cluster = tf.train.ClusterSpec({"worker": list(addresses)})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        cluster, task_type="worker", task_id=number, rpc_layer="grpc"
    )
    workers = Workers(number, len(addresses))
    try:
        with _ended_by_ctrl_c():
            workers._strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except (tf.errors.OpError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WorkersError(f"{addresses[number]}: cannot be joined to {', '.join(addresses)} ({reason}); check that each "
                           "process has its own --worker, and that no firewall or program holds the port") from error
    return workers


@contextlib.contextmanager
def _ended_by_ctrl_c() -> Iterator[None]:
    """Has Ctrl-C end the process at once: while it waits in a library Python hears of no signal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
