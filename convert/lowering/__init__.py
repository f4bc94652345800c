"""Lowering: rewrites a network into the layers that TFLite runs fastest; the outputs stay the same.

`from_keras` reads the training form into a graph of channel numbers (`ir`). In that graph a
shuffle, a split and a concat are index arithmetic, not operations. Passes fold batch norms and
rewrite grouped convolutions, `channel_layout` chooses the order of the channels in each tensor, and
`to_keras` builds the deployment form, whose weights are permuted to match.
"""

import tf_keras as keras

from convert.lowering.copy_cost import copy_cost
from convert.lowering.fold import fold
from convert.lowering.from_keras import read_graph
from convert.lowering.grouped import rewrite_grouped
from convert.lowering.options import GENERIC, LoweringOptions
from convert.lowering.split_outputs import split_outputs
from convert.lowering.to_keras import build_model


def lower(
    model: keras.Model, *, integer: bool = False, options: LoweringOptions | None = GENERIC
) -> keras.Model:
    """Returns the deployment form of a training-form model, with its weights.

    Layers keep their names; the parts of a layer that is split get a number. A folded batch norm or
    ReLU becomes part of the layer before it. Layers that only training needs (dropout) are dropped.

    Args:
      model: The training form.
      integer: Write hard-swish in layers that have fast integer kernels.
      options: The alternatives to choose; None: translate layer by layer, as other converters do,
        with batch norms folded.
    """
    if options is None:
        graph = read_graph(model, integer=integer, plain=True)
        return build_model(fold(graph, plain=True), keep_order=True)
    deployed = _lower(model, integer=integer, options=options, shuffles=bool(options.shuffles))
    if options.shuffles is None and 0 < copy_cost(model) < copy_cost(deployed):
        return _lower(model, integer=integer, options=options, shuffles=True)
    return deployed


def _lower(
    model: keras.Model, *, integer: bool, options: LoweringOptions, shuffles: bool
) -> keras.Model:
    graph = fold(read_graph(model, integer=integer, shuffles=shuffles))
    return build_model(split_outputs(rewrite_grouped(graph, options), options))
