"""The lines of Kotlin that run a bundle's file, written for its dtypes and preprocessing."""

from convert.litert import Tensor
from keras_models.data import Preprocessing


def classify(
    source: Tensor, result: Tensor, preprocessing: Preprocessing, *, name: str = "logits"
) -> str:
    """From `pixels`, an IntArray of 0..255, row by row and channel by channel, to `best`.

    The values of the output get a `name`.
    """
    return "\n".join(
        [
            'val model = Interpreter(FileUtil.loadMappedFile(context, "model.tflite"))',
            *_feed(source, preprocessing),
            *_read(result, name),
            f"val best = {name}.indices.maxByOrNull {{ {name}[it] }}",
        ]
    )


def _feed(tensor: Tensor, preprocessing: Preprocessing) -> list[str]:
    _, height, width, channels = tensor.shape
    value_bytes = 4 if tensor.dtype == "float32" else 1
    normalized = "(pixels[i] - mean[i % 3]) / std[i % 3]"
    statistics = [
        f"val {name} = floatArrayOf({', '.join(f'{v:g}f' for v in values)})"
        for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std))
    ]
    if tensor.dtype == "float32":
        put = f"putFloat({normalized})"
    elif len(set(preprocessing.mean)) == len(set(preprocessing.std)) == 1:
        statistics = []  # the 256 steps are the 256 pixel values
        put = (
            "put((pixels[i] - 128).toByte())"
            if tensor.dtype == "int8"
            else ("put(pixels[i].toByte())")
        )
    else:
        limits = "-128, 127" if tensor.dtype == "int8" else "0, 255"
        steps = f"{normalized} / {tensor.scale!r}f + {tensor.zero_point} + 0.499f"
        put = f"put(floor({steps}).toInt().coerceIn({limits}).toByte())"
    return [
        *statistics,
        f"val input = ByteBuffer.allocateDirect({value_bytes} * {height} * {width} * {channels})"
        ".order(ByteOrder.nativeOrder())",
        f"for (i in pixels.indices) input.{put}",
        "input.rewind()",
    ]


def _read(tensor: Tensor, name: str) -> list[str]:
    kind = "Float" if tensor.dtype == "float32" else "Byte"
    stored = "it.toUByte().toInt()" if tensor.dtype == "uint8" else "it"
    value = "it" if kind == "Float" else f"({stored} - ({tensor.zero_point})) * {tensor.scale!r}f"
    return [
        f"val output = arrayOf({kind}Array({tensor.shape[-1]}))",
        "model.run(input, output)",
        f"val {name} = output[0].map {{ {value} }}",
    ]
