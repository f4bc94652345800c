"""Makes the file of one rival; each runs in a Python environment that has its packages.

python benchmarks/rivals/convert.py RIVAL NETWORK FOLDER

FOLDER has, but for `onnx`, what `onnx` wrote: the network and the calibration inputs.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

INPUTS = 16  # for calibration; costs do not depend on the ranges
RESOLUTION = 224


def onnx(name: str, folder: Path) -> None:
    """NETWORK.onnx by PyTorch's exporter, and inputs.npy, (INPUTS, 224, 224, 3) float32."""
    import networks
    import torch

    torch.onnx.export(
        networks.build(name),
        (torch.zeros(1, 3, RESOLUTION, RESOLUTION),),
        str(folder / f"{name}.onnx"),
        input_names=["image"],
        output_names=["logits"],
        opset_version=17,
        dynamo=False,  # the other exporter writes one file more for the weights
    )
    inputs = np.random.default_rng(0).uniform(-1, 1, (INPUTS, RESOLUTION, RESOLUTION, 3))
    np.save(folder / "inputs.npy", inputs.astype(np.float32))


def litert_torch(name: str, folder: Path) -> None:
    """LiteRT's converter of PyTorch, quantized by ai-edge-quantizer with its static recipe."""
    import litert_torch
    import networks
    import torch
    from ai_edge_quantizer import quantizer, recipe

    from_torch = folder / f"{name}_litert_torch_float.tflite"
    network = litert_torch.to_channel_last_io(networks.build(name), args=[0])
    sample = (torch.zeros(1, RESOLUTION, RESOLUTION, 3),)
    litert_torch.convert(network, sample).export(str(from_torch))
    int8 = quantizer.Quantizer(str(from_torch), recipe.static_wi8_ai8())
    keys = _signature_inputs(from_torch)
    calibration = {
        key: [{argument: value[None]} for value in _inputs(folder)]
        for key, argument in keys.items()
    }
    ranges = int8.calibrate(calibration)
    path = folder / f"{name}_litert_torch.tflite"
    int8.quantize(ranges).export_model(str(path), overwrite=True)


def _signature_inputs(path: Path) -> dict[str, str]:
    from ai_edge_litert.interpreter import Interpreter

    signatures = Interpreter(str(path)).get_signature_list()
    return {key: names["inputs"][0] for key, names in signatures.items()}


def onnx2tf(name: str, folder: Path) -> None:
    """onnx2tf's file with int8 ends, from the ONNX file."""
    out = folder / f"{name}_onnx2tf"
    ranges = ["-cind", "image", str(folder / "inputs.npy"), "[[[[0,0,0]]]]", "[[[[1,1,1]]]]"]
    command = ["-i", str(folder / f"{name}.onnx"), "-o", str(out), "-oiqt", "-iqd", "int8"]
    # Pictures for a check of its own, which it would download.
    own = np.random.default_rng(0).uniform(0, 1, (20, 128, 128, 3)).astype(np.float32)
    np.save(folder / "calibration_image_sample_data_20x128x128x3_float32.npy", own)
    programs = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    command = [str(programs / "onnx2tf"), *command, "-oqd", "int8", *ranges]
    subprocess.run(command, check=True, cwd=folder, env=environment)
    (path,) = out.glob("*_full_integer_quant.tflite")
    path.rename(folder / f"{name}_onnx2tf.tflite")


def mnn(name: str, folder: Path) -> None:
    """MNN's float file, and its int8 file by the quantization of its Python package."""
    import _tools  # of MNN: its commands also send statistics home
    from MNN import expr, nn

    float32, rounded, int8 = (folder / f"{name}{end}.mnn" for end in ("", "_rounded", "_int8"))

    def convert(kind: str, before: Path, after: Path) -> None:
        files = ["--modelFile", str(before), "--MNNModel", str(after)]
        _tools.mnnconvert(["MNNConvert", "-f", kind, *files, "--bizCode", "peers"])

    convert("ONNX", folder / f"{name}.onnx", float32)
    variables = expr.load_as_dict(str(float32))
    network = nn.load_module([variables["image"]], [variables["logits"]], True)
    nn.compress.train_quant(network, 8)
    network.train(True)  # its scales follow the inputs
    shape = [1, 3, RESOLUTION, RESOLUTION]
    for value in _inputs(folder):
        picture = expr.const(value.transpose(2, 0, 1).ravel().tolist(), shape, expr.NCHW)
        network.forward(expr.convert(picture, expr.NC4HW4)).read()
    network.train(False)
    image = expr.placeholder(shape, expr.NCHW)
    image.name = "image"
    logits = network.forward(expr.convert(image, expr.NC4HW4))
    logits.name = "logits"
    expr.save([logits], str(rounded))
    convert("MNN", rounded, int8)


def onnxruntime(name: str, folder: Path) -> None:
    """ONNX Runtime's static quantization: QDQ, per channel, signed and symmetric."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.inputs = iter(_inputs(folder))

        def get_next(self) -> dict[str, np.ndarray] | None:
            value = next(self.inputs, None)
            return None if value is None else {"image": value.transpose(2, 0, 1)[None]}

    prepared = folder / f"{name}_prepared.onnx"
    quant_pre_process(str(folder / f"{name}.onnx"), str(prepared))
    quantization.quantize_static(
        str(prepared),
        str(folder / f"{name}_int8.onnx"),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QInt8,
        weight_type=quantization.QuantType.QInt8,
        extra_options={"ActivationSymmetric": True},
    )


def _inputs(folder: Path) -> Any:
    return np.load(folder / "inputs.npy")


CONVERTERS: Mapping[str, Callable[[str, Path], None]] = {
    one.__name__: one for one in (onnx, litert_torch, onnx2tf, mnn, onnxruntime)
}

if __name__ == "__main__":
    rival, network, where = sys.argv[1:]
    CONVERTERS[rival](network, Path(where))
