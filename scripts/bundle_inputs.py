"""Makes the synthetic inputs that are stored beside the bundled weights.

Run it after `python -m keras_models.train.publish`, and when `synthetic_inputs.VERSION` changes.

    .venv/bin/python scripts/bundle_inputs.py [NAME ...]
"""

import sys

import tensorflow as tf

from convert.__main__ import THREADS
from convert.context import Context
from convert.network import create
from convert.quantization import stored_inputs
from convert.resolve_model import complete
from convert.settings import ConversionSettings, Model
from keras_models.checkpoints import bundled
from shufflelite.progress import Progress


def main(names: list[str]) -> None:
    """Writes one file beside each of these networks' weights; of all networks without names."""
    tf.config.experimental.enable_op_determinism()  # both as `convert` does: the same inputs
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    progress = Progress("bundle_inputs")
    for name in names or bundled.every():
        settings = ConversionSettings(complete(Model(name, weights="bundled")))
        network = create(settings.model, seed=settings.seed, warn=progress.warn)
        request = stored_inputs.request_of(Context(settings, network, progress))
        with progress.stage(name) as on_step:
            inputs = stored_inputs.make(request, on_step)
        weights = bundled.require(name, setting="the argument").path
        stored_inputs.write(weights.with_suffix(stored_inputs.SUFFIX), request, inputs)


if __name__ == "__main__":
    main(sys.argv[1:])
