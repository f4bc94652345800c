"""Machines of one training, as processes on loopback."""

import contextlib
import json
import os
import socket
from collections.abc import Sequence


def free_hosts(count: int) -> list[str]:
    """Addresses that nobody has yet."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for taken in sockets:
            taken.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{taken.getsockname()[1]}" for taken in sockets]


def environment(hosts: Sequence[str], index: int) -> dict[str, str]:
    """Of machine `index` of those."""
    task = {"cluster": {"worker": list(hosts)}, "task": {"type": "worker", "index": index}}
    return {**os.environ, "TF_CONFIG": json.dumps(task)}
