"""A Keras network as a function of pictures."""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_models.accuracy import Classifier
from keras_models.images.decode import Preprocessing

PIXELS = 8 * 224 * 224  # of pictures together: their activations fit in memory


def classifier_of(model: Any, preprocessing: Preprocessing) -> Classifier:
    """Makes of a network a function of uint8 pictures, which gives float32 logits.

    It is compiled here, so keep it; the weights are those that the model has when it is called.
    """
    _, height, width, _ = shape = model.inputs[0].shape
    together = max(1, PIXELS // (height * width))

    @tf.function
    def forward(inputs: Any) -> Any:
        return tf.cast(model(inputs, training=False), tf.float32)

    # For batches of any size: what is compiled does not depend on which comes first.
    compiled = forward.get_concrete_function(tf.TensorSpec(shape, tf.float32))

    def classify(pictures: np.ndarray) -> np.ndarray:
        parts = [pictures[i : i + together] for i in range(0, len(pictures), together)]
        inputs = (tf.constant(preprocessing.to_input(part)) for part in parts)
        return np.concatenate([compiled(part).numpy() for part in inputs])

    return classify
