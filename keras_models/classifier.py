"""A Keras network as a function from pictures to logits."""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_models.accuracy import Classifier
from keras_models.images.decode import Preprocessing

PIXELS = 8 * 224 * 224  # of pictures together: their activations fit in memory


def classifier_of(model: Any, preprocessing: Preprocessing) -> Classifier:
    """Returns a function from uint8 pictures to float32 logits.

    The function is compiled here, so keep it; it uses the weights that the model has when called.
    """
    _, height, width, _ = shape = model.inputs[0].shape
    batch = max(1, PIXELS // (height * width))

    @tf.function
    def forward(inputs: Any) -> Any:
        return tf.cast(model(inputs, training=False), tf.float32)

    # For batches of any size, whichever comes first.
    compiled = forward.get_concrete_function(tf.TensorSpec(shape, tf.float32))

    def classify(pictures: np.ndarray) -> np.ndarray:
        batches = [pictures[i : i + batch] for i in range(0, len(pictures), batch)]
        inputs = (tf.constant(preprocessing.to_input(pixels)) for pixels in batches)
        return np.concatenate([compiled(values).numpy() for values in inputs])

    return classify
