"""The cost of PyTorch's symmetric padding in int8, in equivalent graphs.

  python benchmarks/padding.py --out build/padding

writes a network with TensorFlow's padding (another function: the lower bound), with PAD operators
(as `convert` does), and with kernels that a row and a column of zeros make wider, so that
TensorFlow's padding centers them; checks that the last two agree; and measures all three.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras as keras
from absl import app, flags

from convert import export, keras_graph
from convert.lowering import lower
from convert.quantization import quantize
from convert.quantization.synthetic_inputs import noise
from convert.settings import Precision, Quantization, Rounding
from keras_models import registry
from keras_models.checkpoints.random_weights import randomize
from keras_models.images.decode import Preprocessing

flags.DEFINE_string("model", "shufflenet_v2", "A network with the option padding.")
flags.DEFINE_string("out", "build/padding", "Folder for the files.")


def main(argv: list[str]) -> None:
    """Writes the files and measures them with android_bench."""
    out = Path(flags.FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    model = registry.create(flags.FLAGS.model, padding="symmetric")
    randomize(model, seed=0)
    padded = lower(model, integer=True)
    forms = {
        "tensorflow": lower(registry.create(flags.FLAGS.model), integer=True),
        "pad": padded,
        "wider": widened(padded),
    }
    forms["tensorflow"].set_weights(padded.get_weights())
    inputs = noise(model, Preprocessing(), seed=0)
    (batch,) = inputs.batches(len(inputs))
    logits, same = (forms[form](batch).numpy() for form in ("pad", "wider"))
    assert np.abs(logits - same).max() < 1e-5 * np.abs(logits).max()
    settings = Quantization(precision=Precision.INT8, rounding=Rounding.NEAREST)
    files = []
    for form, deployed in forms.items():
        ready = quantize.apply(deployed, inputs, settings, Preprocessing())
        files.append(out / f"{form}.tflite")
        files[-1].write_bytes(export.to_tflite(ready, settings, None))
    command = [sys.executable, "-m", "android_bench", "--rounds", "40", "--models", *files]
    subprocess.run(command, check=True)


def widened(deployed: keras.Model) -> keras.Model:
    """The deployment form with 4x4 kernels in place of zeros around 3x3 ones at stride 2."""

    def visit(layer: keras.layers.Layer, inputs: list[Any]) -> Any:
        pads = isinstance(layer, keras.layers.ZeroPadding2D)
        if pads and hasattr(layer.outbound_nodes[0].layer, "kernel_size"):
            return inputs[0]
        if getattr(layer, "strides", None) != (2, 2) or not hasattr(layer, "kernel_size"):
            if isinstance(layer, keras.layers.InputLayer):
                return keras.Input(layer.input_shape[0][1:], name=layer.name)
            copy = keras_graph.clone(layer, type(layer), layer.get_config())
            return copy(inputs if len(inputs) > 1 else inputs[0])
        kernel, bias = layer.get_weights()
        wide = np.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
        config = {"kernel_size": wide.shape[:2], "padding": "same"}
        clone = type(layer).from_config(layer.get_config() | config)
        tensor = clone(inputs[0])
        clone.set_weights([wide, bias])
        return tensor

    values = keras_graph.interpret(deployed, visit)
    image, logits = (values[n] for n in (*deployed.input_names, *deployed.output_names))
    return keras.Model(image, logits, name=deployed.name)


if __name__ == "__main__":
    app.run(main)
