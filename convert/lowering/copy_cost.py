"""What moving channels costs: enough to tell which of two forms copies less."""

import tf_keras as keras

from keras_models.layers import ChannelShuffle, ChannelSlice

# Instructions a pixel on emulated ARM cores, which differ by less than 1 %: of a slice, of each
# tensor of a concat, and of each channel of a transpose (counted on 28x28 maps).
SLICE, JOINED, TRANSPOSED = 41, 34, 10.4


def copying(model: keras.Model) -> float:
    """Instructions, roughly: enough to tell which of two forms copies less."""
    return sum(_cost(layer) for layer in model.layers)


def _cost(layer: keras.layers.Layer) -> float:
    _, *pixels, channels = layer.output.shape
    area = pixels[0] * pixels[1] if len(pixels) == 2 else 1
    match layer:
        case ChannelSlice():
            return area * SLICE
        case keras.layers.Concatenate():
            return area * JOINED * len(layer.input)
        case ChannelShuffle():
            return area * TRANSPOSED * channels
        case _:
            return 0.0
