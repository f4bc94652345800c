"""Tells calibration pictures that cannot be what the network will see."""

import hashlib

import numpy as np
import tf_keras as keras

from convert.calibration_data import Inputs

MIN_PICTURES = 10  # different ones
MIN_DEVIATION = 2.0  # in pixel units, of the channel with most contrast; photographs: above 11
MAX_FLAT = 0.1  # share of pictures below it
STATISTICS = 64  # pictures that are compared with the batch norms
# Squared distances from the batch norms, over all of them and of the first.  Four bundled networks
# and two of ImageNet: real pictures, from 4 on, stay below 0.32 and 0.46; noise, gradients and one
# colour are above 0.46 in all; wrong normalization and darkness are above 0.54 in the first.
MAX_DISTANCE, MAX_FIRST = 0.4, 0.5


def find(pictures: Inputs, model: keras.Model, *, is_trained: bool) -> tuple[str, ...]:
    """Warnings, a sentence each.

    Args:
      pictures: What the user gave for calibration, as uint8 pixels.
      model: The network in training form.
      is_trained: Whether its batch norms hold the statistics of a training.
    """
    warnings, total = [], len(pictures)
    different = len({hashlib.sha256(picture.tobytes()).digest() for picture in pictures.values})
    if different < MIN_PICTURES:
        few = f"calibration pictures: {total}"
        if different < total:
            few = f"different calibration pictures: {different} of {total}"
        warnings.append(f"too few {few}; about 200 are enough")
    deviations = np.array([picture.std(axis=(0, 1)).max() for picture in pictures.values])
    flat = int(np.count_nonzero(deviations < MIN_DEVIATION))
    if flat > MAX_FLAT * total:
        warnings.append(f"{flat} of {total} calibration pictures have one colour")
    norms = [n for n in model.layers if isinstance(n, keras.layers.BatchNormalization)]
    if is_trained and norms and different > 3:
        distances = _distances(pictures, model, norms)
        for distance, limit, where in (
            (float(np.mean(distances)), MAX_DISTANCE, "on average"),
            (float(distances[0]), MAX_FIRST, "in the first"),
        ):
            if not distance <= limit:
                warnings.append(
                    f"calibration pictures contradict the network's batch norms: {distance:.2f} "
                    f"squared deviations {where}, real pictures less than {limit:g}; are they "
                    "what it was trained on, and is the preprocessing that of the weights?"
                )
                break
    return tuple(warnings)


def _distances(pictures: Inputs, model: keras.Model, norms: list[keras.layers.Layer]) -> np.ndarray:
    """Of each batch norm: squared errors of mean and deviation, in its variances, over channels."""
    probe = keras.Model(model.inputs, [norm.input for norm in norms])
    sums = [np.zeros((2, norm.moving_mean.shape[0])) for norm in norms]
    counts = np.zeros(len(norms))
    step = -(-len(pictures) // STATISTICS)
    some = Inputs(pictures.origin, pictures.values[::step], pictures.preprocessing)
    for outputs in some.outputs_of(probe):
        for index, output in enumerate(outputs):
            values = output.reshape(-1, output.shape[-1]).astype(np.float64)
            sums[index] += values.sum(axis=0), (values**2).sum(axis=0)
            counts[index] += len(values)
    distances = []
    for norm, (total, squares), count in zip(norms, sums, counts, strict=True):
        mean = total / count
        deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
        variance = norm.moving_variance.numpy() + norm.epsilon
        error = (mean - norm.moving_mean.numpy()) ** 2 + (deviation - np.sqrt(variance)) ** 2
        distances.append(np.mean(error / (variance + 1e-3)))  # channels that died in training: ~0
    return np.array(distances)
