"""What it costs to move channels: a rough figure to compare two deployment forms by."""

import tf_keras as keras

from keras_models.layers import ChannelShuffle, ChannelSlice

# Instructions per pixel on emulated ARM cores, which differ by less than 1 %: for a slice, for each
# tensor of a concat, and for each channel of a transpose (counted on 28x28 maps).
SLICE, CONCAT_INPUT, TRANSPOSED_CHANNEL = 41, 34, 10.4


def copy_cost(model: keras.Model) -> float:
    """The instructions, roughly, that a model spends on moving channels."""
    return sum(_cost(layer) for layer in model.layers)


def _cost(layer: keras.layers.Layer) -> float:
    _, *pixels, channels = layer.output.shape
    area = pixels[0] * pixels[1] if len(pixels) == 2 else 1
    match layer:
        case ChannelSlice():
            return area * SLICE
        case keras.layers.Concatenate():
            return area * CONCAT_INPUT * len(layer.input)
        case ChannelShuffle():
            return area * TRANSPOSED_CHANNEL * channels
        case _:
            return 0.0
