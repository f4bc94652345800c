"""Export: deployment form -> the bytes of a .tflite file."""

import tensorflow as tf
import tf_keras as keras

from convert.calibration_data import Inputs
from convert.settings import Precision, Quantization


class _Variables(tf.Module):
    """Holds a model's variables alone: given the model, the converter traces every layer of it."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.held = model.variables


def to_tflite(model: keras.Model, settings: Quantization, calibration: Inputs | None) -> bytes:
    """Converts a deployment form at batch 1.

    INT8 expects the fake-quantized network, which contains its ranges. INT16X8 takes its ranges,
    the smallest and largest values, from `calibration`.
    """
    shape = (1, *model.inputs[0].shape[1:])
    signature = tf.TensorSpec(shape, tf.float32, name="image")
    function = tf.function(lambda image: {"logits": model(image, training=False)}, autograph=False)
    concrete = function.get_concrete_function(signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], _Variables(model))
    converter._experimental_disable_per_channel = not settings.per_channel
    precision = settings.precision
    if precision is not Precision.FLOAT32:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision is Precision.FLOAT16:
        converter.target_spec.supported_types = [tf.float16]
    if precision is Precision.INT16X8:
        assert calibration is not None
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        ]
        converter.representative_dataset = lambda: ([batch] for batch in calibration.batches(1))
    if precision is Precision.INT8:
        source, result = map(tf.as_dtype, settings.io_dtypes)
        converter.inference_input_type, converter.inference_output_type = source, result
    return converter.convert()
