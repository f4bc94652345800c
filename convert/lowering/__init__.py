"""Training form -> deployment form: the same function, in the layers that TFLite runs best.

The training form's Keras graph is read as a program: which channels each step reads, and which it
gives.  There a shuffle, a split and a concat are no steps, only numbers; each tensor's order of
channels is free until the program becomes a Keras graph again, and weights follow that order.
"""

import tf_keras as keras

from convert.lowering.copy_cost import copying
from convert.lowering.fold import fold
from convert.lowering.from_keras import read
from convert.lowering.grouped import rewrite_grouped
from convert.lowering.options import GENERIC, Form
from convert.lowering.split_outputs import split_outputs
from convert.lowering.to_keras import emit


def lower(model: keras.Model, *, integer: bool = False, form: Form | None = GENERIC) -> keras.Model:
    """Returns the deployment form of a training-form model, weights included.

    Layers keep their names, parts of one get a number; a folded batch norm or ReLU disappears into
    the layer before it, and what only training needs (dropout) disappears altogether.

    Args:
      model: The training form.
      integer: Write hard-swish in layers that have fast integer kernels.
      form: Which of several ways to take; None: translate layer by layer, as any converter does,
        with batch norms folded.
    """
    if form is None:
        return emit(fold(read(model, integer=integer, plain=True), plain=True), in_order=True)
    deployed = _lower(model, integer=integer, form=form, shuffles=bool(form.shuffles))
    if form.shuffles is None and 0 < copying(model) < copying(deployed):
        return _lower(model, integer=integer, form=form, shuffles=True)
    return deployed


def _lower(model: keras.Model, *, integer: bool, form: Form, shuffles: bool) -> keras.Model:
    program = fold(read(model, integer=integer, shuffles=shuffles))
    return emit(split_outputs(rewrite_grouped(program, form), form))
