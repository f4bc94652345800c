"""Weights and pictures drawn from names: the same with and without PyTorch, so not committed."""

import zlib

import numpy as np


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draws the tensor `name` of a state dict, so that signals neither vanish nor explode."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    rng = np.random.RandomState(zlib.crc32(name.encode()))  # its stream never changes
    if name.endswith("running_var"):
        values = rng.uniform(0.5, 1.5, shape)
    elif len(shape) > 1:
        values = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    elif name.endswith("weight"):  # of a batch norm
        values = rng.uniform(0.3, 0.8, shape)
    else:
        values = rng.normal(0, 0.3, shape)
    return values.astype(np.float32)


def image(size: int) -> np.ndarray:
    """Draws a picture, (1, 3, size, size)."""
    values = np.random.RandomState(size).uniform(-1, 1, (1, 3, size, size))
    return values.astype(np.float32)


def tiny() -> dict[str, np.ndarray]:
    """The values of the state dict in tiny.pth and its variants."""
    grid = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    return {
        "contiguous": grid,
        "transposed": grid.transpose(2, 0, 1),
        "sliced": grid[1, 1:, ::2],
        "row": grid[1, 2],
        "parameter": grid[0] / 8,
        "bfloat16": np.array([1.0, -2.5, 0.15625], np.float32),
        "half": np.array([1.0, -2.5, 0.15625], np.float16),
        "double": np.array([[1 / 3, 2.0**60]]),
        "byte": np.array([0, 255], np.uint8),
        "char": np.array([-128, 127], np.int8),
        "short": np.array([-(2**15)], np.int16),
        "int": np.array([2**31 - 1], np.int32),
        "scalar": np.array(2**62),
        "empty": np.zeros((0, 3), np.float32),
    }
