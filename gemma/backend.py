"""Makes sure that Keras runs on JAX, before anything imports Keras.

Turns an undecided environment into `KERAS_BACKEND=jax`. It refuses another backend by
name instead of failing later in the middle of a model.
"""

from __future__ import annotations

import os
import sys


def select_jax() -> None:
    """Choose Keras's JAX backend for this process.

    Raises:
        ImportError: Another backend was chosen or is loaded already.
    """
    chosen = os.environ.setdefault("KERAS_BACKEND", "jax")
    if "keras" in sys.modules:
        chosen = sys.modules["keras"].config.backend()
    if chosen != "jax":
        raise ImportError(
            "gemma needs Keras on JAX, but the backend is "
            f"{chosen!r}. Unset KERAS_BACKEND or set KERAS_BACKEND=jax, "
            "before Keras is imported."
        )
