"""Prefixes that programs put before the names of a network's weights."""

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

_COUNTER = "n_averaged"  # of PyTorch's AveragedModel
_MOST = 4  # prefixes one before another, such as module._orig_mod.model.backbone.


def candidates(arrays: Mapping[str, np.ndarray]) -> Iterator[Mapping[str, np.ndarray]]:
    """Yields `arrays` as they are, then without the prefix of most names, the next one, ....

    It may be module. of DataParallel, model. of Lightning, or the name of any attribute.  Other
    names, such as those of a head beside the backbone, stay as they are.
    """
    arrays = {name: array for name, array in arrays.items() if name != _COUNTER}
    yield arrays
    for _ in range(_MOST):
        counts = Counter(name.partition(".")[0] for name in arrays if "." in name)
        if not counts:
            return
        (first, count), *_ = counts.most_common(1)
        stripped = {name.removeprefix(f"{first}."): array for name, array in arrays.items()}
        if 2 * count <= len(arrays) or len(stripped) < len(arrays):
            return
        yield stripped
        arrays = stripped
