import re
from typing import Any

import numpy as np
import pytest

from convert import kotlin, litert, quantize
from convert.litert import Tensor
from keras_models.data import Preprocessing

ALIKE = [
    Preprocessing(),
    Preprocessing((0.0,) * 3, (1.0,) * 3),
    Preprocessing((0.0,) * 3, (255.0,) * 3),
]
PER_CHANNEL = [
    Preprocessing((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    Preprocessing((0.4, 127.5, 254.6), (50.0, 60.0, 70.0)),
]
LOGITS = Tensor("logits", 1, "int8", (1, 10), float(np.float32(0.0123)), -17)
PIXELS = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 256, 1, 3)


def source(dtype: str, preprocessing: Preprocessing) -> Tensor:
    if dtype == "float32":
        return Tensor("image", 0, dtype, (1, 256, 1, 3), 0.0, 0)
    range_ = quantize.input_range(preprocessing)
    scale = (range_.high - range_.low) / 255
    lowest = np.iinfo(dtype).min
    zero_point = lowest - round(range_.low / scale)
    return Tensor("image", 0, dtype, (1, 256, 1, 3), float(np.float32(scale)), zero_point)


def to_python(expression: str) -> str:
    """Kotlin's arithmetic as NumPy's: Float is float32, toByte keeps eight bits."""
    expression = re.sub(r"(\d+(?:\.\d+)?(?:e-?\d+)?)f\b", r"F(\1)", expression)
    expression = re.sub(r"\.coerceIn\((-?\d+), (\d+)\)", r".clip(\1, \2)", expression)
    expression = expression.replace("it.toUByte()", "(it & 0xFF)")
    expression = expression.replace(".toByte()", ".astype(np.int64).astype(np.int8)")
    return expression.replace(".toInt()", ".astype(np.int64)")


def statistic(code: str, name: str) -> np.ndarray:
    (numbers,) = re.findall(rf"val {name} = floatArrayOf\((.*)\)", code)
    return np.array([float(number.removesuffix("f")) for number in numbers.split(", ")], np.float32)


def fed(code: str) -> np.ndarray:
    """What the code puts into the buffer for the 256 grey pixels, (256, 3)."""
    ((kind, expression),) = re.findall(r"input\.put(Float)?\((.*)\)$", code, re.MULTILINE)
    names: dict[str, Any] = {"np": np, "F": np.float32, "floor": np.floor}
    names["pixel"] = PIXELS.reshape(-1, 3).astype(np.int64)
    if "mean" in expression:
        names["mean"], names["std"] = statistic(code, "mean"), statistic(code, "std")
        names["pixel"] = names["pixel"].astype(np.float32)  # as Int - Float is
    expression = expression.replace("pixels[i]", "pixel").replace("[i % 3]", "")
    found = eval(to_python(expression), names)
    assert found.dtype == (np.float32 if kind else np.int8)
    return found


@pytest.mark.parametrize("preprocessing", ALIKE + PER_CHANNEL)
@pytest.mark.parametrize("dtype", ["int8", "uint8", "float32"])
def test_the_app_feeds_the_bytes_that_were_verified(
    dtype: str, preprocessing: Preprocessing
) -> None:
    tensor = source(dtype, preprocessing)
    expected = litert.quantize(preprocessing.to_input(PIXELS), tensor).reshape(-1, 3)
    found = fed(kotlin.classify(tensor, LOGITS, preprocessing))
    if dtype == "float32":
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_array_equal(found.view(dtype), expected)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_pixels_go_in_as_they_are_where_all_channels_are_alike(dtype: str) -> None:
    code = kotlin.classify(source(dtype, Preprocessing()), LOGITS, Preprocessing())
    assert "mean" not in code
    put = {"int8": "put((pixels[i] - 128).toByte())", "uint8": "put(pixels[i].toByte())"}[dtype]
    assert f"for (i in pixels.indices) input.{put}\n" in code


@pytest.mark.parametrize(("dtype", "size"), [("int8", 1), ("uint8", 1), ("float32", 4)])
def test_the_buffer_has_the_size_of_the_input(dtype: str, size: int) -> None:
    tensor = Tensor("image", 0, dtype, (1, 96, 128, 3), 0.1, 0)
    code = kotlin.classify(tensor, LOGITS, Preprocessing())
    assert (
        f"ByteBuffer.allocateDirect({size} * 96 * 128 * 3).order(ByteOrder.nativeOrder())" in code
    )


def test_means_and_deviations_are_those_of_the_preprocessing() -> None:
    preprocessing = PER_CHANNEL[0]
    code = kotlin.classify(source("float32", preprocessing), LOGITS, preprocessing)
    np.testing.assert_allclose(statistic(code, "mean"), preprocessing.mean, rtol=1e-5)
    np.testing.assert_allclose(statistic(code, "std"), preprocessing.std, rtol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "zero_point"), [("int8", -17), ("int8", 5), ("uint8", 111), ("float32", 0)]
)
def test_logits_come_out_as_real_numbers(dtype: str, zero_point: int) -> None:
    scale = 0.0 if dtype == "float32" else float(np.float32(0.0123))
    result = Tensor("logits", 1, dtype, (1, 1001), scale, zero_point)
    code = kotlin.classify(source("int8", Preprocessing()), result, Preprocessing())
    assert f"arrayOf({'FloatArray' if dtype == 'float32' else 'ByteArray'}(1001))" in code
    ((expression),) = re.findall(r"val logits = output\[0\]\.map \{ (.*) \}", code)
    if dtype == "float32":
        assert expression == "it"
        return
    stored = np.arange(256).astype(np.uint8).view(dtype)
    signed = stored.view(np.int8).astype(np.int64)  # Byte - Int is an Int
    found = eval(to_python(expression), {"np": np, "F": np.float32, "it": signed})
    expected = (stored.astype(np.float64) - zero_point) * scale
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_what_comes_out_has_the_name_of_what_it_is() -> None:
    scores = Tensor("probability", 1, "float32", (1, 10), 0.0, 0)
    code = kotlin.classify(source("uint8", Preprocessing()), scores, Preprocessing(), name="scores")
    assert "val scores = output[0].map { it }" in code
    assert "val best = scores.indices.maxByOrNull { scores[it] }" in code
    assert "logits" not in code
