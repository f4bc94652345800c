"""Deployment form -> the bytes of a .tflite file."""

from collections.abc import Sequence
from enum import Enum

import numpy as np
import tensorflow as tf


class Precision(str, Enum):
    """What the file computes with: weights and activations."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"  # float16 weights, float32 activations
    DYNAMIC = "dynamic"  # int8 weights, float32 activations rounded as they come
    INT8 = "int8"  # int8 weights and activations
    INT16X8 = "int16x8"  # int8 weights, int16 activations


def to_tflite(
    model,
    *,
    precision: Precision,
    io_dtype: str = "float32",
    per_channel: bool = True,
    samples: Sequence[np.ndarray] = (),
) -> bytes:
    """Converts a deployment form at batch 1.

    INT8 expects the fake-quantized form, which carries its ranges; INT16X8 takes its ranges, the
    smallest and largest values, from `samples`, each (h, w, 3) float32.
    """
    shape = (1, *model.inputs[0].shape[1:])
    signature = tf.TensorSpec(shape, tf.float32, name="image")
    function = tf.function(lambda image: {"logits": model(image, training=False)})
    concrete = function.get_concrete_function(signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], model)
    converter._experimental_disable_per_channel = not per_channel
    if precision is not Precision.FLOAT32:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision is Precision.FLOAT16:
        converter.target_spec.supported_types = [tf.float16]
    if precision is Precision.INT16X8:
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        ]
        converter.representative_dataset = lambda: ([sample[None]] for sample in samples)
    if precision is Precision.INT8:
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(io_dtype)
    return converter.convert()
