"""The two Keras variables that stand in for a quantized weight.

Turns a layer's float variable into integers and scales of the same layer, without
values if it had none. It refuses to know what the layer computes with them.
"""

from __future__ import annotations

import jax
import keras
import numpy as np

from gemma.quantized.array import QuantizedArray
from gemma.quantized.grid import (
    SCALE_DTYPE,
    VALUE_DTYPES,
    Quantization,
    Shape,
    quantize,
    quantized_shapes,
)
from gemma.quantized.names import BLOCK_AXES, part_paths


class QuantizedVariable:
    """Integers and scales in place of `variable`, which its layer forgets.

    Args:
        layer: A built layer, which gets the two variables.
        variable: One of the layer's weights.
        quantization: Grid of the integers.
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        variable: keras.Variable,
        quantization: Quantization,
    ) -> None:
        self.quantization: Quantization = quantization
        self.axis = BLOCK_AXES[variable.name]
        self.shape: Shape = tuple(variable.shape)
        shapes = quantized_shapes(self.shape, quantization, self.axis)
        names = part_paths(variable.path, quantization)
        dtypes = (VALUE_DTYPES[quantization].name, SCALE_DTYPE.name)
        layer._tracker.unlock()  # a built layer takes and leaves no state
        self.values, self.scales = (
            layer.add_weight(
                name=name.rsplit("/", 1)[1],
                shape=shape,
                initializer="zeros",
                dtype=dtype,
                trainable=False,
                autocast=False,
            )
            for name, shape, dtype in zip(names, shapes, dtypes, strict=True)
        )
        layer._untrack_variable(variable)
        layer._tracker.lock()
        if variable._value is not None:
            parts = quantize(np.asarray(variable.value), quantization, self.axis)
            self.values.assign(parts[0])
            self.scales.assign(parts[1])

    @property
    def value(self) -> QuantizedArray:
        """The parts as one value."""
        return self.array(self.values.value, self.scales.value)

    def array(self, values: jax.Array, scales: jax.Array) -> QuantizedArray:
        """Return other integers and scales of the same weight as one value."""
        return QuantizedArray(values, scales, self.quantization, self.axis)
