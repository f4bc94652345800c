"""Files in LiteRT, from several threads too."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from convert.settings import Precision, Quantization
from convert.verification import runner
from keras_models.images.decode import Preprocessing

FORMS = [
    *(Quantization(precision=p) for p in Precision if p is not Precision.INT8),
    *(
        Quantization(precision=Precision.INT8, io_dtype=dtype)
        for dtype in ("int8", "uint8", "float32")
    ),
]
ODD = Preprocessing((120.0, 110.0, 100.0), (55.0, 60.0, 65.0), channel_order="bgr")


def name(settings: Quantization) -> str:
    return "-".join(filter(None, (settings.precision.value, settings.io_dtype)))


@pytest.mark.parametrize("preprocessing", [Preprocessing(), ODD], ids=["plain", "odd"])
@pytest.mark.parametrize("settings", FORMS, ids=name)
def test_a_classifier_gives_what_the_file_gives(
    files: Callable[[Quantization], bytes],
    pictures: Callable[..., np.ndarray],
    settings: Quantization,
    preprocessing: Preprocessing,
) -> None:
    data, shown = files(settings), pictures(6, 16, seed=4)
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    expected = []
    for x in preprocessing.to_input(shown):
        interpreter.set_tensor(
            source["index"], runner.quantize(x, runner.io_tensors(interpreter)[0])[None]
        )
        interpreter.invoke()
        stored = interpreter.get_tensor(result["index"])[0].astype(np.float32)
        scale, zero_point = result["quantization"]
        expected.append((stored - zero_point) * np.float32(scale) if scale else stored)
    found = runner.classifier_of(data, preprocessing)(shown)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.stack(expected))
    assert len(np.unique(found.argmax(axis=1))) > 1 or preprocessing is ODD


def test_threads_do_not_meet_in_one_interpreter(
    files: Callable[[Quantization], bytes], pictures: Callable[..., np.ndarray]
) -> None:
    shown = pictures(40, 16, seed=5)
    ask: Any = runner.classifier_of(files(FORMS[0]), Preprocessing())
    expected = ask(shown)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: ask(shown[i : i + 1]), [*range(40)] * 5))
    np.testing.assert_array_equal(np.concatenate(found), np.tile(expected, (5, 1)))
