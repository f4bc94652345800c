"""Fixtures of all tests, which are started as from a terminal."""

import signal
from pathlib import Path

import pytest

from tests import traps

# A shell starts what runs in its background without Ctrl-C, and so would be all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose TensorFlow and LiteRT leave the program with 99."""
    return traps.write(tmp_path_factory.mktemp("trap"), *traps.TENSORFLOW, "ai_edge_litert")
