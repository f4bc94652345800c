"""The learning rate of each step."""

import math


def learning_rate(step: int, *, steps: int, warmup_steps: float, maximum: float) -> float:
    """Grows linearly to `maximum` in the first `warmup_steps`, then falls on half a cosine to 0."""
    if step < warmup_steps:
        return maximum * (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / (steps - warmup_steps)
    return maximum * 0.5 * (1 + math.cos(math.pi * progress))
