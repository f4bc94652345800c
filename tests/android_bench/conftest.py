"""Fixtures: small files to measure, the emulated system, phones, and sweeps."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import util
from pathlib import Path

import pytest

from android_bench import build_cache
from android_bench.emulated import setup
from android_bench.targets import adb, remote_target, temperatures
from shufflelite.errors import InputError
from tests import forkserver
from tests.android_bench import fake_tool, phone, sweeps
from tests.android_bench.adb_device import Device
from tests.android_bench.ssh_server import alone, server, wire  # noqa: F401
from tests.android_bench.sweeps import Bench
from tests.conftest import Once

ADBS = {  # both real: the one that adbutils brings, and the system's
    "adbutils": str(Path(util.find_spec("adbutils").origin).parent / "binaries/adb"),
    "system": shutil.which("adb"),
}

# In a process of its own: the tests themselves must be able to prove that nothing loads TensorFlow.
CONVERT = """
import sys, numpy as np, tensorflow as tf, tf_keras as keras

def convert(model, *, int8=False):
    spec = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32)
    call = tf.function(lambda image: model(image), input_signature=[spec])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([call.get_concrete_function()])
    if int8:
        samples = np.random.default_rng(0).uniform(-1, 1, (8, *spec.shape)).astype(np.float32)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([sample] for sample in samples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()

layers = keras.layers
toy = keras.Sequential([
    layers.Input((32, 32, 3)),
    layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
    layers.DepthwiseConv2D(3, padding="same"),
    layers.Conv2D(16, 1),
    layers.GlobalAveragePooling2D(),
    layers.Dense(10),
])
heavy = keras.Sequential([layers.Input((2048,)), layers.Dense(2048)])
for name, data in {
    "float": convert(toy), "int8": convert(toy, int8=True), "heavy": convert(heavy)
}.items():
    with open(f"{sys.argv[1]}/{name}.tflite", "wb") as file:
        file.write(data)
"""


@pytest.fixture(scope="session")
def toys(once: Once) -> Mapping[str, Path]:
    """A small convolutional network in float and in int8, and 16 MiB of weights in one layer."""

    def convert(folder: Path) -> None:
        forkserver.run([sys.executable, "-c", CONVERT, str(folder)]).check_returncode()

    return {path.stem: path for path in once("toys", convert).iterdir()}


@pytest.fixture(scope="session")
def unrunnable(toys: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound file that no runtime can run: its first operator is a custom one nobody knows."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(toys["float"].read_bytes(), 0)
    model.operatorCodes[0].builtinCode = schema.BuiltinOperator.CUSTOM
    model.operatorCodes[0].deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    model.operatorCodes[0].customCode = "Mystery"
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    path = tmp_path_factory.mktemp("unrunnable") / "unrunnable.tflite"
    path.write_bytes(builder.Output())
    return path


@pytest.fixture(scope="session")
def arm_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[setup.System]:
    """The emulated ARM system: the user's, or one made for these tests."""
    with pytest.MonkeyPatch.context() as patch:
        if not setup.is_ready():
            patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
            try:
                setup.setup(print)
            except InputError as error:
                pytest.skip(str(error))
        yield setup.find()


@pytest.fixture(
    scope="session", params=["adbutils", pytest.param("system", marks=pytest.mark.slow)]
)
def adb_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The environment of an adb server of our own; the user's is not touched."""
    program = ADBS[request.param]
    if program is None or not Path(program).exists():
        pytest.skip(f"no adb: {request.param}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        "HOME": str(tmp_path_factory.mktemp("home")),
        "ANDROID_ADB_SERVER_PORT": str(port),
        "ADBUTILS_ADB_PATH": program,
    }
    whole = {**os.environ, **environment}
    subprocess.run([program, "start-server"], env=whole, check=True, timeout=1200)
    yield environment
    subprocess.run([program, "kill-server"], env=whole, check=True, timeout=1200)


@pytest.fixture
def _short_waits(adb_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in adb_server.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    monkeypatch.setattr(remote_target, "RETURN_S", 15.0)
    monkeypatch.setattr(temperatures, "COOL_DOWN_S", 0.1)
    monkeypatch.setattr(adb, "POLL_S", 0.1)


@pytest.fixture
def new_device(_short_waits: None, tmp_path: Path) -> Iterator[Callable[[], Device]]:
    """Switches on phones, which leave nothing behind."""
    devices: list[Device] = []

    def start() -> Device:
        devices.append(Device(tmp_path / f"phone{len(devices)}"))
        return phone.connect(devices[-1])

    yield start
    for device in devices:
        device.authorized = True
        with contextlib.suppress(subprocess.CalledProcessError):
            phone.client("disconnect", device.serial)
        device.close()


@pytest.fixture
def device(new_device: Callable[[], Device]) -> Device:
    return new_device()


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    return fake_tool.write(tmp_path / "benchmark_model")


@pytest.fixture
def bench(toys: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "stand_in.py").write_text(sweeps.CONVERT)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(build_cache, "CONVERT", (sys.executable, "stand_in.py"))
    monkeypatch.setenv("TOY", str(toys["int8"]))
    monkeypatch.setenv("LOG", str(folder / "log"))
    return Bench(folder)
