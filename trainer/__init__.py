"""Fine-tunes Gemma from a configuration; see `trainer.run` for the way of the data."""

import os

# before any module of ours imports Keras; `gemma.backend` refuses another choice
os.environ.setdefault("KERAS_BACKEND", "jax")
