"""Several workers give the losses of one."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_models.train import distribution
from shufflelite.errors import InputError
from tests import forkserver
from tests.keras_models.train.cluster import environment, free_hosts

SCRIPT = Path(__file__).with_name("replicas.py")


def start(strategy: str, **given: str) -> subprocess.Popen[str]:
    env = {**os.environ, **given, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.getcwd()}
    command = [sys.executable, str(SCRIPT), strategy]
    return forkserver.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=forkserver.HANG_S)
    assert process.returncode == 0, err[-2000:]
    return json.loads(out.splitlines()[-1])


def on_two_machines() -> list[dict[str, Any]]:
    hosts = free_hosts(2)
    processes = [start("multi_worker", **environment(hosts, index)) for index in range(2)]
    try:
        return [result(process) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_two_replicas_and_two_machines_learn_what_one_does() -> None:
    alone = result(start("one"))
    assert alone["losses"][-1] < 0.9 * alone["losses"][0]
    for found in (result(start("mirrored")), *on_two_machines()):
        assert found["replicas"] == 2
        # Sums run in another order: float32 differs by 1e-7 of them, which steps amplify.
        np.testing.assert_allclose(found["losses"], alone["losses"], rtol=0, atol=1e-4)
        for name, value in alone["sums"].items():
            assert found["sums"][name] == pytest.approx(value, rel=1e-3, abs=1e-4), name


def test_a_batch_that_replicas_cannot_share_is_refused() -> None:
    class Three:
        num_replicas_in_sync = 3

    replicas = distribution.Replicas(Three(), first=1, local=1)
    np.testing.assert_array_equal(replicas.local_part(np.arange(6)), [2, 3])
    message = "Expected a batch that 3 replicas can share, got 32 pictures."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        replicas.share(32)


@pytest.mark.parametrize("value", [None, "no JSON", '{"cluster": {}}'])
def test_several_machines_need_tf_config(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if value is not None:
        monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(InputError, match="TF_CONFIG"):
        distribution.create("multi_worker")
