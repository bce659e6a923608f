"""`fit` and `evaluate` on text: strings go through the preprocessor first.

Turns strings, or prompts with responses, into arrays, labels and weights, and hands
them to Keras. Arrays and data sets of arrays go through as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from gemma.preprocessors import GemmaCausalLMPreprocessor


class TextTraining:
    """Training methods of a `keras.Model` that has a preprocessor."""

    preprocessor: GemmaCausalLMPreprocessor | None

    def fit(
        self,
        x: Any = None,  # noqa: ANN401  # whatever Keras takes, or text
        y: Any = None,  # noqa: ANN401
        *args: Any,  # noqa: ANN401
        sample_weight: Any = None,  # noqa: ANN401
        validation_data: Any = None,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> keras.callbacks.History:
        """Train as `keras.Model.fit`; `x` may be strings, or prompts and responses.

        Raises:
            ValueError: `x` is text, but there is no preprocessor or there are labels.
        """
        x, y, sample_weight = self._arrays(x, y, sample_weight)
        if validation_data is not None:
            held_out = validation_data
            held_out = held_out if isinstance(held_out, tuple) else (held_out,)
            if _is_text(held_out[0]):
                validation_data = self._arrays(*held_out)
        return super().fit(
            x,
            y,
            *args,
            sample_weight=sample_weight,
            validation_data=validation_data,
            **kwargs,
        )

    def evaluate(
        self,
        x: Any = None,  # noqa: ANN401
        y: Any = None,  # noqa: ANN401
        *args: Any,  # noqa: ANN401
        sample_weight: Any = None,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Evaluate as `keras.Model.evaluate`; `x` as in `fit`.

        Raises:
            ValueError: As `fit`.
        """
        x, y, sample_weight = self._arrays(x, y, sample_weight)
        return super().evaluate(x, y, *args, sample_weight=sample_weight, **kwargs)

    def _arrays(
        self,
        x: Any,  # noqa: ANN401
        y: Any = None,  # noqa: ANN401
        sample_weight: Any = None,  # noqa: ANN401
    ) -> tuple[Any, Any, Any]:
        """Return features, labels and weights; those of text are made from it."""
        if not _is_text(x):
            return x, y, sample_weight
        if self.preprocessor is None:
            raise ValueError(
                "text needs a preprocessor, received None; build the model from a "
                "preset with a tokenizer, or pass arrays"
            )
        return self.preprocessor(x, y, sample_weight)


def _is_text(x: Any) -> bool:  # noqa: ANN401
    """Return whether `x` is strings, or a dict of prompts."""
    if isinstance(x, Mapping):
        return "prompts" in x
    if isinstance(x, np.ndarray):
        return x.dtype.kind in "USO"
    return isinstance(x, (list, tuple)) and bool(x) and isinstance(x[0], (str, bytes))
