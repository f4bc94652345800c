"""The real values that an int8 tensor can hold.  Imports no TensorFlow."""

from dataclasses import dataclass

import numpy as np

# In fractions of a step: an input this close to the middle between two steps takes the lower one.
# With mean and deviation 127.5 every pixel lies there: an int8 input is then the pixel - 128, a
# uint8 input the pixel itself.
TIES = 1e-3


@dataclass(frozen=True)
class Range:
    """The real values that the 256 steps of an int8 tensor span; contains zero."""

    low: float
    high: float

    @property
    def step(self) -> float:
        """The difference between two neighbours of the 256 values.

        From the limits in float32, which is how the converter stores them.
        """
        return (float(np.float32(self.high)) - float(np.float32(self.low))) / 255

    @property
    def zero_point(self) -> int:
        """The int8 value that stands for zero."""
        return round(-self.low / self.step) - 128
