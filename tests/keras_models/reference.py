"""What the ShuffleNets are made of, in NumPy: for the networks' independent references."""

from collections.abc import Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Arrays = Mapping[str, np.ndarray]


def conv_bn(
    arrays: Arrays, x: np.ndarray, name: str, *, strides: int = 1, symmetric: bool = False
) -> np.ndarray:
    """A convolution or a depthwise one, whichever has that name, and its batch norm."""
    if f"{name}/kernel" in arrays:
        kernel = arrays[f"{name}/kernel"]
        law = "bhwcij,ijco->bhwo"
    else:
        kernel = arrays[f"{name}/depthwise_kernel"][..., 0]
        law = "bhwcij,ijc->bhwc"
    seen = windows(x, len(kernel), strides=strides, symmetric=symmetric)
    return batch_norm(arrays, np.einsum(law, seen, kernel, optimize=True), name)


def batch_norm(arrays: Arrays, x: np.ndarray, name: str) -> np.ndarray:
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    gamma, beta, mean, variance = (arrays[f"{name}_bn/{part}"] for part in names)
    return gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def shuffled(x: np.ndarray, groups: int) -> np.ndarray:
    return np.stack(np.split(x, groups, axis=-1), axis=-1).reshape(x.shape)


def windows(
    x: np.ndarray, size: int, *, strides: int, symmetric: bool, fill: float = 0.0
) -> np.ndarray:
    """Of even sides; at stride 2 TensorFlow pads only behind, PyTorch on both sides."""
    both = (size // 2, size // 2)
    side = both if strides == 1 or symmetric else (0, size - strides)
    x = np.pad(x, ((0, 0), side, side, (0, 0)), constant_values=fill)
    views = sliding_window_view(x, (1, size, size, 1))[:, ::strides, ::strides]
    return views[..., 0, :, :, 0]  # (b, h, w, c, size, size)


def images(side: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, side, side, 3)).astype(np.float32)


def assert_same_logits(actual: np.ndarray, expected: np.ndarray) -> None:
    """Within 1e-4 of the logits' own size: float32 sums in another order differ by 1e-5 of it."""
    scale = np.abs(expected).max()
    assert expected.std(axis=0).max() > 0.01 * scale, "the logits hardly depend on the image"
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * scale)
