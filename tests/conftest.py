"""Fixtures of all tests, which are started as from a terminal."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import filelock
import pytest

from shufflelite import scratch
from tests import traps

# A shell starts what runs in its background without Ctrl-C, and so would be all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Workers share the cores: more threads in each only wait for one another.
for variable in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# What workers and killed commands leave is removed at the end, but for the folders of tests.
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
if "PYTEST_XDIST_WORKER" not in os.environ:
    scratch.make()

LONGEST = (  # files that start first, so that the workers end together
    "tests/keras_models/test_published.py",
    "tests/convert/lowering/test_lower.py",
    "tests/convert/test_command.py",
    "tests/convert/quantization/test_qat.py",
    "tests/convert/test_export.py",
    "tests/convert/test_classify.py",
    "tests/convert/test_command_stops.py",
)
Once = Callable[[str, Callable[[Path], None]], Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.nodeid.partition("::")[0], len(rank)))


@pytest.fixture(scope="session")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose TensorFlow and LiteRT leave the program with 99."""
    return traps.write(tmp_path_factory.mktemp("trap"), *traps.TENSORFLOW, "ai_edge_litert")


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Fills a folder of that name, once for all workers of a run."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name: str, fill: Callable[[Path], None]) -> Path:
        with filelock.FileLock(shared / f"{name}.lock"):
            if not (shared / name).exists():
                partial = shared / f"{name}.partial"
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                fill(partial)
                partial.rename(shared / name)
        return shared / name

    return folder
