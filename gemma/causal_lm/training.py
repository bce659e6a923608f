"""`fit` and `evaluate` on text: strings go through the preprocessor first.

Turns strings, or prompts with responses, into arrays, labels and weights, and hands
them to Keras. Arrays and data sets of arrays go through as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
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
            ValueError: `x` is text, but there is no preprocessor or there are labels;
                or the optimizer could change nothing.
        """
        _check_optimizer(self.optimizer, self.trainable_variables)
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


def _check_optimizer(
    optimizer: keras.Optimizer | None, variables: Iterable[keras.Variable]
) -> None:
    """Refuse what trains nothing without a word: Adam on bfloat16 variables.

    Keras 3.15 computes an update in the variable's dtype. Adam's 0.999 is 1 in
    bfloat16, the factor of its bias correction 0, and so is every update.
    """
    beta_2 = getattr(optimizer, "beta_2", None)
    if beta_2 is None or float(jnp.bfloat16(beta_2)) < 1.0:
        return
    found = next((v for v in variables if v.dtype == "bfloat16"), None)
    if found is not None:
        raise ValueError(
            f"{type(optimizer).__name__} cannot train {found.path} in bfloat16, where "
            f"its beta_2={beta_2} is 1; load the model with dtype='float32', or call "
            "backbone.enable_lora, whose adapters are float32"
        )


def _is_text(x: Any) -> bool:  # noqa: ANN401
    """Return whether `x` is strings, or a dict of prompts."""
    if isinstance(x, Mapping):
        return "prompts" in x
    if isinstance(x, np.ndarray):
        return x.dtype.kind in "USO"
    return isinstance(x, (list, tuple)) and bool(x) and isinstance(x[0], (str, bytes))
