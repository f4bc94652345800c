import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from android_bench.emulated import setup
from keras_models.errors import InputError

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
def toys(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A small convolutional network in float and in int8, and 16 MiB of weights in one layer."""
    folder = tmp_path_factory.mktemp("toys")
    command = [sys.executable, "-c", CONVERT, str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return {path.stem: path for path in folder.iterdir()}


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
