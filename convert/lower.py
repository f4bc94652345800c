"""Training form -> deployment form: the same function, in the layers that TFLite runs best.

The training form's Keras graph is read layer by layer, with one rule for each kind of layer.  A
convolution waits until its batch norm and its ReLU have come, and only then becomes a layer of the
deployment form, with both folded into it.
"""

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import tf_keras as keras

from convert import graph
from keras_models.layers import Tensor


@dataclass(frozen=True)
class _Convolution:
    """A convolution or fully connected layer that may still absorb what follows it."""

    layer: keras.layers.Layer
    inputs: Tensor
    kernel: np.ndarray
    bias: np.ndarray
    activation: str = "linear"

    def after_batch_norm(self, batch_norm: keras.layers.Layer) -> "_Convolution":
        gamma, beta, mean, variance = (
            np.asarray(w, np.float64)
            for w in (
                batch_norm.gamma if batch_norm.scale else 1.0,
                batch_norm.beta if batch_norm.center else 0.0,
                batch_norm.moving_mean,
                batch_norm.moving_variance,
            )
        )
        factor = gamma / np.sqrt(variance + batch_norm.epsilon)
        depthwise = isinstance(self.layer, keras.layers.DepthwiseConv2D)
        per_kernel = factor.reshape(self.kernel.shape[2:]) if depthwise else factor
        return replace(
            self, kernel=self.kernel * per_kernel, bias=(self.bias - mean) * factor + beta
        )

    @cached_property
    def tensor(self) -> Tensor:
        """The layer in the deployment form, and what comes out of it."""
        config = self.layer.get_config() | {"use_bias": True, "activation": self.activation}
        layer = type(self.layer).from_config(config)
        tensor = layer(self.inputs)
        layer.set_weights([self.kernel, self.bias])
        return tensor


def lower(model: keras.Model) -> keras.Model:
    """Returns the deployment form of a training-form model, weights included.

    Layers keep their names; a folded batch norm or ReLU disappears into the layer before it, and
    what only training needs (dropout) disappears altogether.

    Raises:
      ValueError: a batch norm has no convolution to fold into.
    """
    reads = graph.sources(model)
    readers = Counter(name for names in reads.values() for name in names)

    def step(layer: keras.layers.Layer, inputs: list[Any]) -> Any:
        only_reader = all(readers[name] == 1 for name in reads[layer.name])
        return _lower_layer(layer, inputs, only_reader=only_reader)

    values = graph.interpret(model, step)
    inputs, outputs = (_tensor(values[name]) for name in (*model.input_names, *model.output_names))
    return keras.Model(inputs, outputs, name=model.name)


def _lower_layer(layer: keras.layers.Layer, inputs: list[Any], *, only_reader: bool) -> Any:
    value: Any = inputs[0] if inputs else None
    open_end = only_reader and isinstance(value, _Convolution) and value.activation == "linear"
    match layer:
        case keras.layers.Conv2D() | keras.layers.DepthwiseConv2D() | keras.layers.Dense():
            kernel, *bias = (np.asarray(w, np.float64) for w in layer.get_weights())
            channels = layer.output.shape[-1]
            return _Convolution(
                layer,
                _tensor(value),
                kernel,
                bias[0] if bias else np.zeros(channels),
                keras.activations.serialize(layer.activation),
            )
        case keras.layers.BatchNormalization():
            if not open_end:
                raise ValueError(f"Batch norm {layer.name!r} has no convolution to fold into.")
            return value.after_batch_norm(layer)
        case keras.layers.ReLU() if open_end and _fuses(layer):
            return replace(value, activation="relu6" if layer.max_value else "relu")
        case keras.layers.Dropout():
            return value if only_reader else _tensor(value)
        case _:
            return graph.copy(layer, [_tensor(v) for v in inputs])


def _fuses(relu: keras.layers.ReLU) -> bool:
    return relu.max_value in (None, 6.0) and not relu.negative_slope and not relu.threshold


def _tensor(value: Any) -> Tensor:
    return value.tensor if isinstance(value, _Convolution) else value
